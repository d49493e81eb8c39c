"""Message level against the full wire: whoever stands at either end is told the same, at both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import trio_ws
from trio_ws.config import Config
from trio_ws.hub import Hub
from trio_ws.testing import Conditions, Connection, Simulation, run_simulation
from trio_ws.testing.cast.raw import Gone, RawClient, misbehave
from trio_ws.testing.network.levels import LEVELS, LevelName

Main = Callable[[Simulation, Hub], Awaitable[None]]


@pytest.fixture(params=list(LEVELS))
def level(request: pytest.FixtureRequest) -> LevelName:
    name: LevelName = request.param
    return name


def run(level: LevelName, main: Main, seed: int = 1, **limits: Any) -> Simulation:
    """Run `main` beside a server at this level."""
    simulation = Simulation(seed, level=level)

    async def bounded(sim: Simulation) -> None:
        async with sim.open_hub(Config(**limits)) as hub, trio.open_nursery() as nursery:
            await nursery.start(partial(sim.serve, hub))
            await main(sim, hub)
            nursery.cancel_scope.cancel()

    run_simulation(simulation, bounded, timeout=600)
    return simulation


@asynccontextmanager
async def raw(sim: Simulation, *, plain: bool = False, path: str = "") -> AsyncIterator[RawClient]:
    """A client that says what the test tells it to, after the upgrade."""
    stream = await sim.network.connect("server", client="ada")
    try:
        client = sim.level.speak(stream)
        await client.open("token" + path, plain=plain)
        yield client
    finally:
        stream.close()


async def until_gone(client: RawClient) -> str:
    with pytest.raises(Gone) as caught:
        while True:
            await client.receive()
    return str(caught.value)


async def welcomed(client: RawClient) -> dict[str, Any]:
    await client.say({"t": "hello", "user": "ada"})
    [welcome, *_] = await client.receive()
    assert welcome["t"] == "welcome"
    return welcome


def only(sim: Simulation) -> Connection:
    [connection] = sim.network.connections
    return connection


def test_events_go_end_to_end_and_are_acked(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with sim.connect("ada") as client:
            receipt = await hub.publish("ada", "agent_started", {"text": "x" * 100_000})
            event = await client.receive()
            assert event.payload == {"text": "x" * 100_000}
            with trio.move_on_after(1):
                await client.receive()
            await receipt.confirmed(timeout=1)
            # More than the lane takes, and then one that it would take: they stay in order.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, client, "x" * 5000)
                nursery.start_soon(refused, client, "x")

    run(level, main)


async def refused(client: trio_ws.Client, payload: str) -> None:
    with pytest.raises(trio_ws.MessageRejected):
        await client.send("hello", payload)


def test_the_same_seed_gives_the_same_messages(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        sim.network.conditions = Conditions(latency=0.01, jitter=0.05)
        async with sim.connect("ada") as client:
            for number in range(10):
                await hub.publish("ada", "agent_thinking", {"n": number})
                assert (await client.receive()).payload == {"n": number}

    one, same, other = (run(level, main, seed) for seed in (1, 1, 2))
    assert one.network.hash == same.network.hash != other.network.hash
    assert one.network.bytes_sent > 1000


@pytest.mark.parametrize("path", ["/elsewhere", "/ws?user=ada&user=bob"])
def test_a_refused_upgrade_has_its_status(level: LevelName, path: str) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        with pytest.raises(trio_ws.ConnectionRefused) as caught:
            async with sim.connect("ada", path=path) as client:
                await client.receive()
        assert caught.value.status == (404 if path == "/elsewhere" else 400)
        await trio.sleep(2)
        assert not sim.network.connections

    run(level, main)


def test_the_word_on_when_to_come_back_is_heard(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        waits: list[float] = []

        def note(state: trio_ws.ClientState) -> None:
            if state.reason == "the upgrade was refused":
                assert state.retry_in is not None
                waits.append(state.retry_in)

        async with sim.connect("ada", on_state=note) as ada, sim.connect("bob", on_state=note) as bob:
            await ada.wait_live()
            await bob.wait_live()
        assert waits[0] == pytest.approx(1)

    run(level, main, connect_rate=1.0, connect_burst=1)


def test_a_session_that_the_operator_ends_is_closed_with_its_code(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with sim.connect("ada") as client:
            await client.wait_live()
            [session] = hub.engine.buffer.mailboxes["ada"].sessions
            hub.end_session("ada", session)
            with pytest.raises(trio_ws.SessionEnded) as caught:
                await client.receive()
            assert caught.value.code == 4403
        await trio.sleep(0.1)
        assert not sim.network.connections

    run(level, main)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("nonsense", 4400),
        ('{"t":"ping"}', 4400),
        ('{"t":"hello","token":"' + "x" * 70_000 + '"}', 1009),
    ],
)
def test_a_breach_is_told_and_closed(level: LevelName, said: str, code: int) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim) as client:
            await client.say(said)
            assert str(code) in await until_gone(client)

    run(level, main)


def test_no_hello_in_time(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim) as client:
            assert "4501" in await until_gone(client)
            assert trio.current_time() == pytest.approx(5, abs=0.1)

    run(level, main)


def test_a_plain_client_is_given_bare_events_and_pings(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim, plain=True, path="&user=ada") as client:
            await hub.publish("ada", "agent_started", {"n": 1})
            await hub.publish("ada", "agent_thinking", {"n": 2})
            seen: list[Any] = []
            with trio.move_on_after(100):
                while True:
                    seen += await client.receive()
            assert [event["payload"]["n"] for event in seen] == [1, 2]
            assert only(sim)  # it lives by its pongs

    run(level, main)


def test_a_peer_that_takes_nothing_is_cut_after_the_write_timeout(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        sim.network.conditions = Conditions(capacity=2000)
        async with raw(sim) as client:
            await client.say({"t": "hello", "user": "ada"})
            await trio.sleep(0.1)
            begun = trio.current_time()
            await hub.publish("ada", "agent_started", {"text": "x" * 10_000})
            while not hub.engine.pool.parked:  # noqa: ASYNC110 - nobody tells of it
                await trio.sleep(0.1)
            assert trio.current_time() - begun == pytest.approx(1.5, abs=0.2)

    run(level, main, write_timeout=1.5, heartbeat_active=100)


def test_a_backlog_goes_when_there_is_room(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        sim.network.conditions = Conditions(capacity=2000)
        async with sim.connect("ada") as client:
            await client.wait_live()
            only(sim).stall("down", 1)
            for number in range(10):
                await hub.publish("ada", "agent_started", {"n": number, "text": "x" * 1000})
            await trio.sleep(0.5)
            [attachment] = hub.engine.attachments
            assert attachment.session.blocked is not None
            assert only(sim).down.size <= 2000
            for number in range(10):
                assert (await client.receive()).payload["n"] == number
            await trio.sleep(0.1)
            assert attachment.session.blocked is None

    run(level, main)


def test_a_slow_line_is_no_silence(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        sim.network.conditions = Conditions(rate=4000)
        async with sim.connect("ada") as client:
            await client.wait_live()
            await hub.publish("ada", "agent_started", {"text": "x" * 40_000})
            await client.receive()
            assert trio.current_time() > 9
            assert client.statistics().attempts == 1

    run(level, main, write_timeout=60, stall_timeout=60)


def test_an_end_and_a_reset_are_noticed_at_once(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim) as client:
            await welcomed(client)
            await only(sim).client_stream.send_eof()
            await until_gone(client)
        await trio.sleep(0.01)
        assert hub.engine.pool.parked == 1
        async with sim.connect("bob") as bob:
            await bob.wait_live()
            only(sim).reset()
            await trio.sleep(0.001)
            assert not hub.engine.attachments
            await trio.sleep(0.2)
            assert bob.statistics().reconnects == 1

    run(level, main)


def test_silence_is_noticed_in_time(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim) as client:
            await welcomed(client)
            begun = trio.current_time()
            assert "4501" in await until_gone(client)
            assert trio.current_time() - begun == pytest.approx(4, abs=0.3)

    run(level, main)


def test_closing_while_messages_are_on_the_way(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        sim.network.conditions = Conditions(latency=0.2)
        receipts = []
        async with sim.connect("ada") as client:
            await client.wait_live()
            for number in range(3):
                receipts.append(await hub.publish("ada", "agent_started", {"n": number}))
                await trio.sleep(0.15)
            assert (await client.receive()).payload == {"n": 0}
        # It left with one in hand, which counts, and two on their way, which don't.
        assert [receipt.state for receipt in receipts] == ["settled", "sent", "sent"]
        await trio.sleep(1)
        assert not sim.network.connections
        assert not hub.engine.pool.parked

    run(level, main)


def test_a_drain_reaches_the_client(level: LevelName) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        states: list[str] = []
        async with sim.connect("ada", on_state=lambda state: states.append(state.reason)) as client:
            await client.wait_live()
            await hub.drain()
            await trio.sleep(0.1)
            assert "the server is going away" in states

    run(level, main)


def test_what_a_handler_raises_ends_its_connection_alone(
    level: LevelName, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from trio_ws.hub import attachment

    def fail(self: Any, message: bytes) -> None:
        raise ValueError("lost")

    monkeypatch.setattr(attachment.Attachment, "receive", fail)

    async def main(sim: Simulation, hub: Hub) -> None:
        async with raw(sim) as client:
            await welcomed(client)
            await client.say({"t": "ping"})
            assert "4500" in await until_gone(client)

    run(level, main)
    assert "reading from memory failed" in caplog.text


@pytest.mark.parametrize(
    "character", ["mute", "deaf", "eager", "liar", "half", "plain", "hasty"], ids=lambda name: name
)
def test_every_character_is_there_at_both_levels(level: LevelName, character: str) -> None:
    async def main(sim: Simulation, hub: Hub) -> None:
        stream = await sim.network.connect("server", client="ada")
        rng = sim.derive("character")
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_publishing, hub)
                token = "x&user=ada" if character == "plain" else "x"
                hello = {"user": "ada"}
                await misbehave(character, stream, token, rng, hello, sim.level.speak)
        stream.close()
        await trio.sleep(10)
        assert not sim.network.connections
        figures = hub.stats()
        assert (figures["connections"]["total"] > 0) == (character != "hasty")
        if character not in (
            "hasty",
            "half",
        ):  # half has ended before the first turn of the flusher, or after it
            assert figures["delivery"]["events_sent"] > 0
        assert (figures["connections"]["mistakes"] > 0) == (character == "liar")

    run(level, main)


async def keep_publishing(hub: Hub) -> None:
    while True:
        await hub.publish("ada", "agent_started", {"n": 1})
        await trio.sleep(0.3)
