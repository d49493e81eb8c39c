"""The hot path as C, by mypyc, from the same sources."""
