"""The admin API under a fuzzer, which knows nothing of it but its OpenAPI description."""
