"""Relays over a bus that loses what it carries, and between nodes that die: what a client of ours makes of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import trio_ws
from tests.server.memory import WireClient
from trio_ws.cluster import messages, peers, relay_edge, relay_owner, relayed

from .relaying import Node, acked, cluster


class Tab:
    """A client of ours that keeps what it has processed, and when.

    Attributes:
      nodes: where it connects, in turn; those that live.
    """

    def __init__(self, where: list[Node]) -> None:
        self.nodes = where
        self.payloads: list[Any] = []
        self.at: list[float] = []
        self.gaps: list[trio_ws.Gap] = []
        self.dials = 0
        self._more = trio.Event()

    async def dial(self) -> trio.abc.Stream:
        living = [node for node in self.nodes if node.lives]
        self.dials += 1
        return await living[(self.dials - 1) % len(living)].listener.connect()

    async def run(self, user: str, task_status: trio.TaskStatus[None]) -> None:
        url = "ws://server/ws"
        async with trio_ws.connect(
            url, user=user, open_stream=self.dial, rng=random.Random(1), on_gap=self.gaps.append
        ) as client:
            task_status.started()
            async for event in client:
                self.payloads.append(event.payload)
                self.at.append(trio.current_time())
                self._more.set()
                self._more = trio.Event()

    async def until(self, count: int) -> None:
        """Wait until so many were processed."""
        with trio.fail_after(30):
            while len(self.payloads) < count:
                await self._more.wait()


@asynccontextmanager
async def tab(*where: Node, user: str = "ada") -> AsyncIterator[Tab]:
    """A client that connects to one of these nodes after the other."""
    async with trio.open_nursery() as nursery:
        one = Tab(list(where))
        await nursery.start(one.run, user)
        await trio.testing.wait_all_tasks_blocked()
        yield one
        nursery.cancel_scope.cancel()


def losing(which: Callable[[int], bool]) -> Callable[[str, str, bytes], bool]:
    """Loses those sendings between nodes, by their number."""
    count = 0

    def lose(_sender: str, _to: str, _message: bytes) -> bool:
        nonlocal count
        count += 1
        return which(count)

    return lose


@pytest.mark.parametrize("lost", range(1, 26))
async def test_whatever_message_is_lost_all_is_processed_once_and_in_time(lost: int) -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        nodes.lose = losing(lambda n: n == lost)
        async with tab(b) as one:
            receipts = []
            for n in range(6):
                receipts.append(await a.hub.publish("ada", "agent_started", n))
                await trio.sleep(0.3)
            for receipt in receipts:
                await receipt.confirmed(timeout=3)
            assert one.payloads == list(range(6))
            assert not one.gaps
            assert not any(receipt.state == "pending" for receipt in receipts)
        assert a.hub.stats()["sessions"]["active"] == len(a.lines)


async def test_whatever_comes_twice_counts_once() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        nodes.place.carry = lambda _sender, _to, _message: (0.0, 0.0)
        async with tab(b) as one:
            for n in range(6):
                await a.hub.publish("ada", "agent_started", n)
            await one.until(6)
            assert one.payloads == list(range(6))
            assert one.dials == 1
        assert a.peers.cut == b.peers.cut == 0


async def test_a_bus_that_loses_a_tenth_delays_and_loses_nothing() -> None:
    rng = random.Random(3)
    async with cluster("a", "b", "c") as (nodes, (a, b, c)):
        nodes.lose = lambda _sender, _to, _message: rng.random() < 0.1
        async with tab(b) as one, tab(c) as two:
            for n in range(100):
                await a.hub.publish("ada", "agent_started", n)
                await trio.sleep(0.05)
            await one.until(100)
            await two.until(100)
            assert one.payloads == two.payloads == list(range(100))
            assert one.dials > 1


@pytest.mark.parametrize("silently", [False, True])
async def test_the_owner_dies_and_its_clients_go_on_elsewhere(silently: bool) -> None:
    """Where its end of the bus is closed, or where it is just silent until its lease is over."""
    async with cluster("a", "b", "c") as (nodes, (a, b, c)), tab(b) as one, tab(c) as two:
        await a.hub.publish("ada", "agent_started", 1)
        await one.until(1)
        await two.until(1)
        died = trio.current_time()
        if silently:
            a.life.store.away = True
            nodes.lose = lambda sender, to, _message: "a" in (sender, to)
            await trio.sleep(2)
        else:
            await nodes.kill(a)
        receipt = await b.hub.publish("ada", "agent_completed", 2)
        await receipt.confirmed()
        await one.until(2)
        await two.until(2)
        assert trio.current_time() - died < (4 if silently else 2)
        assert one.payloads == two.payloads == [1, 2]
        owner = b if await b.hub.place("ada") is None else c
        sessions = owner.hub.engine.buffer.mailboxes["ada"].sessions
        assert len(sessions) == 2  # they were resumed


async def test_an_edge_dies_and_its_clients_go_on_elsewhere() -> None:
    async with cluster("a", "b", "c") as (nodes, (a, b, c)):
        async with tab(b, c) as one:
            await a.hub.publish("ada", "agent_started", 1)
            await one.until(1)
            await nodes.kill(b)
            await a.hub.publish("ada", "agent_completed", 2)
            await one.until(2)
            assert one.at[1] - one.at[0] < 0.3
            assert one.payloads == [1, 2]
        await trio.sleep(2)
        assert not a.lines


async def test_the_session_of_an_edge_that_died_is_parked() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        client, _ = await b.client()
        await trio.sleep(1)
        await client.send({"t": "pong"})
        await trio.testing.wait_all_tasks_blocked()
        await nodes.kill(b)
        died = trio.current_time()
        await trio.sleep(1.2)
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        (session,) = a.hub.engine.buffer.mailboxes["ada"].sessions.values()
        assert session.cut_at == pytest.approx(died)  # when it was last heard


async def test_an_outage_of_the_store_costs_no_relayed_connection() -> None:
    """Heartbeats go on, whatever nodes can't tell each other; and what they could not tell is told later."""
    async with cluster("a", "b") as (_, (a, b)):
        async with tab(b) as one:
            plain = await b.plain()
            await a.hub.publish("ada", "agent_started", 1)
            await one.until(1)
            for node in (a, b):
                node.life.store.away = True
            await trio.sleep(12)
            assert a.hub.engine.suspended
            assert b.hub.engine.suspended
            for node in (a, b):
                node.life.store.away = False
            await trio.sleep(3)
            await a.hub.publish("ada", "agent_completed", 2)
            await one.until(2)
            assert one.at[1] == pytest.approx(trio.current_time(), abs=0.1)
            assert [(await plain.frame())["payload"] for _ in range(2)] == [1, 2]
            await trio.sleep(10)
            assert one.dials == 1
        assert a.peers.cut == b.peers.cut == 0


