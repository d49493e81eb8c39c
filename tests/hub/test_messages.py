"""Messages from users: handled once, in order, answered each time, and never in anybody's way."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws.core import wire
from trio_ws.errors import MessageRejected
from trio_ws.event import Message
from trio_ws.hub import inbox
from trio_ws.hub.inbox import context_of

from .peers import Peer, running, settled


class Application:
    """A handler that notes what it is given."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, str, Any]] = []
        self.gate: trio.Event | None = None
        self.error: BaseException | None = None

    async def __call__(self, user: str, message: Message) -> None:
        self.handled.append((user, message.id, message.payload))
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


def _send(peer: Peer, *ids: str) -> None:
    for id in ids:
        peer.say(wire.message(id, "ask", b'{"q":1}'))


def _answers(peer: Peer) -> list[tuple[str, str, str | None]]:
    return [(f["t"], f["id"], f.get("error")) for f in peer.kinds("accepted", "rejected")]


async def test_a_message_is_handed_on_and_accepted() -> None:
    app = Application()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "m")
        await settled()
        assert app.handled == [("ada", "m", {"q": 1})]
        assert _answers(peer) == [("accepted", "m", None)]
        assert world.hub.stats()["messages"] == {"accepted": 1, "rejected": 0, "rate_limited": 0}


async def test_without_a_handler_it_is_rejected() -> None:
    async with running() as world:
        peer = world.peer().connect()
        _send(peer, "m", "m")
        await settled()
        assert _answers(peer) == [("rejected", "m", "no_handler")] * 2
        assert world.hub.stats()["messages"] == {"accepted": 0, "rejected": 1, "rate_limited": 0}


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MessageRejected("not now"), "not now"),
        (MessageRejected(), "rejected"),
        (ValueError("secret"), "handler_failed"),
        (ExceptionGroup("secrets", [ValueError("secret")]), "handler_failed"),
    ],
)
async def test_what_a_handler_raises_rejects_and_harms_nobody(error: Exception, word: str) -> None:
    app = Application()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        app.error = error
        _send(peer, "m")
        await settled()
        app.error = None
        _send(peer, "n")
        await settled()
        assert _answers(peer) == [("rejected", "m", word), ("accepted", "n", None)]


async def test_the_same_id_is_handled_once_and_answered_again() -> None:
    app = Application()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "m", "m")
        await settled()
        _send(peer, "m")
        await settled()
        assert len(app.handled) == 1
        assert _answers(peer) == [("accepted", "m", None)] * 2
        peer.die()
        again = peer.again(on_message=app)
        _send(again, "m")
        await settled()
        assert len(app.handled) == 1
        assert _answers(again) == [("accepted", "m", None)]


async def test_ids_of_other_sessions_are_their_own() -> None:
    app = Application()
    async with running() as world:
        for _ in range(2):
            _send(world.peer().connect(on_message=app), "m")
        await settled()
        assert len(app.handled) == 2


async def test_a_session_handles_its_messages_in_order_one_at_a_time() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running() as world:
        peer, other = world.peer().connect(on_message=app), world.peer().connect(on_message=app)
        _send(peer, "a", "b", "c")
        _send(other, "x")
        await settled()
        assert sorted(id for _, id, _ in app.handled) == ["a", "x"]
        app.gate.set()
        await settled()
        assert [id for _, id, _ in app.handled if id != "x"] == ["a", "b", "c"]


async def test_a_slow_handler_delays_neither_acks_nor_events() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running() as world:
        peer = world.peer(acks=True).connect(on_message=app)
        _send(peer, "m")
        await settled()
        receipt = await world.hub.publish("ada", "agent_started")
        assert (await receipt.confirmed()).after == 0.0
        app.gate.set()


async def test_the_answer_goes_to_the_connection_that_the_session_has_by_then() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "m")
        await settled()
        new = peer.again(on_message=app)
        _send(new, "m")  # the client repeats what was not answered
        await settled()
        assert _answers(new) == []
        app.gate.set()
        await settled()
        assert _answers(peer) == []
        assert _answers(new) == [("accepted", "m", None)]
        assert len(app.handled) == 1


async def test_an_answer_that_finds_nobody_is_kept() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "m", "n")
        await settled()
        peer.die()
        app.gate.set()
        await settled()
        assert len(app.handled) == 2  # what was taken is handled, though the connection has gone
        again = peer.again(on_message=app)
        _send(again, "m", "n")
        await settled()
        assert _answers(again) == [("accepted", "m", None), ("accepted", "n", None)]
        assert len(app.handled) == 2


async def test_a_session_that_is_taken_up_where_there_is_no_handler_has_its_messages_rejected() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running() as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "m", "n")
        await settled()
        again = peer.again()
        app.gate.set()
        await settled()
        assert _answers(again) == [("accepted", "m", None), ("rejected", "n", "no_handler")]
        assert world.hub.publish_nowait("ada", "token").seq == 1  # the hub lives


async def test_only_so_many_may_wait() -> None:
    app = Application()
    app.gate = trio.Event()
    async with running(max_pending_messages=2) as world:
        peer = world.peer().connect(on_message=app)
        _send(peer, "handled")
        await settled()
        _send(peer, "a", "b", "c")
        await settled()
        assert _answers(peer) == [("rejected", "c", "too_many_pending")]
        app.gate.set()
        await settled()
        _send(peer, "c")
        await settled()
        assert [id for _, id, _ in app.handled] == ["handled", "a", "b", "c"]
        assert _answers(peer)[-1] == ("accepted", "c", None)


async def test_answers_are_remembered_up_to_a_bound_and_what_waits_is_never_forgotten() -> None:
    app = Application()
    app.gate = trio.Event()
    count = 3 * inbox.REMEMBERED
    async with running(max_pending_messages=count, message_burst=2 * count) as world:
        peer = world.peer().connect(on_message=app)
        ids = [f"m{n}" for n in range(count)]
        _send(peer, *ids)
        context = context_of(next(iter(world.hub.engine.buffer.mailbox("ada").sessions.values())))

        async def slow(user: str, message: Message) -> None:
            app.handled.append((user, message.id, None))
            _send(peer, message.id, ids[-1])

        context.on_message = slow
        app.gate.set()
        await settled()
        assert [id for _, id, _ in app.handled] == ids
        assert len(context.letters.answers) == inbox.REMEMBERED
        assert not context.letters.taken


async def test_a_plain_clients_messages_are_handled_and_not_answered() -> None:
    app = Application()
    async with running() as world:
        peer = world.peer(plain=True).connect(on_message=app)
        assert peer.attachment is not None
        session = peer.attachment.session
        world.hub.reception.inbox.put_plain(session, None, "ask", {"q": 1})
        world.hub.reception.inbox.put_plain(session, 7, "ask", {"q": 2})
        world.hub.reception.inbox.put_plain(session, "own", "ask", {"q": 3})
        world.hub.reception.inbox.put_plain(session, "own", "ask", {"q": 3})
        await settled()
        assert [payload["q"] for _, _, payload in app.handled] == [1, 2, 3]
        assert peer.frames == []


async def test_a_handler_may_publish() -> None:
    async with running() as world:

        async def echo(user: str, message: Message) -> None:
            await world.hub.publish(user, "echo", message.payload)

        peer = world.peer().connect(on_message=echo)
        _send(peer, "m")
        await trio.sleep(0.1)
        assert peer.kinds("event")[0]["payload"] == {"q": 1}
