"""Runs of agents: each has one end, whatever becomes of its publisher; and what its user is told, asked and may say."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest
import trio

import trio_ws
from trio_ws.core import wire
from trio_ws.core.run_view import FOLDED, RunView
from trio_ws.errors import (
    EventTooLarge,
    HubClosed,
    IllegalTransition,
    InvalidEvent,
    QuestionClosed,
    QuestionExpired,
    RunEnded,
    RunFailed,
    StoreUnavailable,
    TooManyRuns,
    UnknownRun,
)
from trio_ws.event import Event, Gap
from trio_ws.store import MemoryStore

from .peers import Peer, World, running, settled
from .test_durable import Store, connected, life, until

TERMINAL = ("agent_completed", "agent_lost")


def frames(peer: Peer, run: str) -> list[dict[str, Any]]:
    """The events of a run that a client was sent, each once."""
    return [f for f in peer.kinds("event") if f.get("run") == run and not f.get("retry")]


def terminals(peer: Peer, run: str) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in f["payload"].items() if key != "duration"}
        for f in frames(peer, run)
        if f["type"] in TERMINAL
    ]


def say(peer: Peer, type: str, id: str = "m", **payload: Any) -> None:
    peer.say(wire.message(id, type, json.dumps(payload).encode()))


def answers(peer: Peer) -> list[tuple[str, str, str | None]]:
    return [(f["t"], f["id"], f.get("error")) for f in peer.kinds("accepted", "rejected")]


# -- blocks


async def test_a_run_tells_of_its_life() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        async with world.hub.run("ada", "r", name="researcher", input={"q": 1}) as run:
            await run.think("hm")
            async with run.tool("search", {"q": "x"}) as tool:
                await tool.output("line")
                tool.result = {"hits": 3}
            await run.delta("Hel")
            run.delta_nowait("lo")
            await run.progress(0.4, "reading")
            await run.publish("note", {"any": 1}, priority=trio_ws.Priority.HIGH)
            run.publish_nowait("note", {"any": 2})
            async with run.run("child", name="helper"):
                pass
            run.result = {"answer": 42}
            assert run.outcome is None
        assert run.outcome == "completed"
        await settled()
        told = [(f["type"], f["payload"], f.get("critical", False)) for f in frames(peer, "r")]
        durations = [payload.pop("duration", None) for _, payload, _ in told]
        assert told == [
            ("agent_started", {"name": "researcher", "input": {"q": 1}}, True),
            ("agent_thinking", {"text": "hm"}, True),
            ("tool_executing", {"call": 1, "tool": "search", "input": {"q": "x"}}, True),
            ("tool_output", {"call": 1, "text": "line"}, False),
            (
                "tool_completed",
                {"call": 1, "tool": "search", "outcome": "completed", "output": {"hits": 3}},
                True,
            ),
            ("agent_delta", {"text": "Hello"}, False),
            ("agent_progress", {"fraction": 0.4, "message": "reading"}, False),
            ("note", {"any": 1}, False),
            ("note", {"any": 2}, False),
            ("agent_completed", {"outcome": "completed", "result": {"answer": 42}}, True),
        ]
        assert [d is not None for d in durations].count(True) == 2
        assert next(f["payload"] for f in frames(peer, "child")) == {"name": "helper", "parent": "r"}
        assert [run["run"] for run in await world.hub.runs("ada")] == ["r", "child"]


async def test_how_blocks_end() -> None:
    class Secret(Exception):
        pass

    async def block(run: trio_ws.RunHandle, how: str) -> None:
        if how == "raises":
            raise Secret("a password")
        if how == "fails":
            raise RunFailed("The printer is on fire.")
        if how == "fail":
            run.fail("Printer", "No paper.")
        if how == "fail and raises":
            run.fail("Printer", "No paper.")
            raise Secret("a password")
        if how == "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise Secret
        if how == "cancelled":
            with trio.CancelScope() as scope:  # which is not the run's
                scope.cancel()
                await trio.sleep_forever()
            raise RuntimeError("unreachable" if scope.cancelled_caught is False else "went on")

    expected = {
        "returns": {"outcome": "completed"},
        "raises": {"outcome": "failed", "error": {"kind": "Secret"}},
        "fails": {"outcome": "failed", "error": {"kind": "RunFailed", "message": "The printer is on fire."}},
        "fail": {"outcome": "failed", "error": {"kind": "Printer", "message": "No paper."}},
        "fail and raises": {"outcome": "failed", "error": {"kind": "Printer", "message": "No paper."}},
        "group": {"outcome": "failed", "error": {"kind": "Secret"}},
        "cancelled": {"outcome": "failed", "error": {"kind": "RuntimeError"}},
    }
    async with running() as world:
        peer = world.peer(acks=True).connect()
        for how, end in expected.items():
            error: BaseException | None = None
            try:
                async with world.hub.run("ada", how) as run:
                    await block(run, how)
            except* (Secret, RunFailed, RuntimeError) as group:
                error = group
            assert (error is None) == (how in ("returns", "fail"))
            assert run.outcome == end["outcome"]
            await settled()
            assert terminals(peer, how) == [end]


@pytest.mark.parametrize("where", ["outside", "nursery", "user", "operator"])
async def test_a_cancelled_run_has_its_end(where: str) -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        after = False
        with trio.CancelScope() as scope:
            async with world.hub.run("ada", "r") as run, run.tool("search"), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await run.delta("a")
                if where == "outside":
                    run.fail("Printer", "No paper.")  # words for a failure, which this is not
                    scope.cancel()
                elif where == "nursery":
                    nursery.cancel_scope.cancel()
                elif where == "user":
                    say(peer, "agent_cancel", run="r", reason="enough")
                else:
                    nursery.start_soon(world.hub.cancel_run, "ada", "r")
                await trio.sleep_forever()
            after = True
        assert after == (where != "outside")
        await settled()
        types = [f["type"] for f in frames(peer, "r")]
        asked = where in ("user", "operator")
        assert types == [
            "agent_started",
            "tool_executing",
            "agent_delta",
            *["agent_cancelling"] * asked,
            "tool_completed",
            "agent_completed",
        ]
        outcome = "completed" if where == "nursery" else "cancelled"
        assert terminals(peer, "r") == [{"outcome": outcome}]
        assert run.outcome == outcome
        if where == "user":
            assert frames(peer, "r")[3]["payload"] == {"by": "user", "reason": "enough"}
            assert answers(peer) == [("accepted", "m", None)]


async def test_a_result_that_can_not_be_told_is_an_error_and_the_run_has_its_end() -> None:
    async with running(max_event_bytes=1000) as world:
        peer = world.peer(acks=True).connect()
        for name, result, error in (("a", object(), InvalidEvent), ("b", "x" * 1000, EventTooLarge)):
            with pytest.raises(error):
                async with world.hub.run("ada", name) as run:
                    run.result = result
            with pytest.raises(error):
                async with world.hub.run("ada", f"tool {name}") as run, run.tool("t") as tool:
                    tool.result = result
            await settled()
            end = {"outcome": "failed", "error": {"kind": error.__name__}}
            assert terminals(peer, name) == terminals(peer, f"tool {name}") == [end]


async def test_the_end_comes_where_there_is_no_room() -> None:
    """Also of what is open in a run; what a publisher says in it is refused as ever."""
    async with running(max_events_per_user=4, max_events=4) as world:
        hub = world.hub
        async with hub.run("ada", "r") as run, run.tool("t"):
            question = await run.open_question("Deploy?")
            await hub.publish("ada", "alarm", priority=trio_ws.Priority.CRITICAL)
            with pytest.raises(trio.WouldBlock):
                run.delta_nowait("no room")
            await hub.cancel_run("ada", "r")
            await trio.sleep_forever()
        assert run.outcome == "cancelled"
        assert run.question(question) == trio_ws.core.run_grammar.Closed("withdrawn")
        assert hub.statistics().buffer_events == 8
        with pytest.raises(trio.WouldBlock):
            hub.publish_nowait("ada", "note")
        peer = world.peer(acks=True).connect()
        await settled()
        assert [f["type"] for f in peer.kinds("event")][-4:] == [
            "agent_cancelling",
            "tool_completed",
            "question_closed",
            "agent_completed",
        ]
        hub.publish_nowait("ada", "note")


async def test_a_run_that_waits_for_room_to_begin_does_not_begin_when_cancelled() -> None:
    async with running(max_events_per_user=1) as world:
        await world.hub.publish("ada", "alarm", priority=trio_ws.Priority.CRITICAL)
        with trio.move_on_after(1):
            async with world.hub.run("ada", "r"):
                pytest.fail("there is no room")
        assert await world.hub.runs("ada") == []
        assert world.hub.desk.handles == {}


async def test_what_is_refused() -> None:
    async with running(max_runs_per_user=2) as world:
        hub = world.hub
        async with hub.run("ada", "r") as run:
            for call in (
                lambda: run.publish("agent_completed", {}),
                lambda: run.publish("agent_delta", {"text": 7}),
                lambda: run.publish("agent_delta", {"text": "x"}, key="mine"),
                lambda: run.delta(7),  # type: ignore[arg-type]
                lambda: run.progress(2),
                lambda: run.publish("note", object()),
                lambda: run.ask("?", choices=[]),
                lambda: run.ask("?", timeout=0),
                lambda: run.ask("?", schema=object()),
                lambda: hub.open_run("ada", "\n"),
                lambda: hub.open_run("ada", lease=0),
                lambda: hub.cancel_run("ada", "r", reason="x" * 2000),
            ):
                with pytest.raises(InvalidEvent):
                    await call()
            with pytest.raises(IllegalTransition):
                await run.publish("tool_output", {"call": 1, "text": ""})
            with pytest.raises(IllegalTransition, match="otherwise"):
                await hub.open_run("ada", "r")
            await hub.open_run("ada", "s")
            with pytest.raises(TooManyRuns):
                await hub.open_run("ada", "t")
            with pytest.raises(UnknownRun):
                await hub.cancel_run("ada", "nobody's")
        with pytest.raises(RunEnded):
            await run.delta("late")
        with pytest.raises(RunEnded):
            await hub.cancel_run("ada", "r")
        with pytest.raises(RunEnded):
            await hub.open_run("ada", "r")
        assert await hub.find_run("ada", "nobody's") is None
        assert await hub.find_run("bob", "r") is None
        assert await hub.runs("bob") == []


# -- leases


async def test_a_lease_lapses_unless_it_is_renewed() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        run = await world.hub.open_run("ada", "r", lease=10)
        async with run.tool("search"):
            await trio.sleep(9)
        await run.delta("a")
        await trio.sleep(9)
        run.renew()
        await trio.sleep(9)
        assert run.expires is not None
        assert run.expires == pytest.approx(1e9 + trio.current_time() + 1)
        run.renew(lease=100)
        await trio.sleep(99)
        assert run.outcome is None
        question = await run.open_question("Deploy?")
        await trio.sleep(101)
        assert run.outcome == "lost"
        assert terminals(peer, "r") == [{"outcome": "lost", "reason": "lease"}]
        assert (await run.wait_closed(question)).outcome == "withdrawn"
        await run.wait_cancelling()  # there is nothing to wait for
        with pytest.raises(RunEnded):
            await run.close()
        assert world.hub.stats()["runs"]["lost"] == 1


async def test_opening_and_closing_again_is_the_same() -> None:
    async with running() as world:
        hub = world.hub
        run = await hub.open_run("ada", "r", name="n", input=[1], lease=10)
        assert await hub.open_run("ada", "r", name="n", input=[1], lease=20) is run
        with pytest.raises(IllegalTransition):
            await hub.open_run("ada", "r", name="n", input=[2])
        receipt = await run.close("failed", error={"kind": "Oops", "message": "It broke."})
        again = await run.close("failed")
        assert (again.seq, again.id, again.duplicate, receipt.duplicate) == (
            receipt.seq,
            receipt.id,
            True,
            False,
        )
        found = await hub.find_run("ada", "r")
        assert found is not None
        assert (await found.close("failed")).seq == receipt.seq
        with pytest.raises(RunEnded):
            await run.close("completed")
        for error in ({"message": "?"}, {"kind": "x", "more": 1}, "Oops", {"kind": "k", "message": 7}):
            with pytest.raises(InvalidEvent):
                await run.close("failed", error=error)  # type: ignore[arg-type]
        with pytest.raises(InvalidEvent):
            await run.close("lost")


async def test_ended_runs_are_forgotten_in_time_and_then_nothing_is_left() -> None:
    async with running(event_ttl=100, session_ttl=10, cleanup_interval=5, critical_ttl=100) as world:
        run = await world.hub.open_run("ada", "r", lease=10)
        await run.close()
        await trio.sleep(90)
        assert [r["status"] for r in await world.hub.runs("ada")] == ["completed"]
        await trio.sleep(20)
        assert await world.hub.runs("ada") == []
        await trio.sleep(200)
        assert world.hub.users() == []
        assert world.hub.engine.buffer.runs.users == {}
        assert len(world.hub.engine.buffer.runs) == len(world.hub.engine.timers) == 0


async def test_a_hub_that_drains_takes_the_ends_of_runs_and_has_the_last_word() -> None:
    async with running() as world:
        hub, sub = world.hub, world.hub.subscribe("ada")
        with pytest.raises(HubClosed):
            async with hub.run("ada", "a") as run:
                hub.stopping.set()
                hub.engine.draining = True
                await run.delta("x")
        hub.engine.draining = False
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                async with hub.run("ada", "b"):
                    await trio.sleep_forever()

            nursery.start_soon(work)
            await settled()
            await hub.drain(0)
            assert {r["run"]: r["status"] for r in await hub.runs("ada")} == {"a": "failed", "b": "lost"}
            nursery.cancel_scope.cancel()
        assert {r["run"]: r["status"] for r in await hub.runs("ada")} == {"a": "failed", "b": "lost"}
        sub.close()


# -- questions


async def ask_in(world: World, results: list[Any], **question: Any) -> None:
    async with world.hub.run("ada", "r") as run:
        try:
            results.append(await run.ask("Deploy?", **question))
        except QuestionClosed as error:
            results.append(error)


async def test_the_first_valid_answer_wins_on_whichever_tab() -> None:
    async with running() as world, trio.open_nursery() as nursery:
        results: list[Any] = []
        first = world.peer(acks=True).connect()
        nursery.start_soon(ask_in, world, results)
        await settled()
        (asked,) = [f for f in frames(first, "r") if f["type"] == "question_asked"]
        question = asked["payload"]["question"]
        late = world.peer(acks=True).connect(start="now")
        (standing,) = late.kinds("standing")
        assert standing["questions"] == [
            {"run": "r", "question": question, "prompt": "Deploy?", "ts": asked["ts"]}
        ]
        assert [f["t"] for f in late.frames][:2] == ["welcome", "standing"]
        for id, payload in (
            ("m1", {"question": "another", "answer": 1}),
            ("m2", {"question": question}),
            ("m3", {"question": question, "answer": "yes"}),
            ("m3", {"question": question, "answer": "yes"}),
            ("m4", {"question": question, "answer": "yes"}),
        ):
            say(late, "agent_answer", id, **payload)
        say(first, "agent_answer", "m3", question=question, answer="no")
        await settled()
        assert results == ["yes"]
        assert sorted(answers(late)) == [
            ("accepted", "m3", None),
            ("accepted", "m3", None),
            ("rejected", "m1", "unknown_question"),
            ("rejected", "m2", "invalid_answer"),
            ("rejected", "m4", "already_answered"),
        ]
        assert answers(first) == [("rejected", "m3", "already_answered")]
        closed = [f["payload"] for f in frames(first, "r") if f["type"] == "question_closed"]
        assert closed == [{"question": question, "outcome": "answered", "answer": "yes"}]
        assert not world.peer().connect(start="now").kinds("standing")


class Order(msgspec.Struct):
    dish: Literal["soup", "salad"]
    guests: int


@pytest.mark.parametrize(
    ("options", "wrong", "right", "result"),
    [
        ({"choices": ["yes", "no"]}, "maybe", "no", "no"),
        ({"schema": {"type": "integer", "minimum": 3}}, 2, 7, 7),
        ({"schema": Order}, {"dish": "pie", "guests": 2}, {"dish": "soup", "guests": 2}, Order("soup", 2)),
    ],
)
async def test_answers_are_checked(options: dict[str, Any], wrong: Any, right: Any, result: Any) -> None:
    async with running() as world, trio.open_nursery() as nursery:
        results: list[Any] = []
        peer = world.peer(acks=True).connect()
        nursery.start_soon(lambda: ask_in(world, results, **options))
        await settled()
        question = frames(peer, "r")[-1]["payload"]["question"]
        say(peer, "agent_answer", "m1", question=question, answer=wrong)
        await settled()
        assert results == []
        say(peer, "agent_answer", "m2", question=question, answer=right)
        await settled()
        assert answers(peer) == [("rejected", "m1", "invalid_answer"), ("accepted", "m2", None)]
        assert results == [result]


async def test_a_question_expires_or_is_withdrawn() -> None:
    async with running() as world:
        peer = world.peer(acks=True).connect()
        results: list[Any] = []
        begun = trio.current_time()
        await ask_in(world, results, timeout=60)
        assert trio.current_time() == pytest.approx(begun + 60)
        assert isinstance(results[0], QuestionExpired)
        async with world.hub.run("ada", "s") as run:
            with trio.move_on_after(5):
                await run.ask("Cancelled?")
            question = await run.open_question("Withdrawn?", question="q")
            with pytest.raises(IllegalTransition):
                await run.open_question("The same?", question="q")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.withdraw, question)
                assert (await run.wait_closed(question)).outcome == "withdrawn"
            await run.withdraw(question)
            with pytest.raises(KeyError):
                run.question("never asked")
        await settled()
        closed = [f["payload"]["outcome"] for f in peer.kinds("event") if f["type"] == "question_closed"]
        assert closed == ["expired", "withdrawn", "withdrawn"]
        question = frames(peer, "s")[1]["payload"]["question"]
        say(peer, "agent_answer", question=question, answer="too late")
        await settled()
        assert answers(peer) == [("rejected", "m", "unknown_question")]


# -- cancelling


async def test_a_user_cancels_from_any_tab_and_a_disconnect_is_no_cancel() -> None:
    async with running() as world:
        peer, other = world.peer(acks=True).connect(), world.peer(acks=True).connect()
        run = await world.hub.open_run("ada", "r")
        peer.die()
        await trio.sleep(1)
        assert not run.cancelling
        with trio.move_on_after(1) as scope:
            await run.wait_cancelling()
        assert scope.cancelled_caught
        say(other, "agent_cancel", "m1", run="r")
        await run.wait_cancelling()
        say(other, "agent_cancel", "m2", run="r")
        say(other, "agent_cancel", "m3", run="none")
        say(other, "agent_cancel", "m4")
        say(other, "agent_cancel", "m5", run="r", reason=7)
        await settled()
        await run.delta("what is left")
        await run.close("cancelled")
        say(other, "agent_cancel", "m6", run="r")
        await settled()
        assert sorted(answers(other)) == [
            ("accepted", "m1", None),
            ("accepted", "m2", None),
            ("rejected", "m3", "unknown_run"),
            ("rejected", "m4", "unknown_run"),
            ("rejected", "m5", "invalid_reason"),
            ("rejected", "m6", "run_ended"),
        ]
        assert [f["type"] for f in frames(other, "r")].count("agent_cancelling") == 1


async def test_what_users_say_to_runs_never_waits_for_the_application_nor_reaches_it() -> None:
    seen: list[str] = []

    async def on_message(user: str, message: trio_ws.Message) -> None:
        seen.append(message.type)
        await trio.sleep_forever()

    async with running() as world:
        peer = world.peer(acks=True).connect(on_message=on_message)
        run = await world.hub.open_run("ada", "r")
        say(peer, "ask", "m1")
        say(peer, "agent_cancel", "m2", run="r")
        await settled()
        assert run.cancelling
        assert seen == ["ask"]
        assert answers(peer) == [("accepted", "m2", None)]


# -- snapshots


def fold(peer: Peer, run: str, upto: int | None = None) -> RunView:
    """What a client that folds makes of all that it was sent, in order."""
    view = RunView(run)
    for frame in peer.frames:
        if frame.get("t") == "snapshot" and frame["run"] == run:
            view = RunView.of(run, frame["seq"], frame["ts"], frame["payload"])
        elif frame.get("t") == "event" and frame.get("run") == run:
            merged = frame.get("merged", {}).get("from", frame["seq"])
            assert merged > view.seq or frame["seq"] <= view.seq, "half of it is in the snapshot"
            view.fold(frame["type"], frame["payload"], frame["seq"], frame["ts"])
    return view


async def test_a_late_tab_is_given_snapshots_instead_of_history() -> None:
    async with running() as world:
        first = world.peer(acks=True).connect()
        run = await world.hub.open_run("ada", "r", name="n")
        for at in range(50):
            await run.delta(f"{at},")
        await run.publish("tool_executing", {"call": 1, "tool": "search"})
        await settled()
        late = world.peer(acks=True).connect(start="snapshot")
        await settled()
        assert [f["t"] for f in late.frames] == ["welcome", "snapshot", "live"]
        await run.delta("more")
        await trio.sleep(1)
        full, folded = fold(first, "r"), fold(late, "r")
        assert full.payload() == folded.payload() == run.view().payload()
        assert full.text.endswith("49,more")


async def test_a_gap_says_what_a_snapshot_heals_and_the_snapshot_follows() -> None:
    async with running(max_events_per_user=10) as world:
        away = world.peer(acks=True).connect()
        await settled()
        away.die()
        run = await world.hub.open_run("ada", "r")
        for at in range(8):
            await run.progress(at / 10)
            await world.hub.publish("ada", "token", {"text": at})
        await run.publish("note", {"no": "part of the snapshot"})
        for at in range(20):
            await run.publish("tool_executing", {"call": at + 1, "tool": "t"}) if at < 4 else None
            await world.hub.publish("ada", "token", {"text": at}, priority=trio_ws.Priority.HIGH)
        back = away.again()
        await settled()
        gaps = back.kinds("gap")
        assert [gap.get("snapshots") for gap in gaps] == [["r"], *[None] * (len(gaps) - 1)]
        assert sum(gap.get("healed", 0) for gap in gaps) == sum(
            gap["lost"].get(type, 0) for gap in gaps for type in FOLDED
        )
        assert any(gap["lost"].get("note") for gap in gaps)
        at = back.frames.index(gaps[0])
        assert back.frames[at + 1]["t"] == "snapshot"
        assert back.frames[at + 1]["seq"] == world.hub.engine.buffer.mailbox("ada").head
        assert fold(back, "r").payload() == run.view().payload()


async def test_deltas_are_not_joined_across_a_snapshot() -> None:
    """Neither for one session nor in the log: who folds could not leave out half an event."""
    async with running(max_events_per_user=8) as world:
        away = world.peer(acks=True).connect()
        await settled()
        away.die()
        run = await world.hub.open_run("ada", "r")
        await run.progress(0.1)
        await run.progress(0.2)  # takes the place of the first, which is a gap
        back = away.again()
        back.room = 0  # what it is sent first is all that it takes
        await settled()
        assert back.kinds("snapshot")
        back.room = 1e9
        text = ""
        for at in range(30):
            await run.delta(f"{at},")
            text += f"{at},"
            if at == 3:
                await run.progress(0.3)
                await run.progress(0.4)
                other = world.peer(acks=True).connect(start="snapshot")
                other.room = 0
                await settled()
        for peer in (back, other):
            peer.take_all()
        await trio.sleep(2)
        assert fold(other, "r").text == fold(back, "r").text == run.view().text == text
        assert [f["merged"] for f in frames(back, "r") if "merged" in f]


async def test_deltas_of_two_runs_are_not_joined() -> None:
    async with running() as world:
        a, b = await world.hub.open_run("ada", "a"), await world.hub.open_run("ada", "b")
        for at in range(3):
            a.delta_nowait(f"a{at}")
            a.delta_nowait("!")
            b.delta_nowait(f"b{at}")
        peer = world.peer(acks=True).connect()
        await settled()
        assert [f["payload"]["text"] for f in frames(peer, "a")[1:]] == ["a0!", "a1!", "a2!"]
        assert [f["payload"]["text"] for f in frames(peer, "b")[1:]] == ["b0", "b1", "b2"]


async def test_a_subscription_is_given_snapshots_and_questions_too() -> None:
    async with running() as world:
        world.peer(acks=True).connect()
        run = await world.hub.open_run("ada", "r", name="n")
        await run.delta("Hello")
        question = await run.open_question("Well?")
        await settled()
        with world.hub.subscribe("ada", start="snapshot") as late:
            told: list[Event] = []

            async def receive(count: int) -> None:
                while len(told) < count:
                    told.extend(event for event in await late.receive() if isinstance(event, Event))

            await receive(2)
            await run.close()
            await receive(4)
        standing, snapshot, closed, end = told
        assert (standing.type, standing.payload["questions"][0]["question"]) == ("standing", question)
        assert (snapshot.type, snapshot.run, snapshot.seq) == ("snapshot", "r", 3)
        assert snapshot.payload["text"] == "Hello"
        assert (closed.type, end.type, end.run) == ("question_closed", "agent_completed", "r")


async def test_a_subscription_that_was_slow_is_healed_as_a_client_is() -> None:
    async with running(max_events_per_user=10) as world:
        with world.hub.subscribe("ada") as slow:
            run = await world.hub.open_run("ada", "r")
            for n in range(100):  # more than may wait to be received
                await run.delta(f"{n},")
                await run.publish("note", {"n": n})
            await settled()
            folded = trio_ws.RunFold()
            gaps: list[Gap] = []
            while "r" not in folded or folded["r"].seq < run.view().seq:
                batch = await slow.receive()
                gaps += [item for item in batch if isinstance(item, Gap)]
                for item in batch:
                    folded.fold(item)
        assert gaps[0].snapshots == ("r",)
        assert 0 < gaps[0].healed == gaps[0].lost["agent_delta"] < sum(gaps[0].lost.values())
        assert sum(gap.healed for gap in gaps) == sum(gap.lost.get("agent_delta", 0) for gap in gaps)
        assert folded["r"].payload() == run.view().payload()
        assert not folded.incomplete


async def test_plain_clients_are_told_of_runs_and_nothing_else() -> None:
    async with running() as world:
        peer = world.peer(plain=True).connect()
        async with world.hub.run("ada", "r") as run:
            await run.open_question("?")
        other = world.peer(plain=True).connect(start="snapshot")
        await settled()
        assert [f["run"] for f in peer.frames] == ["r"] * 4
        assert other.frames == []


# -- over a store


async def test_a_block_that_a_crash_ended_is_lost_and_a_leased_run_goes_on() -> None:
    store = MemoryStore()
    with trio.CancelScope() as scope:
        async with life(store) as hub, hub.run("ada", "block", name="n") as run:
            leased = await hub.open_run("ada", "leased", lease=20)
            await leased.delta("Hello")
            async with run.tool("search"):
                await trio.sleep(19)
                assert leased.outcome is None
                scope.cancel()
                store.commit = _never  # type: ignore[method-assign]
                await trio.sleep_forever()
    del store.commit
    async with life(store) as hub:
        await trio.sleep(1)
        runs = {r["run"]: r for r in await hub.runs("ada")}
        assert (runs["block"]["status"], runs["leased"]["status"]) == ("lost", "running")
        assert runs["block"]["last_tool"]["outcome"] == "cancelled"
        assert runs["leased"]["text"] == "Hello"
        peer = await connected(hub, acks=True)
        await trio.sleep(0.1)
        assert terminals(peer, "block") == [{"outcome": "lost", "reason": "crash"}]
        found = await hub.find_run("ada", "leased")
        assert found is not None
        await trio.sleep(17)
        await found.delta(", world")
        await trio.sleep(19)
        assert found.view().text == "Hello, world"
        await trio.sleep(2)
        assert found.outcome == "lost"
        assert len(terminals(peer, "leased")) == 1


async def _never(batch: object) -> None:
    await trio.sleep_forever()


async def test_an_answer_is_durable_before_anybody_is_told() -> None:
    store = Store()
    async with life(store, orderly=True) as hub, trio.open_nursery() as nursery:
        results: list[Any] = []
        peer = await connected(hub, acks=True)
        run = await hub.open_run("ada", "r")

        async def ask() -> None:
            results.append(await run.ask("Deploy?", choices=["yes", "no"]))

        nursery.start_soon(ask)
        await until(lambda: len(frames(peer, "r")) == 2)
        question = frames(peer, "r")[-1]["payload"]["question"]
        store.hold()
        say(peer, "agent_answer", question=question, answer="yes")
        await trio.sleep(0.5)
        assert (results, answers(peer)) == ([], [])
        store.let_go()
        await until(lambda: results)
        await until(lambda: answers(peer))
        assert answers(peer) == [("accepted", "m", None)]
        say(peer, "agent_cancel", "c", run="r")
        await run.wait_cancelling()
        await run.close("cancelled")


async def test_what_is_open_and_what_was_answered_outlives_a_restart() -> None:
    store = MemoryStore()
    async with life(store) as hub:
        peer = await connected(hub, acks=True)
        run = await hub.open_run("ada", "r", lease=30)
        open_one = await run.open_question("Open?", timeout=60)
        answered = await run.open_question("Answered?")
        say(peer, "agent_answer", "m1", question=answered, answer={"any": 1})
        await hub.cancel_run("ada", "r", "enough")
        await run.publish("tool_executing", {"call": 2, "tool": "t"})
        await run.wait_closed(answered)
        peer.die()
    async with life(store) as hub:
        peer = await connected(hub, before=peer, acks=True)
        (standing,) = peer.kinds("standing")
        assert [q["question"] for q in standing["questions"]] == [open_one]
        found = await hub.find_run("ada", "r")
        assert found is not None
        assert found.cancelling
        await found.wait_cancelling()
        closed = found.question(answered)
        assert closed is not None
        assert (closed.outcome, closed.answer) == ("answered", {"any": 1})
        # The winner never heard that it won: its message comes again, and has its answer.
        say(peer, "agent_answer", "m1", question=answered, answer={"any": 1})
        say(peer, "agent_answer", "m2", question=answered, answer={"any": 1})
        await trio.sleep(0.1)
        assert sorted(answers(peer)) == [("accepted", "m1", None), ("rejected", "m2", "already_answered")]
        with pytest.raises(IllegalTransition):
            await found.publish("tool_executing", {"call": 2, "tool": "t"})
        await found.publish("tool_completed", {"call": 2, "tool": "t", "outcome": "completed", "duration": 1})
        for _ in range(4):
            await trio.sleep(20)
            found.renew()
        expired = found.question(open_one)
        assert expired is not None
        assert expired.outcome == "expired"
        receipt = await found.close("cancelled")
        peer.die()
    async with life(store) as hub:
        found = await hub.find_run("ada", "r")
        assert found is not None
        assert found.outcome == "cancelled"
        again = await found.close("cancelled")
        assert (again.seq, again.id, again.duplicate) == (receipt.seq, receipt.id, True)


async def test_nothing_that_is_not_durable_is_in_a_snapshot() -> None:
    store = Store()
    async with life(store, orderly=True) as hub:
        run = await hub.open_run("ada", "r", lease=3600)
        store.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.think, "not yet")
            await settled()
            peer = (
                await connected(hub, start="snapshot")
                if False
                else Peer(hub, "ada").connect(start="snapshot")
            )
            await settled()
            (snapshot,) = peer.kinds("snapshot")
            assert "thought" not in snapshot["payload"]
            assert snapshot["seq"] == 1
            store.let_go()
        peer.die()
        await run.close()


async def test_the_end_comes_also_while_the_store_fails() -> None:
    store = Store()
    async with life(store, orderly=True, drain_timeout=0) as hub:
        async with hub.run("ada", "r") as run:
            store.failing = "disk full"
            with pytest.raises(trio_ws.StoreUnavailable):
                await run.think("hm")
        assert run.outcome == "completed"
        store.failing = None
        await trio.sleep(5)
        assert [r["status"] for r in await hub.runs("ada")] == ["completed"]


async def test_runs_of_users_whose_logs_are_asleep_go_on_and_end() -> None:
    """Where memory is full of others' events, the log of a user who is not there leaves it; the user's runs do not."""
    async with life(MemoryStore(), orderly=True, max_events=5, max_events_per_user=4) as hub:

        async def fill(user: str) -> None:
            for _ in range(4):
                await hub.publish(user, "alarm", priority=trio_ws.Priority.CRITICAL)

        async with hub.run("ada", "block") as run:
            leased = await hub.open_run("ada", "leased", lease=5)
            await fill("bob")
            assert "ada" in hub.engine.buffer.asleep
            await run.think("I wake it")
            await fill("cleo")
            assert "ada" in hub.engine.buffer.asleep
            await trio.sleep(10)
            assert leased.outcome == "lost"
            await fill("dora")
            assert "ada" in hub.engine.buffer.asleep
        assert run.outcome == "completed"
        assert [r["status"] for r in await hub.runs("ada")] == ["completed", "lost"]


async def test_a_snapshot_in_the_store_misses_nothing_that_has_left_the_log() -> None:
    """Deltas that are evicted, or joined, before the run's record is due."""
    for limits in ({"max_events_per_user": 5}, {"max_events_per_user": 5, "durability": "all"}):
        store = MemoryStore()
        async with life(store, **limits) as hub:
            run = await hub.open_run("ada", "r", lease=3600)
            text = ""
            for at in range(40):
                await run.delta(f"{at},")
                text += f"{at},"
                if at % 7 == 0:
                    await hub.publish("ada", "note", {"at": at})
                if at % 5 == 0:
                    await trio.sleep(0.01)
            assert run.view().text == text
            await trio.sleep(0.1)
        async with life(store, **limits) as hub:
            found = await hub.find_run("ada", "r")
            assert found is not None
            assert found.view().text == text