async def test_who_is_silent_in_an_outage_is_dropped_after_it() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await b.client()
        for node in (a, b):
            node.life.store.away = True
        await trio.sleep(12)
        for node in (a, b):
            node.life.store.away = False
        assert (await client.closed()).code == 4501
        assert 14 < trio.current_time() < 18
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 1}


@pytest.mark.parametrize("user", ["ada", "bob"])
async def test_a_node_that_is_cut_off_keeps_no_client_for_ever(user: str) -> None:
    """Whether it relays it, or had its log."""
    async with cluster("a", "b", "c") as (_, (a, b, c)), tab(b, c, user=user) as one:
        b.life.store.away = True
        began = trio.current_time()
        await trio.sleep(15)
        assert one.dials == 1
        await a.hub.publish(user, "agent_started", 1)
        await one.until(1)
        assert 20 < one.at[0] - began < 24
        assert one.dials == 2
        assert a.lines


async def test_an_owner_that_is_fenced_tells_who_is_relayed() -> None:
    async with cluster("a", "b", "c") as (_, (a, b, c)), tab(b) as one:
        await a.hub.publish("ada", "agent_started", 1)
        await one.until(1)
        await trio.sleep(0.1)
        await c.life.store.claim("ada", a.life.store._place.data.owners["ada"].token)
        receipt = await c.hub.publish("ada", "agent_completed", 2)
        await receipt.confirmed()
        assert one.payloads == [1, 2]
        assert one.dials == 2
        assert c.lines
        assert not a.lines


