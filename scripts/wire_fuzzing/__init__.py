"""Fuzzers of the wire: raw bytes and wild frames at a server process, and what decodes them, guided by coverage."""
