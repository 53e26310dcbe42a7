"""Consumer groups, seen from outside: members of every client, killed and moved about."""
