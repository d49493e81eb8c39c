"""What time takes: cleaning up, dead letters, and that nothing grows which nobody uses."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws.config import Config
from trio_ws.errors import ConfirmationTimeout
from trio_ws.hub import DeadLetter, cleanup

from .peers import running, settled


async def test_cleanup_forgets_idle_users_and_nobody_else() -> None:
    async with running(session_ttl=60, event_ttl=100, cleanup_interval=10) as world:
        hub = world.hub
        connected = world.peer("connected", acks=True).connect()
        world.peer("critical").connect().die()
        await hub.publish("critical", "agent_started")
        world.peer("history", acks=True).connect()
        for user in ("connected", "history"):
            await hub.publish(user, "token")
        visitor = world.peer("visitor").connect()
        visitor.say(b'{"t":"bye"}')
        await trio.sleep(11)
        assert sorted(hub.engine.buffer.mailboxes) == ["connected", "critical", "history"]
        world.peers[2].die()
        await trio.sleep(120)
        assert sorted(hub.engine.buffer.mailboxes) == ["connected", "critical", "history"]
        assert hub.engine.books.history == 0
        await trio.sleep(40)
        assert sorted(hub.engine.buffer.mailboxes) == ["connected", "critical"]
        assert hub.describe("critical")["buffer"]["critical_unconfirmed"] == 1  # type: ignore[index]
        assert connected.dropped_at is None


async def test_a_user_who_was_forgotten_begins_a_new_epoch() -> None:
    async with running(session_ttl=10, event_ttl=10, cleanup_interval=10) as world:
        peer = world.peer(acks=True).connect()
        await world.hub.publish("ada", "token")
        await settled()
        peer.die()
        await trio.sleep(60)
        assert not world.hub.engine.buffer.mailboxes
        again = peer.again()
        assert again.welcome["resumed"] is False
        assert again.welcome["epoch"] != peer.welcome["epoch"]
        assert again.welcome["head"] == 0


async def test_a_user_for_whom_somebody_waits_is_not_forgotten() -> None:
    limits: dict[str, Any] = {"max_events_per_user": 1, "max_events": 1, "cleanup_interval": 10}
    async with running(**limits) as world, trio.open_nursery() as nursery:
        await world.hub.publish("ada", "agent_started")
        nursery.start_soon(world.hub.publish, "bob", "agent_started")
        await settled()
        epoch = world.hub.engine.buffer.mailbox("bob").epoch
        await trio.sleep(50)
        assert world.hub.engine.buffer.mailbox("bob").epoch == epoch
        peer = world.peer(acks=True).connect()
        await settled()
        assert peer.seqs == [1]
        assert world.hub.engine.buffer.mailbox("bob").head == 1


async def test_a_resume_in_time_is_safe_from_the_cleanup() -> None:
    async with running(session_ttl=60, event_ttl=3600, cleanup_interval=10) as world:
        peer = world.peer().connect()
        for _ in range(10):
            await trio.sleep(1)
            peer.die()
            await trio.sleep(59)
            peer = peer.again()
            assert peer.welcome["resumed"] is True
        assert world.hub.stats()["pool"]["pools_created"] == 1


async def test_many_mailboxes_are_swept_with_turns_for_others() -> None:
    async with running(cleanup_interval=1000, event_ttl=1) as world, trio.open_nursery() as nursery:
        for n in range(3 * cleanup.SWEEP_TURN):
            await world.hub.publish(f"user {n}", "token")
        await trio.sleep(5)
        seen: list[int] = []

        async def look() -> None:
            for _ in range(10):
                seen.append(world.hub.engine.books.expired)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(look)
        await cleanup._clean(world.hub.engine, world.hub.reception)
        assert {cleanup.SWEEP_TURN, 2 * cleanup.SWEEP_TURN} & set(seen)
        assert world.hub.engine.books.expired == 3 * cleanup.SWEEP_TURN


async def test_a_cleanup_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(cleanup_interval=10) as world:
        monkeypatch.setattr(world.hub.engine.pool, "expired", lambda now: 1 // 0)
        await trio.sleep(11)
        assert "cleaning up failed" in caplog.text
        monkeypatch.undo()
        world.peer("visitor").connect().say(b'{"t":"bye"}')
        await trio.sleep(10)
        assert not world.hub.engine.buffer.mailboxes


@pytest.mark.pure
async def test_a_deadline_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        peer = world.peer().connect()
        expire = world.hub.engine.confirmations.expire
        faults = [ZeroDivisionError()]

        def fail(now: float) -> Any:
            if faults:
                raise faults.pop()
            return expire(now)

        monkeypatch.setattr(world.hub.engine.confirmations, "expire", fail)
        await trio.sleep(30)
        assert "a deadline failed" in caplog.text
        assert len(peer.kinds("ping")) == 2


# -- dead letters


async def test_a_critical_event_nobody_confirmed_is_a_dead_letter() -> None:
    letters: list[DeadLetter] = []

    async def bury(letter: DeadLetter) -> None:
        letters.append(letter)

    async with running(critical_ttl=100, cleanup_interval=10, on_dead_letter=bury) as world:
        receipt = await world.hub.publish("ada", "agent_started", {"run": 7})
        await world.hub.publish("ada", "token", ttl=5)
        await trio.sleep(111)
        assert letters == [
            DeadLetter(
                user="ada",
                epoch=receipt.epoch,
                seq=1,
                id=receipt.id,
                type="agent_started",
                payload={"run": 7},
                ts=1e9,
            )
        ]
        assert receipt.state == "expired"
        assert world.hub.stats()["delivery"]["dead_letters"] == 1
        peer = world.peer().connect()
        await settled()
        assert peer.welcome["seq"] == 2


async def test_in_memory_a_critical_event_lives_for_a_day() -> None:
    async with running() as world:
        assert Config().critical_ttl is None
        assert world.hub.config.critical_ttl == 86400.0
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(86_300)
        assert world.hub.engine.books.held == 1
        await trio.sleep(200)
        assert world.hub.engine.books.dead_letters == 1


async def test_a_dead_letter_is_logged_without_its_payload(caplog: pytest.LogCaptureFixture) -> None:
    async with running(cleanup_interval=10) as world:
        await world.hub.publish("ada", "agent_started", {"secret": "s3cr3t"}, ttl=5)
        await trio.sleep(11)
    (record,) = [record for record in caplog.records if "dead letter" in record.message]
    assert "s3cr3t" not in str(record.__dict__)
    assert record.__dict__["event_type"] == "agent_started"


async def test_an_events_own_time_to_live_does_not_wait_for_the_cleanup() -> None:
    async with running(cleanup_interval=1000) as world:
        peer = world.peer().connect()
        receipt = await world.hub.publish("ada", "agent_started", ttl=1.2)
        with pytest.raises(ConfirmationTimeout) as timeout:
            await receipt.confirmed()
        assert timeout.value.state == "expired"
        assert trio.current_time() == pytest.approx(1.2, abs=0.01)
        await trio.sleep(10)
        assert [frame.get("retry", 0) for frame in peer.kinds("event")] == [0, 1, 2]
        assert world.hub.stats()["delivery"]["dead_letters"] == 1


async def test_a_dead_letter_found_while_sending_is_handed_on_too() -> None:
    letters: list[DeadLetter] = []

    async def bury(letter: DeadLetter) -> None:
        letters.append(letter)

    async with running(cleanup_interval=1000, critical_ttl=5, on_dead_letter=bury) as world:
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(6)
        peer = world.peer().connect()
        await settled()
        assert len(letters) == 1
        assert peer.kinds("gap") == [
            {
                "t": "gap",
                "from": 1,
                "to": 1,
                "reason": "expired",
                "lost": {"agent_started": 1},
                "critical": 1,
            }
        ]


async def test_a_handler_of_dead_letters_that_raises_is_given_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []

    async def bury(letter: DeadLetter) -> None:
        seen.append(letter.seq)
        raise ZeroDivisionError

    async with running(cleanup_interval=10, on_dead_letter=bury) as world:
        for _ in range(2):
            await world.hub.publish("ada", "agent_started", ttl=5)
        await trio.sleep(11)
        await world.hub.publish("ada", "agent_started", ttl=5)
        await trio.sleep(10)
        assert seen == [1, 2, 3]
        assert "on_dead_letter failed" in caplog.text


async def test_dead_letters_that_wait_for_a_slow_handler_are_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, seen = trio.Event(), []

    async def bury(letter: DeadLetter) -> None:
        await gate.wait()
        seen.append(letter.seq)

    limits: dict[str, Any] = {"max_events_per_user": 3, "max_events": 3, "cleanup_interval": 10}
    async with running(on_dead_letter=bury, **limits) as world:
        for _ in range(4):
            for _ in range(3):
                await world.hub.publish("ada", "agent_started", ttl=5)
            await trio.sleep(10.5)
        gate.set()
        await settled()
        assert seen == [1, 10, 11, 12]
        assert world.hub.engine.books.dead_letters == 12
        assert "on_dead_letter is too slow" in caplog.text
