"""The publisher for asyncio and Trio: the same behaviour in both event loops, and what cancelling does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from tests.publisher.fake import URL, Fake, drop, lines_of
from trio_ws.adapters import AgentFailed, agui
from trio_ws.publisher import (
    AsyncPublisher,
    AsyncRun,
    BatchRefused,
    IllegalTransition,
    QuestionExpired,
    RunFailed,
    RunLost,
    Unreachable,
)
from trio_ws.publisher.waiting import MAX_WAITING

Scene = Callable[[Fake, AsyncPublisher], Awaitable[Any]]
Play = Callable[[Scene], Fake]
SLEEP = anyio.sleep  # also where it is patched


@pytest.fixture(params=["asyncio", "trio"])
def play(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a scene in an event loop. Under Trio time jumps; under asyncio nothing waits for a server that is away."""

    def run(scene: Scene) -> Fake:
        fake = Fake()

        async def network(request: httpx.Request) -> httpx.Response:
            await anyio.lowlevel.checkpoint()  # a call can be cancelled before it is made, as over a socket
            return fake(request)

        async def main() -> None:
            async with httpx.AsyncClient(transport=httpx.MockTransport(network)) as client:
                await scene(fake, AsyncPublisher(URL, client=client))

        if request.param == "trio":
            options: dict[str, Any] = {"clock": trio.testing.MockClock(autojump_threshold=0)}
        else:
            options = {}
            monkeypatch.setattr("trio_ws.publisher.transport.anyio.sleep", lambda _: SLEEP(0))
        anyio.run(main, backend=request.param, backend_options=options)
        return fake

    return run


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(30):
        while not condition():
            await SLEEP(0.01)


def test_events_and_batches(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        fake.script = [httpx.ConnectError("refused"), 503, drop(fake)]
        accepted = await publisher.publish("ada", "note", {"n": 1})
        assert (accepted.seq, accepted.duplicate) == (1, True)
        many = [{"user": "ada", "type": "note", "payload": {"n": n}} for n in range(2, 4)]
        assert [one.seq for one in await publisher.publish_many(many)] == [2, 3]
        fake.script = [lines_of({"error": {"code": "invalid", "message": "no", "status": 422}})]
        with pytest.raises(BatchRefused):
            await publisher.publish_many(many[:1])
        fake.script = [httpx.ConnectError("refused")] * 9
        with pytest.raises(Unreachable):
            await publisher.publish("ada", "note")

    assert play(scene).payloads("note") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_run_from_start_to_end(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        async with publisher.run("ada", "r1", name="researcher") as run:
            await run.think("hm")
            async with run.tool("search", {"q": "x"}) as tool:
                await tool.output("a")
                tool.result = {"n": 2}
            await run.delta("Hel")
            run.delta_nowait("lo")
            await run.progress(0.5)
            async with run.run(name="child") as child:
                pass
            run.result = {"pages": 7}
        assert run.outcome == "completed"
        assert fake.runs[child.id]["opened"]["parent"] == "r1"

    fake = play(scene)
    assert fake.runs["r1"]["closed"] == {"outcome": "completed", "result": {"pages": 7}}
    assert fake.types() == [
        "agent_thinking",
        "tool_executing",
        "tool_output",
        "tool_completed",
        "agent_delta",
        "agent_progress",
    ]
    assert fake.payloads("agent_delta") == [{"text": "Hello"}]


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (Boom("secret"), {"kind": "Boom"}),
        (RunFailed("no such city"), {"kind": "RunFailed", "message": "no such city"}),
        (ExceptionGroup("", [Boom("x"), ValueError()]), {"kind": "Boom"}),
    ],
)
def test_what_leaves_the_block_is_told_and_passes_on_as_it_was(
    play: Play, raised: Exception, error: dict[str, str]
) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        with pytest.raises(type(raised)) as caught:
            async with publisher.run("ada") as run, run.tool("t"):
                await run.delta("so far")
                raise raised
        assert caught.value is raised
        assert fake.runs[run.id]["closed"] == {"outcome": "failed", "error": error}

    fake = play(scene)
    [completed] = fake.payloads("tool_completed")
    assert (completed["outcome"], completed["error"]) == ("failed", error)
    assert fake.payloads("agent_delta") == [{"text": "so far"}]


def test_an_agent_that_tells_of_its_failure_has_the_last_word(play: Play) -> None:
    async def stream() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "RUN_STARTED", "threadId": "t", "runId": "a"}
        yield {"type": "RUN_ERROR", "code": "NoSuchCity", "message": "there is none"}

    async def scene(_: Fake, publisher: AsyncPublisher) -> None:
        with pytest.raises(AgentFailed):
            async with publisher.run("ada", "r1") as run:
                await agui.forward(run, stream())

    closed = play(scene).runs["r1"]["closed"]
    assert closed == {"outcome": "failed", "error": {"kind": "NoSuchCity", "message": "there is none"}}


