"""The vectors prove something: a client with a planted bug fails one of them, of the topic that the bug is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_ws.client import inbox, keeper, link, outbox, session
from trio_ws.core import backoff, closing

from .clients import trio_client
from .node import CLIENT, NodeWorld
from .referee import Failure, Referee
from .streams import in_memory
from .vectors import load

VECTORS = load()
# Topic, what stands in client.js, and what the bug makes of it.
IN_CLIENT_JS = {
    "acks what it has received, not what was processed": (
        "acks", "Math.min(ledger.processed, ledger.cursor)", "ledger.received"),
    "acks at its own pace": ("acks", "welcome.ack.delay, ack", "2, ack"),
    "does not count events for an ack": ("acks", "unacked >= welcome.ack.events", "false"),
    "does not wait for handlers": ("acks", "if (handled) await handled;", ""),
    "acks above what a new session was sent": (
        "resume", "Math.min(ledger.processed, ledger.cursor)", "ledger.processed"),
    "takes a hole for nothing": ("violations", "first === this.cursor + 1 &&", "first > this.cursor &&"),
    "takes a repetition for nothing": ("violations", "first === this.cursor + 1 &&", "first <= this.cursor + 1 &&"),
    "does not look at live": ("violations", 'check(seq <= this.cursor, "too early");', ""),
    "believes any object": ("violations", 'check(typeof frame?.t === "string", "no frame");', ""),
    "goes on after a violation": ("violations", "lost(1006, `protocol violation", "void (`protocol violation"),
    "resumes from what was processed": ("resume", "seq: received, from", "seq: ledger.processed, from"),
    "forgets its session": ("resume", "{ session, epoch, seq: received", "{ epoch, seq: received"),
    "skips in silence from now": ("resume", 'from === "now" ? "pending" : from', "from"),
    "does not tell of a reset": ("resume", "if (reset) {", "if (false) {"),
    "does not know ids after a reset": ("resume", 'this.void.has(id) ? "known" : "new"', '"new"'),
    "does not ack again after a resume": ("resume", "if (frame.resumed) ack();", ""),
    "passes over what failed": ("nack", "entry.failed?.length && entry.tries < attempts", "false"),
    "says nothing of what failed": ("nack", 'say({ t: "nack", seq });', ";"),
    "does not nack again": ("nack", "if (again) nack();", ""),
    "waits for a redelivery for ever": ("nack", 'timer("redo", REDO_AFTER, resolve);', ""),
    "does not answer pings": ("liveness", 'say({ t: "pong" })', "undefined"),
    "does not look at next": ("liveness", "interval = frame.next;", ""),
    "never notices silence": ("liveness", 'else if (late >= 0) lost(1006, "the server fell silent");', ""),
    "comes back at once": ("reconnect", "let seconds = delay(failed++);", "let seconds = 0;"),
    "never starts over": ("reconnect", "now() - welcomedAt >= STABLE_AFTER", "false"),
    "starts over with each connection": ("reconnect", "now() - welcomedAt >= STABLE_AFTER", "true"),
    "hangs with a hung attempt": ("reconnect", 'timer("try", ATTEMPT_TIMEOUT,', 'timer("try", 1e6,'),
    "comes back after a stop": ("closing", '? "stop" : "retry"', '? "retry" : "retry"'),
    "stops for good where it may retry": ("closing", 'code < 4500) ? "stop"', 'code < 4600) ? "stop"'),
    "does not look at the error frame": ("closing", "fatal = frame;", ""),
    "leaves without a word": ("closing", 'say({ t: "bye" });', ""),
    "does not look at drain": ("drain", "after = [].concat(frame.after);", ""),
    "obeys a drain for ever": ("drain", "after = undefined;", ""),
    "keeps a refused token": ("tokens", "kept = undefined;", ""),
    "asks for tokens for ever": ("tokens", "!refused &&", ""),
    "never renews a token": ("tokens", "if (!expires ||", "if (true ||"),
    "gives each message a new id each time": ("messages", "ws.send(message.text);",
        "ws.send(message.text.replace(/-(\\d+)/, `-${Math.random()}`));"),
    "sends a message once": ("messages", "for (const message of messages.values()) message.sent = false;", ""),
    "says hello without the subprotocol": ("hello", 'new WebSocket(url, "trio-ws.v1")', "new WebSocket(url)"),
    "handles batches backwards": ("receiving", "[].concat(JSON.parse(data))", "[].concat(JSON.parse(data)).reverse()"),
    "drops gaps": ("receiving", 'kind: "gap", value: without(frame)', "kind: false, value: without(frame)"),
}  # fmt: skip


def of(topic: str) -> Iterator[Any]:
    return (vector for name, vector in VECTORS.items() if name.startswith(f"{topic}: "))


@pytest.mark.parametrize("bug", IN_CLIENT_JS)
def test_a_bug_in_client_js_is_found(bug: str, tmp_path: Path) -> None:
    topic, there, instead = IN_CLIENT_JS[bug]
    source = CLIENT.read_text()
    assert there in source, "client.js has changed: plant the bug anew"
    planted = tmp_path / "client.mjs"
    planted.write_text(source.replace(there, instead))
    try:
        world = NodeWorld(planted)
    except FileNotFoundError:
        pytest.skip("no node here: no bug was planted in client.js; install Node 20 or later")
    with world:
        for vector in of(topic):
            world.begin(vector.get("client", {}))
            try:
                trio.run(Referee(vector, world).play)
            except Failure:
                return
    pytest.fail("every vector passed")


IN_THE_TRIO_CLIENT: dict[str, tuple[str, Any, str, Callable[..., Any]]] = {
    "does not answer pings": ("liveness", outbox.Outbox, "pong", lambda self: None),
    "never tells a hole": ("violations", session.Session, "gap", lambda self, first, last: True),
    "acks nothing that it was sent before": (
        "resume", outbox.Outbox, "connected", lambda self, **_: setattr(self, "_connected", True)),
    "never waits longer": ("reconnect", backoff.Backoff, "next_delay", lambda self: 0.1),
    "does not look at drain": ("drain", backoff.Backoff, "replace", lambda self, low, high=None: None),
    "comes back after a stop": ("closing", closing, "reaction", lambda code: closing.Reaction.RETRY),
    "does not try again what failed": ("nack", inbox.Inbox, "redelivered", lambda self, *_: False),
    "keeps a token that was refused": ("tokens", keeper.Credentials, "refused", lambda self: True),
    "drops gaps": (
        "receiving", link.Link, "_gap", lambda self, frame, _: self._session.gap(frame.first, frame.last)),
}  # fmt: skip


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.mark.pure
@pytest.mark.parametrize("bug", IN_THE_TRIO_CLIENT)
async def test_a_bug_in_the_trio_client_is_found(
    bug: str, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, where, name, instead = IN_THE_TRIO_CLIENT[bug]
    monkeypatch.setattr(where, name, instead)
    for vector in of(topic):
        async with in_memory(trio_client.run, vector.get("client", {})) as world:
            try:
                await Referee(vector, world).play()
            except Failure:
                return
    pytest.fail("every vector passed")
