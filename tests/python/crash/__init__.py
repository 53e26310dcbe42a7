"""The broker as a process that is killed, starved of disk and damaged."""
