"""Raw bytes at every stage of a connection: before the request, in it, and after it was answered."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .answers import Answers
from .pieces import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    damage,
    frame,
    request,
    segments,
)
from .step import CLOSING, END_OF_INPUT, RESET, Step, until

HELLO = b'{"t":"hello","user":"fuzz-raw"}'

FIRST_BYTES = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"GET / HTTP/1.1\n\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /ws HTTP/1.1\r\n" * 3,
    b"POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"A" * 20_000,
    b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n",
    request(*[b"X-%d: a" % n for n in range(200)]),
    request(b"X: " + b"a" * 20_000),
    request(b"Sec-WebSocket-Protocol: \xff"),
    request(b"Sec-WebSocket-Extensions: \xff"),
    request(b"Connection: \xff"),
    request(b"Host: \xff"),
    request(b"Host: localhost"),
    request(b"Content-Length: 3") + b"abc",
    request(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    request(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    request(b"Expect: 100-continue"),
    request(b"X-A: \x1b[31mred\x1b[0m"),
    request(b" folded: so"),
    request(b"Origin: https://evil.example"),
    request(b"Origin: null"),
    request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    request(target=b"/%00"),
    request(target=b"/ws?token=%ff"),
    request(target=b"/ws?user=%0d%0aSet-Cookie:a"),
    request(target=b"http://[::1/ws"),
    request(target=b"/elsewhere"),
)
"""What no server should fall over, one of them as all that is sent."""

FRAMES = (
    frame(TEXT, HELLO),
    frame(TEXT, b'{"t":"ping"}'),
    frame(TEXT, b'{"type":"a","payload":1}'),
    frame(PING, b"p" * 125),
    frame(PONG),
    frame(TEXT, b"caf\xc3", fin=False) + frame(CONTINUATION, b"\xa9"),
    frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 300,
    frame(TEXT, b"a", fin=False) + frame(PING) + frame(TEXT, b"b"),
    frame(CONTINUATION, b"of nothing"),
    frame(TEXT, b"plain", masked=False),
    frame(TEXT, b"rsv", rsv=0x40),
    frame(TEXT, b"\xff\xfe"),
    frame(TEXT, b"\xed\xa0\x80"),
    frame(BINARY, b"\0\1\2"),
    frame(BINARY, bytes(70_000)),
    frame(TEXT, b"x" * 65_537),
    frame(TEXT, b"x" * 4097),
    frame(3),
    frame(11),
    frame(PING, b"x" * 126),
    frame(PING, b"x", fin=False),
    frame(CLOSE),
    frame(CLOSE, b"x"),
    frame(CLOSE, b"\x03\xe8\xff"),
    *(
        close_frame(code)
        for code in (0, 999, 1000, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 4400, 5000, 65535)
    ),
    close_frame(1000, b"r" * 123),
    close_frame(1000) + frame(TEXT, b"late") + frame(PING),
    bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8) + b"mask",
    bytes([0x81, 0xFF]) + ((1 << 64) - 1).to_bytes(8) + b"mask",
    bytes([0x81, 0xFE]) + (3).to_bytes(2) + b"maskabc",
    bytes([0x81, 0xFF]) + (3).to_bytes(8) + b"maskabc",
    bytes([0x81, 0xFE]) + (65535).to_bytes(2) + b"mask" + b"x" * 1000,
)
"""Frames, right and wrong ones; any of them in any order."""


def script(rng: random.Random, answers: Answers) -> Iterator[Step]:
    """One connection, of which nothing is right but, maybe, the beginning."""
    stage = rng.random()
    if stage < 0.15:
        sent = rng.choice(FIRST_BYTES) if rng.random() < 0.7 else rng.randbytes(rng.randint(0, 600))
    elif stage < 0.4:
        sent = damage(
            rng, request(b"Origin: http://localhost", target=b"/ws?user=fuzz-raw", v1=rng.random() < 0.5)
        )
        sent = sent[: rng.randrange(len(sent) + 1)] if rng.random() < 0.2 else sent
    else:
        sent = request(target=b"/ws?user=fuzz-raw", v1=rng.random() < 0.6)
        if rng.random() < 0.5:  # else all of it goes in one with the request
            yield from segments(rng, sent)
            yield until(lambda: answers.status is not None)
            sent = b""
        if rng.random() < 0.5:
            sent += frame(TEXT, HELLO)
        sent += _frames(rng)
    yield from segments(rng, sent)
    yield from _ending(rng, answers)


def _frames(rng: random.Random) -> bytes:
    sent = b"".join(rng.choice(FRAMES) for _ in range(rng.randint(0, 5)))
    kind = rng.random()
    if kind < 0.3 and sent:
        sent = damage(rng, sent)
    elif kind < 0.4:
        sent += rng.randbytes(rng.randint(1, 300))
    elif kind < 0.6 and sent:
        sent = sent[: rng.randrange(len(sent))]
    return sent


def _ending(rng: random.Random, answers: Answers) -> Iterator[Step]:
    """How the client goes: at once, by a reset, or it is polite and waits to be left."""
    yield from [b""] * rng.choice((0, 0, 1, 4, 16))  # turns of others
    kind = rng.random()
    if kind < 0.3:
        yield RESET
    elif kind < 0.4:
        yield END_OF_INPUT
        yield until(lambda: answers.ended)
    yield CLOSING
