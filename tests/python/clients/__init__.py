"""Clients that were not written here, against a broker started as a program."""
