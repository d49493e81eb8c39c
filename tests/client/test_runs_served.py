"""Runs from an agent's block to what several clients of its user have folded, in memory: late ones, ones that come back
to a gap, answers, cancels."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_ws
from trio_ws import Config, RunFold, RunHandle

from ..server.memory import Server, serving


class Tab:
    """A client, and the runs that it has folded."""

    def __init__(self) -> None:
        self.runs = RunFold()
        self.types: list[str] = []
        self.client: trio_ws.Client

    async def fold(self) -> None:
        async for event in self.client:
            self.types.append(event.type)
            self.runs.fold(event)

    def states(self) -> dict[str, Any]:
        """The runs as snapshots have them."""
        return {run: view.payload() for run, view in self.runs.items()}


@asynccontextmanager
async def tab(server: Server, **options: Any) -> AsyncIterator[Tab]:
    """One that is live."""
    tab = Tab()
    connected = trio_ws.connect(
        "ws://test/ws",
        user="ada",
        open_stream=server.listener.connect,
        on_gap=tab.runs.fold,
        **options,
    )
    async with connected as tab.client, trio.open_nursery() as nursery:
        nursery.start_soon(tab.fold)
        await tab.client.wait_live()
        yield tab
        nursery.cancel_scope.cancel()


async def settle(server: Server, *tabs: Tab) -> None:
    """Time passes, in which these tabs get all that there is."""
    await trio.sleep(5)
    head = server.hub.describe("ada")["head"]  # type: ignore[index]
    assert [tab.client._keeper.session.processed for tab in tabs] == [head] * len(tabs)


async def tell(run: RunHandle, lines: int = 3) -> None:
    """Something of everything."""
    await run.think("first")
    async with run.tool("search", {"q": "x"}) as tool:
        for n in range(lines):
            await tool.output(f"line {n}\n")
    await run.progress(0.5, "half")
    for n in range(lines):
        await run.delta(f"word {n} ")


async def test_a_late_tab_has_what_the_first_one_has(autojump_clock: MockClock) -> None:
    async with (
        serving() as server,
        tab(server) as first,
        server.hub.run("ada", "a", name="parent") as run,
        run.run("b", name="child") as child,
    ):
        await tell(run)
        await tell(child)
        async with run.tool("open") as tool:
            await tool.output("so far")
            await settle(server, first)
            async with tab(server, from_="snapshot") as late:
                await settle(server, late)
                assert late.types == ["snapshot", "snapshot"]
                assert late.states() == first.states()
                assert late.runs["b"].parent == "a"
                await tell(run)
                await settle(server, first, late)
                assert late.states() == first.states()
                assert not late.runs.incomplete | first.runs.incomplete


async def test_a_gap_that_a_snapshot_heals_leaves_nothing_missing(autojump_clock: MockClock) -> None:
    config = Config(max_events_per_user=40, batch_interval=0.0)
    async with (
        serving(config) as server,
        tab(server) as first,
        tab(server) as away,
        server.hub.run("ada", "a") as run,
        run.run("b") as child,
    ):
        await tell(run)
        await settle(server, first, away)
        away.client.cut()
        for n in range(100):  # of two runs, so that the log can't join what is neighbours
            await run.delta(f"{n} ")
            await child.delta(f"{n} ")
        await settle(server, first, away)
        gaps = [gap for gap in away.client.gaps if gap.reason == "evicted"]
        assert sum(gap.healed for gap in gaps) == sum(sum(gap.lost.values()) for gap in gaps) > 0
        assert "snapshot" in away.types
        assert away.states() == first.states()
        assert not away.runs.incomplete


async def test_the_program_of_the_documentation_answers_also_what_was_asked_before_it_came(
    autojump_clock: MockClock,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    [program] = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "RunFold()" in text]
    program = program.replace("token=…", 'user="ada", open_stream=open_stream')
    async with serving() as server, trio.open_nursery() as nursery:
        names = {"trio_ws": trio_ws, "url": "ws://test/ws", "open_stream": server.listener.connect}
        exec(f"async def watch():\n{indent(program, '    ')}", names)

        async with server.hub.run("ada", "a") as run:
            question = await run.open_question("Well?", choices=["yes", "no"])
            await run.think("It is told of the question first, and again in the history.")
            nursery.start_soon(names["watch"])  # type: ignore[arg-type]
            assert (await run.wait_closed(question)).answer == "yes"
            assert await run.ask("And now?", choices=["no"]) == "no"
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_the_first_answer_counts_from_whichever_tab(autojump_clock: MockClock) -> None:
    answers = []
    async with (
        serving() as server,
        tab(server) as first,
        trio.open_nursery() as nursery,
        server.hub.run("ada", "a") as run,
    ):

        @nursery.start_soon
        async def ask() -> None:
            answers.append(await run.ask("Deploy?", choices=["yes", "no"], timeout=60))

        await trio.sleep(1)
        async with tab(server, from_="now") as late:
            await settle(server, late)
            assert late.types == ["standing"]
            [question] = late.runs.questions
            assert (question["run"], question["choices"]) == ("a", ["yes", "no"])
            with pytest.raises(trio_ws.MessageRejected, match="invalid_answer"):
                await late.client.answer(question["question"], "maybe")
            await late.client.answer(question["question"], "yes")
            with pytest.raises(trio_ws.MessageRejected, match="already_answered"):
                await first.client.answer(question["question"], "no")
            await settle(server, first, late)
            assert (answers, first.runs.questions, late.runs.questions) == (["yes"], [], [])


async def test_a_cancel_is_requested_then_done_and_a_tab_that_goes_cancels_nothing(
    autojump_clock: MockClock,
) -> None:
    async with serving() as server, tab(server) as first:
        async with tab(server) as second:
            async with server.hub.run("ada", "a") as run:
                second.client.cut()
                await trio.sleep(5)
                assert not run.cancelling
                await second.client.cancel_run("a", "enough")
                await trio.sleep_forever()
            assert run.outcome == "cancelled"
        await settle(server, first)
        assert first.types[-2:] == ["agent_cancelling", "agent_completed"]
        assert first.runs["a"].status == "cancelled"
        for id, why in (("a", "run_ended"), ("b", "unknown_run")):
            with pytest.raises(trio_ws.MessageRejected, match=why):
                await first.client.cancel_run(id)
