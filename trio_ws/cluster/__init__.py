"""Several nodes on one store: who owns a user's log, and how others reach it."""
