"""Where a connection comes from: what trusted proxies say of it, and what anybody else does."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import trio

from trio_ws.addresses import network_of
from trio_ws.errors import InvalidConfig
from trio_ws.server.proxies import NoProxyHeader, TrustedProxies, read_proxy_header


def forwarded(*values: str, name: str = "x-forwarded-for") -> list[tuple[str, str]]:
    return [(name, value) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["\x1b[31m"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("unix", ["203.0.113.7"], "203.0.113.7"),
        ("203.0.113.9", ["6.6.6.6"], "203.0.113.9"),
        ("gone", ["6.6.6.6"], "gone"),
    ],
)
def test_x_forwarded_for(peer: str, values: list[str], client: str) -> None:
    assert TrustedProxies(["10.0.0.0/8", "unix"]).client(peer, forwarded(*values)) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (["For=6.6.6.6, for=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        (['proto=https; for="[2001:db8::7]:4711"'], "2001:db8::7"),
        (['for="203.0.113.7:80"'], "203.0.113.7"),
        (['for=6.6.6.6, for="a, for=7.7.7.7"'], "10.0.0.1"),
        (["for=6.6.6.6, for=_hidden"], "10.0.0.1"),
        (["for=6.6.6.6, for=unknown"], "10.0.0.1"),
        (["by=6.6.6.6"], "10.0.0.1"),
    ],
)
def test_forwarded(values: list[str], client: str) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"], "forwarded")
    assert proxies.client("10.0.0.1", forwarded(*values, name="forwarded")) == client


def test_only_the_way_that_is_configured_counts() -> None:
    headers = forwarded("6.6.6.6") + forwarded("for=7.7.7.7", name="forwarded")
    assert TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", headers) == "6.6.6.6"
    assert TrustedProxies(["10.0.0.0/8"], "forwarded").client("10.0.0.1", headers) == "7.7.7.7"
    assert TrustedProxies(["10.0.0.0/8"], "proxy-protocol").client("10.0.0.1", headers) == "10.0.0.1"


def test_a_header_is_expected_of_trusted_proxies_only() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"], "proxy-protocol")
    assert proxies.expects_header("10.1.2.3")
    assert not proxies.expects_header("11.1.2.3")
    assert not TrustedProxies(["10.0.0.0/8"]).expects_header("10.1.2.3")


@pytest.mark.parametrize("network", ["", "everyone", "10.0.0.1/8", "10.0.0.0/33", "unix:"])
def test_what_is_no_network(network: str) -> None:
    with pytest.raises(InvalidConfig):
        TrustedProxies([network])


def version_2(
    address: str = "203.0.113.7", *, command: int = 0x21, family: int = 0, more: bytes = b""
) -> bytes:
    packed = ipaddress.ip_address(address).packed
    body = packed + packed + b"\x12\x34\x01\xbb" + more
    family = family or (0x11 if len(packed) == 4 else 0x21)
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([command, family]) + len(body).to_bytes(2) + body


async def over_memory(data: bytes) -> trio.abc.Stream:
    theirs, ours = trio.testing.memory_stream_pair()
    await theirs.send_all(data)
    await theirs.send_eof()
    return ours


async def over_tcp(data: bytes) -> trio.abc.Stream:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        ours = await listener.accept()
    await theirs.send_all(data)
    await theirs.aclose()
    return ours


@pytest.mark.parametrize("over", [over_memory, over_tcp])
@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "10.0.0.1"),
        (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", "10.0.0.1"),
        (version_2(), "203.0.113.7"),
        (version_2("2001:db8::7"), "2001:db8::7"),
        (version_2(more=b"\x04\x00\x01x"), "203.0.113.7"),
        (version_2(command=0x20), "10.0.0.1"),
        (version_2(family=0x31), "10.0.0.1"),
    ],
)
async def test_the_proxy_header(over: Any, header: bytes, client: str) -> None:
    stream = await over(header + b"GET / HTTP/1.1\r\n")
    assert await read_proxy_header(stream, "10.0.0.1") == client
    assert await stream.receive_some(1000) == b"GET / HTTP/1.1\r\n"
    await stream.aclose()


@pytest.mark.parametrize("over", [over_memory, over_tcp])
@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY ",
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443",
        b"PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
        b"PROXY TCP4 nonsense 10.0.0.1 4711 443\r\n",
        b"PROXY TCP4\r\n        ",
        b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
        version_2(command=0x11),
        version_2(command=0x22),
        version_2()[:-5],
        version_2()[:14] + b"\xff\xff" + bytes(200),
        version_2()[:14] + b"\x00\x04" + bytes(4),
    ],
)
async def test_what_is_no_proxy_header(over: Any, header: bytes) -> None:
    stream = await over(header)
    with pytest.raises(NoProxyHeader):
        await read_proxy_header(stream, "10.0.0.1")
    await stream.aclose()


def test_one_machine_has_a_whole_network_of_ipv6() -> None:
    assert network_of("2001:db8::7") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::7") != network_of("2001:db8::7")
    assert network_of("::ffff:203.0.113.7") == network_of("203.0.113.7") == "203.0.113.7"
    assert network_of("unix") == "unix"
    assert network_of("fe80::1%eth0") == "fe80::/64"
