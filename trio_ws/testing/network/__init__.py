"""A network in memory: hosts, connections that can be disturbed, and what travels on them, bytes or whole messages."""
