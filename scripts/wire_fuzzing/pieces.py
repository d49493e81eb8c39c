"""The bytes of a client: requests, frames, and what chance makes of them."""

from __future__ import annotations

import random

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def request(*lines: bytes, target: bytes = b"/ws", v1: bool = True) -> bytes:
    """A proper request to upgrade, with more header lines."""
    offered = (b"Sec-WebSocket-Protocol: trio-ws.v1",) if v1 else ()
    return b"\r\n".join(
        (
            b"GET %b HTTP/1.1" % target,
            b"Host: localhost",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: 13",
            *offered,
            *lines,
            b"\r\n",
        )
    )


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    key: bytes = b"\x37\xfa!=",
) -> bytes:
    """A client's frame."""
    length, bit = len(payload), 0x80 if masked else 0
    if length < 126:
        size = bytes([bit | length])
    elif length < 1 << 16:
        size = bytes([bit | 126]) + length.to_bytes(2)
    else:
        size = bytes([bit | 127]) + length.to_bytes(8)
    head = bytes([(0x80 if fin else 0) | rsv | opcode]) + size
    return head + key + _mask(key, payload) if masked else head + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, code.to_bytes(2) + reason)


def _mask(key: bytes, payload: bytes) -> bytes:
    mask = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(len(payload))


def damage(rng: random.Random, data: bytes, times: int = 3) -> bytes:
    """`data` with up to `times` places changed, cut out, doubled, or filled with something else."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, times)):
        at = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            damaged[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del damaged[at : at + rng.randint(1, 12)]
        elif kind == 2:
            damaged[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 3:
            damaged[at:at] = damaged[at : at + rng.randint(1, 40)]
        elif kind == 4 and damaged:
            damaged[min(at, len(damaged) - 1)] ^= 1 << rng.randrange(8)
        else:
            damaged[at:at] = rng.choice(
                (b"\r\n", b"\n", b"\0", b"\xff", b" ", b":", b",", b"\r\n\r\n", b"%00", b"\x7f")
            )
    return bytes(damaged)


def segments(rng: random.Random, data: bytes) -> list[bytes]:
    """`data` as it may come off a network: mostly at once, sometimes in pieces, down to single bytes."""
    kind = rng.random()
    if kind < 0.7 or len(data) < 2:
        return [data]
    if kind < 0.75 and len(data) <= 60:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