# -- what goes wrong between an event's acceptance and its commit, or while there is no room


async def test_a_run_that_is_opened_again_is_durable_then() -> None:
    store = Store()
    async with life(store) as hub:
        store.hold()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await hub.open_run("ada", "r", lease=60)
        store.let_go()
        assert (await hub.open_run("ada", "r", lease=60)).seq == 1


async def test_a_cancel_is_heard_by_a_run_whose_beginning_is_not_durable_yet() -> None:
    store = Store()
    async with life(store, orderly=True) as hub, trio.open_nursery() as nursery:
        outcomes = []

        async def agent() -> None:
            async with hub.run("ada", "r") as run:
                await trio.sleep_forever()
            outcomes.append(run.outcome)

        store.hold()
        nursery.start_soon(agent)
        await settled()
        nursery.start_soon(hub.cancel_run, "ada", "r")
        await settled()
        store.let_go()
        await until(lambda: outcomes)
        assert outcomes == ["cancelled"]


async def test_what_was_accepted_and_is_not_durable_in_time_leaves_nothing_open_in_a_run() -> None:
    """A question whose asking was cancelled is withdrawn, a call of a tool whose block never began is closed."""
    store = Store()
    async with life(store, orderly=True) as hub:
        peer = await connected(hub, acks=True)
        async with hub.run("ada", "r") as run:
            store.hold()
            with trio.move_on_after(0.5):
                await run.ask("Cancelled?")
            with trio.move_on_after(0.1):
                await run.open_question("Cancelled?")
            with trio.move_on_after(0.1):
                async with run.tool("search"):
                    raise AssertionError
            store.let_go()
            await until(lambda: any(f["type"] == "tool_completed" for f in frames(peer, "r")))
            assert (run.snapshot()["questions"], run.snapshot()["tools"]) == ([], [])
        told = [(f["type"], f["payload"].get("outcome")) for f in frames(peer, "r")]
        asked = [("question_asked", None), ("question_closed", "withdrawn")]
        assert told[1:7] == [*asked, *asked, ("tool_executing", None), ("tool_completed", "cancelled")]


