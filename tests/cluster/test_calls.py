"""Calls between nodes: asked again until answered, done once, and given up where nobody is left to answer."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import pytest_trio
import trio
import trio.testing

from trio_ws.cluster import messages
from trio_ws.cluster.bus import Bus
from trio_ws.cluster.calls import LARGE, CallFailed, Calls, NodeGone
from trio_ws.errors import HubClosed
from trio_ws.store import Place


@attrs.define
class Node:
    """A node that does nothing but call and answer."""

    bus: Bus
    calls: Calls
    scope: trio.CancelScope


@attrs.define
class Nodes:
    """Some of them, on one place."""

    place: Place
    start: Callable[[str], Awaitable[Node]]
    living: set[str]


@pytest_trio.trio_fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with trio.open_nursery() as nursery:
        place, living = Place(), set[str]()

        async def start(name: str) -> Node:
            scope = await nursery.start(live, name)
            assert isinstance(scope, Node)
            return scope

        async def live(name: str, *, task_status: trio.TaskStatus[Node]) -> None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    bus = Bus(place.node(name), inner)
                    calls = Calls(bus, inner, living.__contains__)
                    living.add(name)
                    inner.start_soon(bus.run)
                    await trio.testing.wait_all_tasks_blocked()
                    task_status.started(Node(bus, calls, scope))
                    await trio.sleep_forever()

        yield Nodes(place, start, living)
        nursery.cancel_scope.cancel()


async def test_a_call_is_answered_by_who_is_asked(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")

    async def double(sender: str, body: bytes) -> bytes:
        return sender.encode() + body + body

    b.calls.handle("double", double)
    assert await a.calls.call("b", "double", b"x") == b"axx"
    assert a.calls.repeated == 0


@pytest.mark.parametrize("lost", [{1}, {2}, {1, 2, 3}, {2, 4, 6}])
async def test_whatever_the_bus_loses_a_call_is_done_once(nodes: Nodes, lost: set[int]) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    done: list[bytes] = []
    count = 0

    def carry(_sender: str, _to: str, _message: bytes) -> tuple[float, ...]:
        nonlocal count
        count += 1
        return () if count in lost else (0.0,)

    async def do(_sender: str, body: bytes) -> bytes:
        done.append(body)
        return b"done"

    nodes.place.carry = carry
    b.calls.handle("do", do)
    assert await a.calls.call("b", "do", b"it") == b"done"
    assert done == [b"it"]
    assert a.calls.repeated >= 1


async def test_what_the_bus_brings_twice_is_done_once(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    done = 0

    async def do(_sender: str, _body: bytes) -> bytes:
        nonlocal done
        done += 1
        return b"%d" % done

    nodes.place.carry = lambda *_: (0.0, 0.001)
    b.calls.handle("do", do)
    assert [await a.calls.call("b", "do", b"") for _ in range(3)] == [b"1", b"2", b"3"]


async def test_a_call_that_takes_long_is_waited_for(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    begun = 0

    async def think(_sender: str, _body: bytes) -> bytes:
        nonlocal begun
        begun += 1
        await trio.sleep(60)
        return b"42"

    b.calls.handle("think", think)
    assert await a.calls.call("b", "think", b"") == b"42"
    assert begun == 1


async def test_who_has_died_is_given_up(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    b.calls.handle("wait", _never)
    began = trio.current_time()
    with pytest.raises(NodeGone, match="node c is gone"):
        await a.calls.call("c", "anything", b"")
    assert trio.current_time() - began < 0.5

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(NodeGone, match="node b is gone"):
                await a.calls.call("b", "wait", b"")

        await trio.sleep(5)
        b.scope.cancel()


async def _never(_sender: str, _body: bytes) -> bytes:
    await trio.sleep_forever()
    return b""


async def test_who_lives_but_listens_no_more_by_its_lease_is_given_up(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    nodes.place.carry = lambda *_: ()  # a node that hangs: what is sent arrives, and nobody reads it
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(NodeGone):
                await a.calls.call("b", "wait", b"")

        await trio.sleep(5)
        assert nursery.child_tasks
        nodes.living.discard("b")
    assert b.calls.made == 0


async def test_why_something_can_not_be_done_is_told(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")

    async def refuse(_sender: str, _body: bytes) -> bytes:
        raise CallFailed("not mine")

    async def fail(_sender: str, _body: bytes) -> bytes:
        raise ZeroDivisionError("secret")

    b.calls.handle("refuse", refuse)
    b.calls.handle("fail", fail)
    with pytest.raises(CallFailed, match="not mine"):
        await a.calls.call("b", "refuse", b"")
    with pytest.raises(CallFailed, match=r"it failed there: ZeroDivisionError$"):
        await a.calls.call("b", "fail", b"")
    with pytest.raises(CallFailed, match="nothing is known of dance"):
        await a.calls.call("b", "dance", b"")
    assert "a call of another node failed" in caplog.text


async def test_what_is_told_in_one_turn_goes_together_and_in_order(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    sent = 0
    heard: list[bytes] = []

    def carry(_sender: str, _to: str, _message: bytes) -> tuple[float, ...]:
        nonlocal sent
        sent += 1
        return (0.0,)

    nodes.place.carry = carry
    b.bus.hear("news", lambda _sender, body: heard.append(body))
    for n in range(100):
        a.bus.tell("b", "news", b"%d" % n)
    await trio.sleep(1)
    assert heard == [b"%d" % n for n in range(100)]
    assert sent == 1


async def test_nonsense_on_the_bus_hurts_nobody(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    heard: list[bytes] = []
    b.bus.hear("news", lambda _sender, body: heard.append(body))
    store = nodes.place.node("a")
    newer = messages.encode(messages.Busy(1)).replace(b"busy", b"buzz")
    no_text = messages.encode(messages.Told("new", b"")).replace(b"new", b"\xff\xff\xff")
    deep = b"\x91" * 20_000 + b"\xc0"
    late = (messages.parcel("a", at, []) for at in (math.inf, -math.inf, math.nan))
    news = messages.encode(messages.Told("news", b"?"))
    for nonsense in (b"", b"\xc1", b"[1]", messages.parcel("a", 0.0, [deep]), *late):
        await store.send("b", nonsense)
    await store.send("b", messages.parcel("a", 0.0, [newer, no_text, news]))
    a.bus.tell("b", "gossip", b"?")
    a.bus.tell("b", "news", b"!")
    await trio.sleep(1)
    assert heard == [b"?", b"!"]
    assert caplog.text.count("makes no sense") == 7
    assert math.isfinite(b.bus.delay.total)


async def test_what_a_node_does_not_take_does_not_fill_the_memory_of_others(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_ws.cluster.bus.MOST_WAITING", 1000)
    a, _b = await nodes.start("a"), await nodes.start("b")
    for _ in range(100):
        a.bus.tell("b", "news", b"x" * 100)
    assert 90 <= a.bus.lost < 100


async def test_nodes_that_are_gone_are_forgotten(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_ws.cluster.bus.DEAF", 10)
    a = await nodes.start("a")
    for number in range(100):
        a.bus.tell(f"gone-{number}", "news", b"x")
        await trio.sleep(0.2)
    await trio.sleep(3)
    assert a.bus.lost == 100
    assert len(a.bus._deaf) == 10
    assert a.bus.deaf_for("gone-99") > 1


async def test_who_waits_for_an_answer_is_told_when_this_node_ends(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    b.calls.handle("wait", _never)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            with pytest.raises(HubClosed):
                await a.calls.call("b", "wait", b"")

        await trio.sleep(5)
        ended = trio.current_time()
        a.scope.cancel()
    assert trio.current_time() == ended
    with pytest.raises(HubClosed):
        await a.calls.call("b", "wait", b"")


async def test_large_calls_are_in_nobodys_way(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    came: list[str] = []
    most, done = 0, trio.Event()

    async def take(_sender: str, body: bytes) -> bytes:
        came.append("large" if len(body) >= LARGE else "small")
        await done.wait()
        return b"done"

    def carry(_sender: str, _to: str, message: bytes) -> tuple[float, ...]:
        nonlocal most
        most = max(most, len(message))
        return (0.02,)

    nodes.place.carry = carry
    b.calls.handle("take", take)
    b.bus.hear("news", lambda _sender, _body: came.append("news"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for size in [100_000] * 8 + [10]:
                nursery.start_soon(a.calls.call, "b", "take", b"x" * size)
            await trio.testing.wait_all_tasks_blocked()
            a.bus.tell("b", "news", b"")
            await trio.sleep(1)
            assert sorted(came[:4]) == ["large", "large", "news", "small"]
            assert came[4:] == ["large"] * 6  # all have come, though none is answered
            assert most < 300_000
            most = 0
            await trio.sleep(3)
            assert a.calls.repeated > 9
            assert most < 1000  # what has come is not sent again
            done.set()


async def test_large_calls_to_who_is_gone_are_all_given_up(nodes: Nodes) -> None:
    a, _b = await nodes.start("a"), await nodes.start("b")
    nodes.place.carry = lambda *_: ()
    async with trio.open_nursery() as nursery:
        for _ in range(10):

            @nursery.start_soon
            async def ask() -> None:
                with pytest.raises(NodeGone):
                    await a.calls.call("b", "take", b"x" * LARGE)

        with trio.move_on_after(1):
            await a.calls.call("b", "take", b"x" * LARGE)  # who no longer waits is in nobody's way either
        nodes.living.discard("b")
    assert a.calls.made >= 10


async def test_what_was_answered_is_forgotten_once_the_answer_has_come(nodes: Nodes) -> None:
    a, b = await nodes.start("a"), await nodes.start("b")
    done = 0

    async def do(_sender: str, _body: bytes) -> bytes:
        nonlocal done
        done += 1
        return bytes(1000)

    b.calls.handle("do", do)
    for _ in range(50):
        await a.calls.call("b", "do", b"")
    assert done == 50
    assert len(b.calls._done) == 1
