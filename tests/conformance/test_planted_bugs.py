"""The vectors prove something: a client with a planted bug fails one of them, of the topic that the bug is about.

And one that is from the time before runs passes those about runs, but for what it can't know of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_ws.client import inbox, keeper, link, outbox, session
from trio_ws.core import backoff, closing, wire
from trio_ws.core.received import event_of, gap_of

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
    "resumes from what was processed": ("resume", "seq: epoch && received", "seq: epoch && ledger.processed"),
    "forgets its session": ("resume", "session, epoch, seq: epoch", "epoch, seq: epoch"),
    "skips in silence from now": ("resume", 'from === "now" ? "pending" : from', "from"),
    "does not tell of a reset": ("resume", "if (reset) {", "if (false) {"),
    "does not know ids after a reset": ("resume", 'this.void.has(id) ? "known" : "new"', '"new"'),
    "does not ack again after a resume": ("resume", "if (frame.resumed) ack();", ""),
    "passes over what failed": ("nack", "entry.failed?.length && entry.tries < attempts", "false"),
    "says nothing of what failed": ("nack", 'say({ t: "nack", seq });', ";"),
    "does not nack again": ("nack", "if (again) nack();", ""),
    "waits for a redelivery for ever": ("nack", 'timer("redo", REDO_AFTER, (again = resolve));', "again = resolve;"),
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
    "obeys a drain for ever": ("drain", "fatal = after = undefined;", "fatal = undefined;"),
    "keeps a refused token": ("tokens", "kept = undefined;", ""),
    "asks for tokens for ever": ("tokens", "!refused &&", ""),
    "never renews a token": ("tokens", "if (!expires ||", "if (true ||"),
    "gives each message a new id each time": ("messages", "ws.send(message.text);",
        "ws.send(message.text.replace(/-(\\d+)/, `-${Math.random()}`));"),
    "sends a message once": ("messages", "for (const message of messages.values()) message.sent = false;", ""),
    "says hello without the subprotocol": ("hello", 'new WebSocket(url, "trio-ws.v1")', "new WebSocket(url)"),
    "handles batches backwards": ("receiving", "[].concat(JSON.parse(data))", "[].concat(JSON.parse(data)).reverse()"),
    "drops gaps": ("receiving", 'put("gap", frame, frame.to)', "put(false, frame, frame.to)"),
    "drops snapshots": ("runs", 'case "snapshot":', ""),
    "drops standing questions": ("runs", 'case "standing":', ""),
    "loses the questions": ("runs", "payload: { questions: frame.questions }, ", ""),
    "acks a snapshot": ("runs", "...frame, type: frame.t }, 0)", "...frame, type: frame.t }, frame.seq)"),
    "takes a snapshot for its place": (
        "runs", 'case "standing":', 'case "standing": ledger.received = Math.max(ledger.received, frame.seq);'),
    "asks for everything after a resume": ("runs", '? "pending" : from', '? "pending" : epoch ? "retained" : from'),
}  # fmt: skip


def of(topic: str) -> Iterator[Any]:
    return (vector for name, vector in VECTORS.items() if name.startswith(f"{topic}: "))


def before_runs() -> Iterator[Any]:
    """The vectors about runs, as one that does not know their frames handles them."""
    for vector in of("runs"):
        steps = [
            {**step, "handled": [item for item in step["handled"] if not _told(item)]}
            if "handled" in step
            else step
            for step in vector["steps"]
        ]
        yield {**vector, "steps": steps}


def _told(item: Any) -> bool:
    """Whether an item is a snapshot or standing questions."""
    event = {} if isinstance(item, int) else item.get("event", {})
    return event.get("type") in ("snapshot", "standing") and "id" not in event


def plant(folder: Path, *changes: tuple[str, str]) -> NodeWorld:
    """The world of another client.js."""
    source = CLIENT.read_text()
    for there, instead in changes:
        assert there in source, "client.js has changed: plant the bug anew"
        source = source.replace(there, instead)
    planted = folder / "client.mjs"
    planted.write_text(source)
    try:
        return NodeWorld(planted)
    except FileNotFoundError:
        pytest.skip("no node here: no bug was planted in client.js; install Node 20 or later")


@pytest.mark.parametrize("bug", IN_CLIENT_JS)
def test_a_bug_in_client_js_is_found(bug: str, tmp_path: Path) -> None:
    topic, there, instead = IN_CLIENT_JS[bug]
    with plant(tmp_path, (there, instead)) as world:
        for vector in of(topic):
            world.begin(vector.get("client", {}))
            try:
                trio.run(Referee(vector, world).play)
            except Failure:
                return
    pytest.fail("every vector passed")


def test_a_client_js_from_before_runs(tmp_path: Path) -> None:
    with plant(tmp_path, ('case "snapshot":', ""), ('case "standing":', 'case "unheard of":')) as world:
        for vector in before_runs():
            world.begin(vector.get("client", {}))
            trio.run(Referee(vector, world).play)


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
    "drops snapshots": ("runs", link, "told_of", lambda frame: None),
    "does not tell the run": ("runs", link, "event_of", lambda frame: attrs.evolve(event_of(frame), run=None)),
    "does not tell what is healed": (
        "runs", link, "gap_of", lambda frame: attrs.evolve(gap_of(frame), snapshots=(), healed=0)),
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


@pytest.mark.pure
async def test_a_trio_client_from_before_runs(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    known = wire.decode_server
    news = (wire.SnapshotFrame, wire.StandingFrame)
    monkeypatch.setattr(
        wire, "decode_server", lambda data: [frame for frame in known(data) if not isinstance(frame, news)]
    )
    for vector in before_runs():
        async with in_memory(trio_client.run, vector.get("client", {})) as world:
            await Referee(vector, world).play()