def test_a_cancel_that_was_asked_for_cancels_the_block_and_no_more(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        async with publisher.run("ada", lease=1) as run, run.tool("search"):
            fake.cancelling.add(run.id)  # a heartbeat tells
            await anyio.sleep_forever()
        assert run.cancelling
        assert run.outcome == "cancelled"
        assert fake.runs[run.id]["closed"] == {"outcome": "cancelled"}
        await publisher.publish("ada", "after")

    fake = play(scene)
    assert [payload["outcome"] for payload in fake.payloads("tool_completed")] == ["cancelled"]
    assert fake.types()[-1] == "after"


def test_cancelled_from_outside_the_end_is_told_all_the_same(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        runs: list[AsyncRun] = []
        with anyio.move_on_after(0.2) as scope:
            async with publisher.run("ada") as run, run.tool("search"):
                runs.append(run)
                await run.delta("so far")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert runs[0].outcome == "cancelled"
        assert fake.runs[runs[0].id]["closed"] == {"outcome": "cancelled"}

    fake = play(scene)
    assert [payload["outcome"] for payload in fake.payloads("tool_completed")] == ["cancelled"]
    assert fake.payloads("agent_delta") == [{"text": "so far"}]


def test_cancelled_while_it_ends_well_it_has_ended_well(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        scope = anyio.CancelScope()

        def cancel(_: httpx.Request) -> None:
            scope.cancel()

        with scope:
            async with publisher.run("ada", lease=3600) as run:
                await until(
                    lambda: (
                        ("POST", f"/v1/users/ada/runs/{run.id}/heartbeat?wait=cancelling&timeout=60.0")
                        in fake.requests
                    )
                )
                fake.script = [cancel]
        assert fake.runs[run.id]["closed"] == {"outcome": "completed"}
        assert run.outcome == "completed"

    play(scene)


def test_a_server_that_is_away_holds_a_cancelled_block_for_the_grace_only(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        with anyio.move_on_after(0.1) as scope:
            async with publisher.run("ada"):
                fake.script = [httpx.ConnectError("refused")] * 1000
                await anyio.sleep_forever()
        assert scope.cancelled_caught

    play(scene)


def test_asyncios_own_cancellation() -> None:
    fake = Fake()

    async def agent(publisher: AsyncPublisher) -> None:
        async with publisher.run("ada", "r1"), publisher.run("ada", "r2"):
            await asyncio.sleep(60)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(fake)) as client:
            task = asyncio.create_task(agent(AsyncPublisher(URL, client=client)))
            await until(lambda: "r2" in fake.runs)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert fake.runs["r1"]["closed"] == fake.runs["r2"]["closed"] == {"outcome": "cancelled"}


def test_a_run_that_is_lost_ends_its_block(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        with pytest.raises(RunLost):
            async with publisher.run("ada", lease=1) as run:
                fake.runs[run.id]["closed"] = {"outcome": "lost"}
                await anyio.sleep_forever()
        assert not [path for _, path in fake.requests if path.endswith("/close")]

    play(scene)


def test_deltas_are_sent_soon_and_kept_while_the_server_is_away(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        async with publisher.run("ada") as run:
            await run.delta("one")
            await until(lambda: fake.payloads("agent_delta") == [{"text": "one"}])
            fake.script = [httpx.ConnectError("refused"), drop(fake)]
            await run.delta("two")
            await until(lambda: not fake.script)
            await run.delta("three")
        assert "".join(p["text"] for p in fake.payloads("agent_delta")) == "onetwothree"

    play(scene)


def test_what_deltas_were_refused_with_is_not_hidden(play: Play) -> None:
    refused = {"error": {"code": "illegal_transition", "message": "no", "status": 409}}

    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        with pytest.raises(IllegalTransition):
            async with publisher.run("ada") as run:
                fake.script = [lines_of(refused)]
                await run.delta("x")
        assert fake.runs[run.id]["closed"] == {"outcome": "completed"}
        with pytest.raises(IllegalTransition):
            async with publisher.run("ada") as run:
                fake.script = [lines_of(refused)]
                await run.delta("x")
                await until(lambda: not fake.script)
                while True:
                    await run.progress(0.5)
        assert fake.runs[run.id]["closed"]["outcome"] == "failed"

    play(scene)


def test_what_waits_is_bounded(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        text = "x" * 16384
        async with publisher.run("ada") as run:
            for _ in range(MAX_WAITING // len(text)):
                run.delta_nowait(text)
            with pytest.raises(anyio.WouldBlock):
                run.delta_nowait(text)
            fake.script = [httpx.ConnectError("refused")]
            with pytest.raises(Unreachable):
                await run.delta(text)
            await run.delta(text)
        written = sum(len(p["text"]) for p in fake.payloads("agent_delta"))
        assert written == MAX_WAITING + len(text)

    play(scene)


def test_a_cancelled_question_is_taken_back_before_the_block_goes_on(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        async with publisher.run("ada") as run:
            with anyio.CancelScope() as scope:

                def cancel(_: httpx.Request) -> None:
                    scope.cancel()

                fake.script = [lambda _: None, cancel]  # it is asked, and cancelled as the answer is awaited
                await run.ask("Deploy?")
            assert scope.cancelled_caught
            asked = [method for method, path in fake.requests if "/questions" in path]
            assert asked == ["POST", "GET", "DELETE"]

    play(scene)


def test_a_question_is_awaited(play: Play) -> None:
    async def scene(fake: Fake, publisher: AsyncPublisher) -> None:
        fake.answers = [{}, {"state": "answered", "answer": "yes"}, {"state": "expired"}]
        async with publisher.run("ada") as run:
            assert await run.ask("Deploy?", choices=["yes", "no"]) == "yes"
            with pytest.raises(QuestionExpired):
                await run.ask("And now?")

    play(scene)
