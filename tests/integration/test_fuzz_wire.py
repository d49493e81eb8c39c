"""The fuzzers of the wire, each for a few seconds and by a fixed seed; and that they see what is wrong."""

from __future__ import annotations

import json
import os
import random
import signal

import pytest
import trio
import wire_fuzzing.__main__
from wire_fuzzing.__main__ import Outcome, fuzz
from wire_fuzzing.answers import Answers, Wrong
from wire_fuzzing.pieces import damage
from wire_fuzzing.properties import PROPERTIES, Broken
from wire_fuzzing.target import Target

from trio_ws.core import frames
from trio_ws.core.wire import text_message
from trio_ws.server import lane, upgrade

pytestmark = pytest.mark.integration

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: trio-ws.v1\r\n\r\n"
)
WELCOME = {"t": "welcome", "session": "s", "epoch": "e", "seq": 4, "head": 9, "resumed": False}


@pytest.mark.parametrize(("mode", "connections"), [("raw", 1000), ("frames", 300)])
async def test_a_server_lives_through_it(mode: str, connections: int) -> None:
    # The bound is for a busy machine; what it means for latency is measured by hand, on one that is not.
    outcome = await fuzz(mode, seed=1, connections=connections, bound=5)
    assert outcome.findings == []
    assert outcome.connections == connections
    assert len(outcome.latencies) > 10
    # That it went deep, not only that nothing came of it.
    wanted = {
        "raw": ("answered 400", "answered 101", "closed 1002"),
        "frames": ("closed 1000", "closed 4400"),
    }
    assert all(outcome.ends[end] > 5 for end in wanted[mode]), outcome.ends


async def test_a_server_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    async def attack(mode: str, target: Target, outcome: Outcome, *rest: object) -> None:
        outcome.connections = 7
        target.process.kill()
        await target.process.wait()

    monkeypatch.setattr(wire_fuzzing.__main__, "_attack", attack)
    outcome = await fuzz("raw", seed=1, first=100, connections=10)
    assert any(finding.startswith("after connection 107: ") for finding in outcome.findings), outcome.findings


async def test_an_interrupt_ends_the_attack_and_not_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def attack(mode: str, target: Target, outcome: Outcome, *rest: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(wire_fuzzing.__main__, "_attack", attack)
    outcome = await fuzz("raw", seed=1, first=100, connections=10)
    assert outcome.interrupted
    assert outcome.findings == []
    assert outcome.after["connections"] == 1


@pytest.mark.parametrize("name", PROPERTIES)
def test_what_decodes_keeps_its_properties(name: str) -> None:
    check, starts = PROPERTIES[name]
    rng = random.Random(name)
    for start in starts:
        check(start)
    short = [start for start in starts if len(start) < 2000]
    for _ in range(1000):
        check(damage(rng, rng.choice(short)))


def _lenient(data: bytes) -> object:
    """A decoder that forgets to look for keys that are there twice."""
    try:
        found = frames._client.decode(data)
    except Exception:
        return frames._look_closely(data)
    return found if isinstance(found, list) else [found]


def _overtaking(self: lane.FrameScanner) -> bool:
    """A scanner whose lane is never shut."""
    return not self._header


def _unbounded(data: bytes, at: int, limit: int) -> tuple[bytes | None, int]:
    """A scanner that takes what is no UTF-8 down the lane."""
    payload, after = _small_frame(data, at, limit)
    return (None, at) if payload is None else (payload.replace(b"\xc3", b"?"), after)


_small_frame = lane._small_frame


@pytest.mark.pure
@pytest.mark.parametrize(
    ("name", "holder", "attribute", "bug"),
    [
        ("client_message", frames, "decode_client", _lenient),
        ("stream", lane.FrameScanner, "_is_free", _overtaking),
        ("stream", lane, "_small_frame", _unbounded),
        ("request_head", upgrade, "_ILLEGAL", upgrade.re.compile(rb"\x00")),
    ],
    ids=["a key twice", "overtaking", "changed text", "any byte in a header"],
)
def test_a_bug_is_seen(
    name: str, holder: object, attribute: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, attribute, bug)
    check, starts = PROPERTIES[name]
    rng = random.Random(1)
    inputs = [*starts, *(damage(rng, rng.choice(starts)) for _ in range(3000))]
    with pytest.raises((Broken, UnicodeError)):
        for data in inputs:
            check(data)


def said(*frames: object) -> bytes:
    return b"".join(text_message(json.dumps(frame).encode()) for frame in frames)


EVENT = {"t": "event", "id": "i", "type": "t", "ts": 1.0, "payload": {"for": "ada"}}


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (said(WELCOME, EVENT | {"seq": 6}), "6 to 6 after 4"),
        (said(WELCOME, EVENT | {"seq": 4}), "4 to 4 after 4"),
        (said(WELCOME, EVENT | {"seq": 5, "payload": {"for": "bob"}}), "was sent to ada"),
        (said(WELCOME, WELCOME), "two welcomes"),
        (said(EVENT | {"seq": 5}), "before welcome"),
        (said(WELCOME, {"t": "oops"}), "unknown frame"),
        (said(WELCOME, {"t": "pong", "seq": 1}, {"t": "live"}), "live.seq"),
        (said(WELCOME) + b"\x88\x02\x11\x30", "the error frame said None"),
        (said(WELCOME) + b"\x88\x02\x03\xee", "no close code of ours"),
        (said(WELCOME) + b"\x88\x02\x03\xe8\x8a\x00", "after the close frame"),
        (b"\x81\x81abcde", "masked"),
        (b"\xc1\x00", "never sent"),
        (b"\x81\x01{", "not JSON"),
    ],
)
def test_a_wrong_answer_is_seen(sent: bytes, why: str) -> None:
    answers = Answers("ada")
    answers.feed(ANSWER)
    with pytest.raises(Wrong, match=why):
        answers.feed(sent)


def test_a_right_answer_is_none() -> None:
    answers = Answers("ada")
    merged = EVENT | {"seq": 7, "merged": {"from": 6, "n": 1}}
    gap = {"t": "gap", "from": 8, "to": 9, "reason": "evicted", "lost": {"t": 2}, "critical": 0}
    data = ANSWER + said([WELCOME, EVENT | {"seq": 5}], merged, EVENT | {"seq": 5, "retry": 1}, gap)
    for byte in data:
        answers.feed(bytes([byte]))
    assert answers.cursor == 9


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 3000]
)
def test_a_wrong_head_is_seen(head: bytes) -> None:
    with pytest.raises(Wrong):
        Answers().feed(head)
