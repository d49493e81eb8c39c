"""A small server for each peer, on the shared workload; run as ``python -m benchmarks.servers.NAME PORT …``."""