async def test_how_it_ends_is_told_again_until_it_is_heard() -> None:
    """Where it is lost, the client must not take the end of its session for a broken connection."""
    async with cluster("a", "b") as (nodes, (a, b)):
        client, welcome = await b.client()
        await client.until("live")
        lost = 0

        def lose(sender: str, _to: str, message: bytes) -> bool:
            nonlocal lost
            told = b"ended by the operator" in message
            lost += told
            return told and lost < 4

        nodes.lose = lose
        assert a.hub.end_session("ada", welcome["session"])
        assert (await client.closed()).code == 4403
        assert lost == 4
        await trio.sleep(0.1)
        assert not a.lines


async def test_no_byte_reaches_another_users_connection() -> None:
    async with cluster("a", "b") as (_nodes, (a, b)):
        assert await a.hub.place("bob") is None
        async with tab(b) as ada, tab(b, user="bob") as bob:
            for n in range(20):
                await a.hub.publish("ada", "token", ["ada", n])
                await a.hub.publish("bob", "token", ["bob", n])
            await ada.until(20)
            await bob.until(20)
            assert ada.payloads == [["ada", n] for n in range(20)]
            assert bob.payloads == [["bob", n] for n in range(20)]


async def test_a_relay_that_one_side_has_forgotten_is_ended_by_the_other() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await b.client()
        await client.until("live")
        (line,) = a.lines.values()
        line.end(silent=False)  # and tells nothing
        await client.send({"t": "ping"})
        assert (await client.closed()).code == 4503
        client, _ = await b.client()
        (hold,) = b.edge.holds.values()
        hold.be_left()
        b.edge.forget(hold)
        await a.hub.publish("ada", "agent_started")
        await trio.sleep(0.5)
        assert not a.lines


async def test_the_owner_notices_that_a_plain_client_has_gone_of_which_it_is_not_told() -> None:
    """It says nothing as long as it is there, nor is it sent anything."""
    async with cluster("a", "b") as (nodes, (a, b)):
        plain = await b.plain()
        with trio.move_on_after(60):
            await plain.frame()
        assert len(a.lines) == 1
        nodes.lose = lambda sender, _to, _message: sender == "b"
        await plain.stream.aclose()
        await trio.sleep(0.5)
        nodes.lose = lambda _sender, _to, _message: False
        assert not b.edge.holds
        assert len(a.lines) == 1
        await trio.sleep(30)
        assert not a.lines
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 0}


async def test_the_edge_notices_that_nobody_has_a_plain_clients_session() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        plain = await b.plain()
        await trio.sleep(1)
        nodes.lose = lambda sender, _to, _message: sender == "a"
        (line,) = a.lines.values()
        line.lose()
        await trio.sleep(0.5)
        nodes.lose = lambda _sender, _to, _message: False
        with trio.fail_after(25):
            assert (await plain.closed()).code == 4503


async def test_a_plain_client_whose_welcome_took_long_stays() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        # It has its session, and the edge does not know.
        nodes.lose = lambda sender, _to, _message: sender == "a" and len(a.lines) > 0
        plain = await b.dial()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(plain.open, "/ws?user=ada", subprotocols=()))
            await trio.sleep(4)
            assert len(a.lines) == 1
            nodes.lose = lambda _sender, _to, _message: False
        with trio.move_on_after(60):
            await plain.frame()
        assert plain.pings == 2
        assert len(a.lines) == len(b.edge.holds) == 1


async def test_a_hello_that_is_given_up_attaches_nothing() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        nodes.lose = lambda sender, _to, _message: sender == "a"  # it hears, and can't answer
        client = await b.dial()
        await client.open()
        await client.send({"t": "hello", "user": "ada"})
        closed = await client.closed()
        assert (closed.code, trio.current_time()) == (4503, pytest.approx(5))
        nodes.lose = lambda _sender, _to, _message: False
        await trio.testing.wait_all_tasks_blocked()
        assert not a.lines
        assert not b.edge.holds
        assert b.hub.stats()["connections"]["refused"]["store"] == 1
        await b.client()


async def test_a_client_that_has_gone_while_its_hello_waited_takes_no_session() -> None:
    """The call to attach it, and that it has gone, may come to the owner together, after an outage of the store."""
    async with cluster("a", "b") as (_, (a, b)):
        client, welcome = await a.client()
        late = relayed.Attach(
            relay=99,
            user="ada",
            expires=None,
            issued=None,
            path="/ws",
            age=-1.0,  # later than the other, as it seems
            session=welcome["session"],
            epoch=welcome["epoch"],
            seq=0,
            start="retained",
            plain=False,
        )
        b.hub.bus.post("a", messages.Call(10**6, "attach", relayed.encode(late)))
        b.hub.bus.tell("a", "relay.up", relayed.encode(relayed.Gone(99, silent=False)))
        await trio.sleep(1)
        await client.send({"t": "ping"})
        await client.until("pong")
        assert not a.lines


