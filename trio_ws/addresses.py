"""Addresses: how they are written, how they are reached, and who can reach them."""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]

UNIX: Final = "unix:"
"""What the address of a Unix socket begins with; its port is 0."""


def netloc(host: str, port: int | str) -> str:
    """``HOST:PORT`` as a URL has it, IPv6 in brackets; a Unix socket as it is."""
    if host.startswith(UNIX):
        return host
    bare = host.strip("[]").partition("%")[0]
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def reachable(host: str) -> str:
    """Where a listener on `host` is reached from this machine: one on any address, on the machine's own."""
    bare = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bare, bare)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`. Of names, only ``localhost`` counts."""
    if host.startswith(UNIX):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def network_of(host: str) -> str:
    """Whom `host` counts for in limits of one address: an IPv6 address for its /64, which one machine has all of."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def cause_of(error: BaseException) -> str:
    """Why a connection broke, or could not be made: the words of the system, from under the layers that wrap them."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {inner.verify_message}"
        if isinstance(inner, OSError) and inner.errno:
            system = inner.errno > 0 and not isinstance(inner, ssl.SSLError)
            words = os.strerror(inner.errno) if system else inner.strerror
            return (words or "").lower()
        within = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else None
        inner = within or inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__
