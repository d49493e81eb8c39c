"""The opening handshake as a table: what a client sends, and what RFC 6455 (or HTTP) has a server answer.

Each row quotes what it is for. tests/server/test_opening.py holds a server to it in memory, and once on a real socket.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455 section 1.3 has a server answer to `KEY`."""

REQUEST: dict[str, str | None] = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@attrs.frozen
class Row:
    """One request, and its answer.

    Attributes:
      rule: the section, and what it says.
      sent: all bytes of the request.
      status: of the answer.
      headers: what must be among the answer's; None for one that must not be.
    """

    rule: str
    sent: bytes
    status: int
    headers: dict[str, str | None]

    def __str__(self) -> str:
        return self.rule


def ask(
    line: str = "GET /ws?user=ada HTTP/1.1", *extra: str, end: str = "\r\n", **changed: str | None
) -> bytes:
    """A request: the headers of `REQUEST`, some changed (`Sec_WebSocket_Key=…`) or left out (None), and extra lines."""
    headers = REQUEST | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *extra]
    return (end.join(lines) + end * 2).encode("latin-1")


OPEN: dict[str, str | None] = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": ACCEPT,
    "Sec-WebSocket-Protocol": None,
    "Sec-WebSocket-Extensions": None,
    "Content-Length": None,
}
SHUT: dict[str, str | None] = {"Connection": "close", "Sec-WebSocket-Accept": None}
VERSIONS = SHUT | {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}
V1 = OPEN | {"Sec-WebSocket-Protocol": "trio-ws.v1"}


