"""Addresses: how they are written, how they are reached, and who can reach them."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]


def netloc(host: str, port: int | str) -> str:
    """``HOST:PORT`` as a URL has it; IPv6 in brackets."""
    bare = host.strip("[]").partition("%")[0]
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def reachable(host: str) -> str:
    """Where a listener on `host` is reached from this machine: one on any address, on the machine's own."""
    bare = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`. Of names, only ``localhost`` counts."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"