async def test_a_client_that_comes_while_the_owner_drains_is_back_soon() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await a.client()  # it holds up the drain, as it acks nothing
        await a.hub.publish("ada", "agent_started", 1)
        await client.until("event")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.life.drain)
            await client.until("drain")
            async with tab(b) as one:
                await one.until(1)
                assert trio.current_time() < 3
                assert not b.edge.holds


# -- windows


async def stuck(node: Node, user: str = "ada") -> WireClient:
    """A client that has said hello, and reads nothing from then on."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    await node.listener._send.send(theirs)
    client = WireClient(ours)
    await client.open()
    await client.hello(user=user)
    return client


async def test_who_never_reads_holds_up_its_own_session_and_nothing_else() -> None:
    async with cluster("a", "b", max_events_per_user=1000, write_timeout=3) as (_nodes, (a, b)):
        await stuck(b)
        await trio.testing.wait_all_tasks_blocked()
        (line,) = a.lines.values()
        async with tab(b) as one:
            for n in range(60):
                await a.hub.publish("ada", "token", [n, "x" * 10_000])
                await trio.sleep(0.02)
            await one.until(60)
            assert line._sent - line._taken <= relay_owner.WINDOW + 2 * 64 * 1024
            assert line._sent < 600_000
            blocked = [s.blocked for s in a.hub.engine.buffer.mailboxes["ada"].sessions.values()]
            assert len(blocked) == 2
            assert blocked.count(None) == 1
            assert one.dials == 1
        await trio.sleep(5)
        assert line.over  # the edge's write has timed out
        assert not b.edge.holds


async def test_who_reads_again_is_given_the_rest() -> None:
    async with cluster("a", "b", max_events_per_user=1000, write_timeout=60) as (_, (a, b)):
        client = await stuck(b)
        for n in range(60):
            await a.hub.publish("ada", "token", [n, "x" * 10_000])
        await trio.sleep(1)
        seqs = [(await client.until("event"))["seq"] for _ in range(60)]
        assert seqs == list(range(1, 61))
        assert a.peers.cut == b.peers.cut == 0


async def test_what_is_on_its_way_to_a_node_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "WINDOW", 100_000)
    monkeypatch.setattr(peers, "REPORT", 30_000)
    async with cluster("a", "b", max_events_per_user=1000) as (nodes, (a, b)):
        on_the_way = [0]

        def carry(_sender: str, to: str, _message: bytes) -> tuple[float]:
            peer = a.peers.of("b")
            on_the_way.append(peer.sent - peer.arrived)
            return (0.2 if to == "b" else 0.0,)

        nodes.place.carry = carry
        client, _ = await b.client()
        for n in range(60):
            await a.hub.publish("ada", "token", [n, "x" * 10_000])
        assert [(await client.until("event"))["seq"] for _ in range(60)] == list(range(1, 61))
        assert 100_000 < max(on_the_way) < 200_000
        await client.send(acked(60))


async def test_who_floods_while_the_store_is_away_cuts_off_nobody_else() -> None:
    """What waits for a node is bounded for all who are relayed to it together, so one alone may not fill it."""
    async with cluster("a", "b") as (_, (a, b)):
        good, _ = await b.client()
        flooder, _ = await b.client()
        for node in (a, b):
            node.life.store.away = True
        for n in range(40):
            await flooder.send({"t": "message", "id": f"m{n}", "type": "say", "payload": "x" * 60_000})
            await good.send(acked(0))
        assert (await flooder.closed()).code == 4503
        assert b.hub.bus.backlog("a") < peers.BEHIND + 2 * relay_edge.MOST_SAID
        for node in (a, b):
            node.life.store.away = False
        await trio.sleep(2)
        await a.hub.publish("ada", "agent_started", 1)
        assert (await good.until("event"))["seq"] == 1
        assert b.hub.bus.lost == 0
        assert b.peers.cut == 1