def accepted() -> Iterator[Row]:
    """What must be let in."""

    def row(rule: str, sent: bytes, headers: dict[str, str | None] = OPEN) -> Row:
        return Row(rule, sent, 101, headers)

    yield row("4.2.2/5: 101, Upgrade, Connection, and the Accept of section 1.3", ask())
    yield row(
        "4.2.2/5.4: another key has another Accept",
        ask(Sec_WebSocket_Key="x3JJHMbDL1EzLkh9GBhXDw=="),
        OPEN | {"Sec-WebSocket-Accept": "HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
    )
    yield row("4.2.1/3: Upgrade is compared in any case", ask(Upgrade="WebSocket"))
    yield row("4.2.1/3: Upgrade is a list that has websocket in it", ask(Upgrade="foo/2, websocket"))
    yield row("4.2.1/4: Connection is a list that has Upgrade in it", ask(Connection="keep-alive, Upgrade"))
    yield row("4.2.1/4: Connection is compared in any case", ask(Connection="UPGRADE"))
    yield row("4.2.1/4: a list may come in several lines", ask("GET /ws?user=ada HTTP/1.1", "Connection: TE"))
    yield row(
        "4.2.1/1: an absolute URI is a target too", ask("GET http://server.example.com/ws?user=ada HTTP/1.1")
    )
    yield row("4.2.1/2: Host may have a port", ask(Host="server.example.com:8765"))
    yield row("4.2.1/2: Host may be an address", ask(Host="[::1]:80"))
    yield row("4.2.1/7: an Origin that is allowed", ask(Origin="http://localhost:3000"))
    yield row(
        "4.2.1/8, 4.2.2/5.5: what is known of the offered subprotocols is selected",
        ask(Sec_WebSocket_Protocol="trio-ws.v1"),
        V1,
    )
    yield row("4.2.1/8: in a list", ask(Sec_WebSocket_Protocol="chat, trio-ws.v1 ,superchat"), V1)
    yield row(
        "4.2.1/8: in several lines",
        ask("GET /ws HTTP/1.1", "Sec-WebSocket-Protocol: trio-ws.v1", Sec_WebSocket_Protocol="chat"),
        V1,
    )
    yield row("4.2.2/5.5: none is selected that is not known", ask(Sec_WebSocket_Protocol="chat"))
    yield row("4.2.2/4: subprotocols are compared to the letter", ask(Sec_WebSocket_Protocol="TRIO-WS.V1"))
    yield row(
        "4.2.1/9, 4.2.2/5.6: an extension that is offered need not be taken",
        ask(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits, x-unknown"),
    )
    yield row(
        "4.2.1/10: other headers are ignored", ask("GET /ws?user=ada HTTP/1.1", "Cookie: a=b", "X-Unknown: ?")
    )
    yield row(
        "RFC 9110 5.1: names of headers in any case",
        ask("GET /ws?user=ada HTTP/1.1", f"sEC-wEBsOCKET-kEY:{KEY}", Sec_WebSocket_Key=None),
    )
    yield row(
        "RFC 9110 5.5: blanks around a value are none of it",
        ask("GET /ws?user=ada HTTP/1.1", f"Sec-WebSocket-Key: \t {KEY} \t", Sec_WebSocket_Key=None),
    )
    yield row("RFC 9112 6: a length of 0 is no body", ask(Content_Length="0"))


def refused() -> Iterator[Row]:
    """What must not be let in, and what it is told."""

    def row(rule: str, sent: bytes, status: int = 400, headers: dict[str, str | None] = SHUT) -> Row:
        return Row(rule, sent, status, headers)

    for method in ("POST", "HEAD", "OPTIONS", "get"):
        yield row(f"4.2.1/1: GET, not {method}", ask(f"{method} /ws HTTP/1.1"))
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "http/1.1", "ICY/1.1"):
        yield row(f"4.2.1/1: HTTP/1.1, not {version}", ask(f"GET /ws {version}"))
    yield row("4.2.1/1: a target", ask("GET HTTP/1.1"))
    yield row("4.2.1/1: a target without a fragment (section 3)", ask("GET /ws#here HTTP/1.1"))
    yield row("4.2.1/2: a Host", ask(Host=None))
    yield row("RFC 9112 3.2: one Host", ask("GET /ws HTTP/1.1", "Host: other.example.com"))
    yield row("RFC 9112 3.2: a legal Host", ask(Host="a b"))
    yield row("4.2.1/3: an Upgrade", ask(Upgrade=None), 426, VERSIONS)
    yield row("4.2.1/3: an Upgrade to websocket", ask(Upgrade="h2c"), 426, VERSIONS)
    yield row("4.2.1/4: a Connection", ask(Connection=None))
    yield row("4.2.1/4: a Connection that says Upgrade", ask(Connection="keep-alive"))
    yield row("4.2.1/5: a key", ask(Sec_WebSocket_Key=None))
    yield row("11.3.1: one key", ask("GET /ws HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"))
    for key, what in (
        ("", "not an empty one"),
        ("AAAAAAAAAAAAAAAAAAAA", "not 15 bytes"),
        ("AAAAAAAAAAAAAAAAAAAAAAA=", "not 17 bytes"),
        ("dGhlIHNhbXBsZSBub25jZQ", "with its padding"),
        ("dGhlIHNhbXBsZSBub25j_-==", "in base64, not base64url"),
    ):
        yield row(f"4.2.1/5: a key of 16 bytes in base64, {what}", ask(Sec_WebSocket_Key=key))
    for number in (None, "", "0", "7", "8", "12", "14", "99", "256", "13.0", "x"):
        yield row(
            f"4.2.1/6, 4.2.2/4, 4.4: version 13, not {number!r}; and which one it is",
            ask(Sec_WebSocket_Version=number),
            426,
            VERSIONS,
        )
    yield row("11.3.5: one version", ask("GET /ws HTTP/1.1", "Sec-WebSocket-Version: 13"))
    yield row("4.2.1/8, 11.3.4: names of subprotocols are tokens", ask(Sec_WebSocket_Protocol="a(b)"))
    for origin in (
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://[localhost",
        "http://[::1]evil.example",
        "http://localhost]:80",
        "http://evil.example:80/localhost",
    ):
        yield row(f"4.2.2/4, 10.2: 403 for a foreign Origin, as {origin}", ask(Origin=origin), 403)
    yield row("4.2.2/4: 404 for what is not served", ask("GET /elsewhere?user=ada HTTP/1.1"), 404)
    yield row(
        "4.2.2/2: 401 with a challenge for a client that is not known",
        ask("GET /ws HTTP/1.1"),
        401,
        SHUT | {"WWW-Authenticate": "Bearer"},
    )
    yield row("RFC 9112 2.2: no blank before the first line", b" " + ask())
    yield row("RFC 9112 5.2: no header in several lines", ask("GET /ws HTTP/1.1", "X-A: b", "  c"))
    yield row("RFC 9112 5.1: no blank before a colon", ask("GET /ws HTTP/1.1", "X-A : b"))
    yield row("RFC 9110 5.5: no CR, LF or NUL in a value", ask("GET /ws HTTP/1.1", "X-A: b\0c"))
    yield row("RFC 9112 2.2: lines end in CR LF", ask(end="\n"))
    yield row("4.1, 4.2.1: no body", ask(Content_Length="5") + b"12345")
    yield row("4.1, 4.2.1: no body in chunks either", ask(Transfer_Encoding="chunked") + b"0\r\n\r\n")
    yield row("RFC 6585 5: 431 for too many lines", ask("GET /ws HTTP/1.1", *["X: a"] * 101), 431)
    yield row("RFC 6585 5: 431 for too many bytes", ask("GET /ws HTTP/1.1", "X: " + "a" * 17_000), 431)
    # What is told of a body is true of the GET that it could have been: there is none behind it.
    yield row("RFC 9110 9.3.2: no body for HEAD, as of a page", ask("HEAD / HTTP/1.1", Upgrade=None))
    yield row("RFC 9110 9.3.2: no body for HEAD, of another version", ask("HEAD /ws HTTP/1.0"))
    yield row("RFC 9110 9.3.2: no body for HEAD, without a Host", ask("HEAD /ws HTTP/1.1", Host=None))
    yield row(
        "RFC 9110 9.3.2: no body for HEAD, of many lines", ask("HEAD /ws HTTP/1.1", *["X: a"] * 101), 431
    )
    yield row(
        "RFC 9110 9.3.2: no body for HEAD, of many bytes", ask("HEAD /ws HTTP/1.1", "X: " + "a" * 17_000), 431
    )
    yield row("RFC 9110 9.3.2: no body for HEAD, with LF alone", ask("HEAD /ws HTTP/1.1", end="\n"))
    yield row("RFC 9110 9.1: methods are compared to the letter: head is none", ask("head /ws HTTP/1.1"))
    yield row("a TLS hello is no request", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
    yield row("HTTP/2's preface is no request", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


ROWS = [*accepted(), *refused()]
