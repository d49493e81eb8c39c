"""Whom a connection really comes from, as a proxy that is trusted tells it; of anybody else it is not believed.

A proxy tells it in one way, which is configured: in a header (`X-Forwarded-For`, or `Forwarded`, RFC 7239), or before
all else in a PROXY header (haproxy's proxy-protocol.txt, versions 1 and 2). Only that one is looked at, since a proxy
passes on what a client writes into the others.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import trio

from ..errors import InvalidConfig, RemoteError

Way: TypeAlias = Literal["x-forwarded-for", "forwarded", "proxy-protocol"]
WAYS: Final = ("x-forwarded-for", "forwarded", "proxy-protocol")

MAX_HOPS: Final = 16
"""How many proxies one behind the other are looked through."""

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_V1: Final = 107
_MAX_V2: Final = 4096
_FOR = re.compile(r"""(?:^|;)\s*for\s*=\s*(?:"([^"\\]*)"|([^\s;,"]+))\s*(?:;|$)""", re.IGNORECASE)
_ELEMENT = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|[^",])+""")
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+")


class NoProxyHeader(RemoteError):
    """A proxy that is trusted to say where its clients come from did not, or not properly."""


class TrustedProxies:
    """The proxies that are believed, and how they tell.

    Args:
      networks: their addresses or networks (``10.0.0.0/8``); ``unix`` for whoever connects by a Unix socket.
      way: how they tell whom a connection comes from.

    Raises:
      InvalidConfig: for what is no network.
    """

    def __init__(self, networks: Iterable[str], way: Way = "x-forwarded-for") -> None:
        given = tuple(networks)
        self.way = way
        self._unix = "unix" in given
        try:
            self._networks = [ipaddress.ip_network(text) for text in given if text != "unix"]
        except ValueError as error:
            raise InvalidConfig(f"no network of proxies: {error}") from None

    def trusts(self, peer: str) -> bool:
        """Whether `peer`, an address or ``unix``, is one of them."""
        if peer == "unix":
            return self._unix
        if not self._networks:  # asked of each connection several times
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def expects_header(self, peer: str) -> bool:
        """Whether a connection of `peer` begins with a PROXY header."""
        return self.way == "proxy-protocol" and self.trusts(peer)

    def client(self, peer: str, headers: Sequence[tuple[str, str]]) -> str:
        """Whom a request comes from: the last in its chain that is no trusted proxy.

        Args:
          peer: whom the connection comes from.
          headers: (lower-case name, value) pairs.
        """
        if self.way == "proxy-protocol" or not self.trusts(peer):
            return peer
        told = ",".join(value for name, value in headers if name == self.way)
        hops = _ELEMENT.findall(told)[-MAX_HOPS:]
        for hop in reversed(hops):
            address = _address(_named(hop) if self.way == "forwarded" else hop)
            if address is None:
                break  # hidden, or nonsense: what is before it was told by nobody who is trusted
            peer = str(address)
            if not self.trusts(peer):
                break
        return peer


async def read_proxy_header(stream: trio.abc.ReceiveStream, peer: str) -> str:
    """Read the PROXY header that `stream` begins with, and nothing more; whom the connection comes from. A checkpoint.

    Cancelled, part of it may have been read. The caller sets the deadline.

    Raises:
      NoProxyHeader: there is none, or it makes no sense.
      trio.BrokenResourceError: the connection broke.
    """
    begin = await _exactly(stream, 12)
    if begin == _SIGNATURE:
        return await _version_2(stream, peer)
    if begin.startswith(b"PROXY "):
        return _version_1(await _line(stream, begin), peer)
    raise NoProxyHeader("no PROXY header")


async def _version_2(stream: trio.abc.ReceiveStream, peer: str) -> str:
    head = await _exactly(stream, 4)
    length = int.from_bytes(head[2:])
    if head[0] not in (0x20, 0x21) or length > _MAX_V2:
        raise NoProxyHeader("no PROXY header of version 2")
    body = await _exactly(stream, length)
    if head[0] == 0x20 or head[1] >> 4 not in (1, 2):
        return peer  # of the proxy itself, which sees whether anybody is here; or of no IP address
    size = 4 if head[1] >> 4 == 1 else 16
    if length < 2 * size + 4:
        raise NoProxyHeader("the PROXY header is too short")
    return str(ipaddress.ip_address(body[:size]))


def _version_1(line: bytes, peer: str) -> str:
    words = line.decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return peer
    address = _address(words[2]) if len(words) == 6 else None
    if address is None or words[1] != f"TCP{address.version}":
        raise NoProxyHeader("no PROXY header of version 1")
    return str(address)


async def _line(stream: trio.abc.ReceiveStream, begin: bytes) -> bytes:
    """The line that starts with `begin`, up to its end and no further."""
    line = begin
    while not line.endswith(b"\r\n"):
        if len(line) >= _MAX_V1:
            raise NoProxyHeader("the PROXY header is too long")
        more = 1
        if isinstance(stream, trio.SocketStream):
            ahead = await stream.socket.recv(_MAX_V1 - len(line), socket.MSG_PEEK)
            more = ahead.find(b"\n") + 1 or len(ahead) or 1
        line += await _exactly(stream, more)
    return line[:-2]


async def _exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise NoProxyHeader("the connection ended before its PROXY header")
        data += more
    return data


def _named(element: str) -> str:
    """What one element of a `Forwarded` header says of whom it is for."""
    found = _FOR.search(element.strip())
    return "" if found is None else found[1] or found[2] or ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in `text`, which may have a port; None where there is none."""
    text = text.strip()
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is not None:
        text = with_port[1] or with_port[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
