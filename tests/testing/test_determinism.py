"""The same seed gives the same run, to the byte, in this process and in others; and what pins it leaves no mark."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket._impl
import wsproto.frame_protocol
import wsproto.utilities
from trio._core import _run
from trio_websocket import WebSocketConnection

import trio_ws
from trio_ws.testing import Conditions, Simulation, run_simulated, run_simulation
from trio_ws.testing.determinism import pinned, pins

ROOT = Path(__file__).resolve().parents[2]
WORLD = [sys.executable, "-m", "tests.testing.world"]


def elsewhere(seed: int, hash_seed: int) -> list[str]:
    """The hashes of a run in another process."""
    output = subprocess.run(
        [*WORLD, str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return output.stdout.split()


def test_the_same_seed_gives_the_same_run_here_and_in_other_processes() -> None:
    from .world import story

    here = run_simulated(11, story)
    assert run_simulated(11, story) == here
    assert elsewhere(11, hash_seed=1) == list(here)
    assert elsewhere(11, hash_seed=2) == list(here)


def test_another_seed_gives_another_run() -> None:
    from .world import story

    (trace, wire), (other_trace, other_wire) = (run_simulated(seed, story) for seed in (1, 2))
    assert trace != other_trace
    assert wire != other_wire


def test_a_run_before_does_not_change_the_next() -> None:
    from .world import story

    first = run_simulated(4, story)
    run_simulated(5, story)
    random.seed()
    uuid.uuid4()
    assert run_simulated(4, story) == first


# -- The guard


async def nothing(simulation: Simulation) -> None:
    await trio.lowlevel.checkpoint()


def names(simulation: Simulation) -> list[str]:
    return [f"{getattr(owner, '__name__', owner)}.{name}" for owner, name, _ in pins(simulation)]


def test_every_name_that_is_pinned_exists() -> None:
    for owner, name, _ in pins(Simulation(1)):
        assert hasattr(owner, name), f"{owner!r} has no {name} any more: look for where chance comes from now"


def test_this_is_all_that_is_pinned() -> None:
    assert names(Simulation(1)) == [
        "trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING",
        "wsproto.frame_protocol.os",
        "wsproto.utilities.os",
        "trio_websocket._impl.random",
        "WebSocketConnection.CONNECTION_ID",
        "trio.to_thread.run_sync",
        "trio_ws.client.client.random",
        "trio_ws.server.auth.time",
        "open_hub.__kwdefaults__",
        "connect.__kwdefaults__",
    ]


def state() -> list[Any]:
    return [getattr(owner, name) for owner, name, _ in pins(Simulation(0))] + [
        _run._r.getstate(),
        random.getstate(),
    ]


def test_everything_is_put_back() -> None:
    before = state()
    run_simulated(1, nothing)
    assert all(one is other or one == other for one, other in zip(before, state(), strict=True))


def test_everything_is_put_back_after_a_failure() -> None:
    async def fail(simulation: Simulation) -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("lost")

    before = state()
    with pytest.raises(KeyError) as caught:
        run_simulated(77, fail)
    assert caught.value.__notes__ == ["simulated with seed 77"]
    assert all(one is other or one == other for one, other in zip(before, state(), strict=True))
    run_simulated(1, nothing)


def test_a_name_that_is_gone_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(AttributeError):
        run_simulated(1, nothing)
    monkeypatch.undo()
    run_simulated(1, nothing)


# -- What each pin is for


def both(seed: int, what: Any) -> tuple[Any, Any]:
    """What an async function gives in two runs of one seed."""
    return run_simulated(seed, what), run_simulated(seed, what)


def test_the_order_of_tasks_follows_from_the_seed() -> None:
    async def order(simulation: Simulation) -> list[int]:
        seen: list[int] = []

        async def task(number: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(task, number)
        return seen

    one, same = both(1, order)
    assert one == same
    assert one != run_simulated(2, order)


def test_the_order_of_tasks_that_are_cancelled_together_follows_from_the_seed() -> None:
    async def order(simulation: Simulation) -> list[int]:
        seen: list[int] = []

        async def task(number: int) -> None:
            with trio.move_on_after(1 + number // 8):
                try:
                    await trio.sleep_forever()
                finally:
                    seen.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(task, number)
            await trio.sleep(2.5)
            nursery.cancel_scope.cancel()
        return seen

    one, same = both(1, order)
    assert one == same
    assert one != run_simulated(2, order)


def test_masks_and_nonces_follow_from_the_seed() -> None:
    async def drawn(simulation: Simulation) -> tuple[bytes, bytes]:
        frame = wsproto.frame_protocol.FrameProtocol(client=True, extensions=[]).ping(b"x")
        return frame, wsproto.utilities.generate_nonce()

    one, same = both(1, drawn)
    assert one == same
    other = run_simulated(2, drawn)
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_what_the_package_draws_and_reads_off_the_clock_is_pinned_where_nothing_is_said() -> None:
    async def epoch(simulation: Simulation) -> tuple[str, str, float]:
        await trio.sleep(100)
        async with trio_ws.open_hub() as hub:
            receipt = await hub.publish("ada", "agent_started")
            [event] = await hub.subscribe("ada").receive()
            return receipt.epoch, receipt.id, event.ts

    one, same = both(1, epoch)
    assert one == same
    assert one[0] != run_simulated(2, epoch)[0]
    assert one[2] == Simulation(1).wall_clock() + 100


def test_names_and_pings_of_trio_websocket_follow_from_the_seed() -> None:
    async def drawn(simulation: Simulation) -> tuple[int, int]:
        random.seed()  # whatever the application does with its own chance
        return trio_websocket._impl.random.getrandbits(32), next(WebSocketConnection.CONNECTION_ID)

    one, same = both(1, drawn)
    assert one == same
    assert one[0] != run_simulated(2, drawn)[0]
    assert one[1] == 0


def test_a_client_that_is_told_nothing_draws_its_ids_and_reads_the_clock_from_the_seed() -> None:
    async def send(simulation: Simulation) -> tuple[list[str], str]:
        ids: list[str] = []
        renewed: list[float] = []

        async def take(user: str, message: trio_ws.Message) -> None:
            await trio.lowlevel.checkpoint()
            ids.append(message.id)

        async def authenticate(credentials: trio_ws.Credentials) -> trio_ws.Identity:
            await trio.lowlevel.checkpoint()
            return trio_ws.Identity("ada", expires=simulation.wall_clock() + 60)

        async def token() -> str:
            await trio.lowlevel.checkpoint()
            renewed.append(trio.current_time())
            return "a token"

        async with trio_ws.open_hub() as hub, trio.open_nursery() as nursery:
            options = {"on_message": take, "authenticate": authenticate}
            await nursery.start(partial(simulation.serve, hub, **options))
            dial = simulation.dialer("server", "ada")
            async with trio_ws.connect("ws://server/ws", token=token, open_stream=dial) as client:
                await client.send("hello")
                await trio.sleep(100)
            nursery.cancel_scope.cancel()
        # Not at once, as a client would that takes the real time of day for the time of its server.
        assert len(renewed) > 1
        assert renewed[1] > 10
        return ids, simulation.network.hash

    one, same = both(1, send)
    assert one == same
    assert one[0] != run_simulated(2, send)[0]


def test_chance_of_the_standard_library_is_seeded() -> None:
    async def drawn(simulation: Simulation) -> float:
        return random.random()

    one, same = both(1, drawn)
    assert one == same
    assert one != run_simulated(2, drawn)


def test_one_purpose_draws_nothing_from_another() -> None:
    one, other = Simulation(1), Simulation(1)
    one.derive("weather").random()
    one.new_id()
    assert one.rng.random() == other.rng.random()
    assert one.derive("weather").random() != one.derive("wether").random()


def test_a_large_payload_takes_no_thread_and_no_time() -> None:
    async def publish(simulation: Simulation) -> tuple[float, int]:
        async with simulation.open_hub(trio_ws.Config(max_bytes_per_user=1 << 22)) as hub:
            await hub.publish("ada", "report", {"text": ["x" * 1000] * 100})
            return trio.current_time(), threading.active_count()

    assert run_simulated(1, publish) == (0.0, threading.active_count())


def test_what_an_inline_thread_raises_comes_out() -> None:
    async def divide(simulation: Simulation) -> None:
        with pytest.raises(ZeroDivisionError):
            await trio.to_thread.run_sync(lambda: 1 / 0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.to_thread.run_sync(pytest.fail, "it was cancelled before")
        assert scope.cancelled_caught

    run_simulated(1, divide)


# -- Time


def test_time_is_simulated() -> None:
    async def sleep(simulation: Simulation) -> float:
        await trio.sleep(86_400)
        simulation.pause(60)
        return trio.current_time()

    began = time.monotonic()
    assert run_simulated(1, sleep, timeout=1e6) == 86_460
    assert time.monotonic() - began < 60


def test_a_deadlock_ends_by_the_timeout() -> None:
    async def wait(simulation: Simulation) -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError) as caught:
        run_simulated(5, wait, timeout=30)
    assert caught.value.__notes__ == ["simulated with seed 5"]


# -- Where it does not go


def test_one_simulation_at_a_time() -> None:
    async def nested(simulation: Simulation) -> None:
        with pytest.raises(RuntimeError):
            run_simulated(2, nothing)
        with pytest.raises(RuntimeError), pinned(Simulation(3)):
            pytest.fail("it was pinned twice")

    run_simulated(1, nested)
    run_simulated(1, nothing)


def test_a_prepared_world_is_the_one_that_runs() -> None:
    async def look(given: Simulation) -> float:
        assert given is simulation
        assert given.network.conditions.latency == 2
        return trio.current_time()

    simulation = Simulation(9)
    simulation.network.conditions = Conditions(latency=2)
    assert run_simulation(simulation, look) == 0.0