async def test_a_question_that_was_long_in_becoming_durable_expires_all_the_same() -> None:
    store = Store()
    async with life(store) as hub:
        run = await hub.open_run("ada", "r", lease=3600)
        store.hold()
        with pytest.raises(StoreUnavailable):
            await run.open_question("Well?", question="q", timeout=20)
        store.let_go()
        with trio.fail_after(30):
            assert (await run.wait_closed("q")).outcome == "expired"


async def test_calls_and_runs_that_wait_for_room_together_all_find_their_place() -> None:
    async with running(max_events_per_user=4) as world:
        run = await world.hub.open_run("ada", "r")
        for n in range(3):
            await world.hub.publish("ada", "alarm", n, priority=trio_ws.Priority.CRITICAL)
        numbers, opened = set(), []

        async def call() -> None:
            async with run.tool("search") as tool:
                numbers.add(tool.number)

        async def open_it() -> None:
            opened.append(await world.hub.open_run("ada", "same", name="one"))

        async with trio.open_nursery() as nursery:
            for task in (call, call, call, open_it, open_it):
                nursery.start_soon(task)
            await settled()
            assert (numbers, opened) == (set(), [])
            world.peer(acks=True).connect()
        assert numbers == {1, 2, 3}
        assert opened[0] is opened[1]
        await run.close()
        await opened[0].close()
