"""Agents of a simulated run: they work in blocks or with leases, crash, ask and are asked to stop; and their users.

Where a plan has `runs`, these take the place of the publishers. What they were told is noted (`Told`), so that checkers
can hold the hub to it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from ...errors import (
    ConnectionRefused,
    HubClosed,
    IllegalTransition,
    MessageRejected,
    QuestionClosed,
    RunEnded,
    SessionEnded,
    StoreUnavailable,
    TooManyRuns,
    UnknownRun,
)
from ...event import Priority
from ...hub import Hub, RunHandle
from ..checkers.sight import Deliberate, Told

if TYPE_CHECKING:
    from ..scenario import World

ILLEGAL: Final = "what has no place in a run is refused"
ANSWERED: Final = "an answer is one, and it is the one that the agent gets"

LEASES: Final = (1.0, 2.0, 5.0)
"""Seconds."""

CHOICES: Final = ("yes", "no", "later")

MOST_UNDERWAY: Final = 6
"""How many runs of one user may be under way."""


class Agents:
    """The agents that work for one user, and what the user says to them, until cancelled."""

    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._user = user
        self._rng: random.Random = world.sim.derive(f"agents of {user}")
        self._underway = self._count = 0

    async def run(self) -> None:
        """Begin runs now and then; and have the user answer and cancel now and then."""
        plan = self._world.plan
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._speak)
            while True:
                await trio.sleep(self._rng.expovariate(plan.runs))
                await self._world.lives.up.wait()
                hub = self._world.hub
                if hub is None or self._underway >= MOST_UNDERWAY:
                    continue
                self._count += 1
                agent = self._block if self._rng.random() < 0.5 else self._leased
                nursery.start_soon(self._counted, agent, hub, f"{self._user[-6:]}-{self._count}")

    async def _counted(self, agent: Callable[[Hub, str], Awaitable[None]], hub: Hub, name: str) -> None:
        self._underway += 1
        try:
            await agent(hub, name)
        except (HubClosed, StoreUnavailable, TooManyRuns):
            self._world.sim.sometimes("an agent was refused")
        finally:
            self._underway -= 1

    # -- two kinds of agents

    async def _block(self, hub: Hub, name: str) -> None:
        """An agent in a block: it ends in any way, and what was told of its end has to be so."""
        world, rng = self._world, self._rng
        told = world.record.opening(self._user, name, None)
        with world.cancels.scope("run"):
            try:
                async with hub.run(self._user, name, name="block", input=rng.randint(1, 9)) as run:
                    told.opened = True
                    await self._work(hub, run, told)
                    if rng.random() < 0.3:
                        async with run.run() as child:
                            world.record.opening(self._user, child.id, None).opened = True
                            await self._work(hub, child, told)
                    if rng.random() < 0.2:
                        raise Deliberate
                    run.result = {"done": True}
            except (Deliberate, QuestionClosed):
                pass

    async def _leased(self, hub: Hub, name: str) -> None:
        """An agent elsewhere: it outlives hubs, and dies without a word at times."""
        world, rng = self._world, self._rng
        lease = rng.choice(LEASES)
        told = world.record.opening(self._user, name, lease)
        run: RunHandle | None = await hub.open_run(self._user, name, lease=lease)
        told.opened, told.alive_at = True, trio.current_time()
        while run is not None and rng.random() < 0.85:
            try:
                with trio.move_on_after(0.8 * lease):  # a call that takes longer is given up
                    await self._work(hub, run, told)
                await trio.sleep(rng.uniform(0, 0.2))
                if world.hub is hub:
                    run.renew()
                    told.alive_at = trio.current_time()
            except (RunEnded, UnknownRun):  # and was forgotten since, maybe
                world.sim.sometimes("an agent heard that its run is over")
                return
            except (HubClosed, StoreUnavailable, QuestionClosed, Deliberate):
                pass
            if run.cancelling and rng.random() < 0.7:
                break
            if world.hub is not hub:
                found = await self._find_again(name)
                if found is None:
                    return
                hub, run = found
                told.alive_at = trio.current_time()
        if run is None or rng.random() < 0.4:
            world.sim.sometimes("an agent died without a word", run is not None and not run.outcome)
            return
        outcome = "cancelled" if run.cancelling else rng.choice(("completed", "failed"))
        try:
            await run.close(outcome, result=rng.randint(1, 9))
            if rng.random() < 0.5:
                again = await run.close(outcome)
                if not again.duplicate:
                    world.record.fail("a run has exactly one end", f"{told} was closed twice")
        except (RunEnded, UnknownRun):
            world.sim.sometimes("an agent heard that its run is over")

    async def _find_again(self, name: str) -> tuple[Hub, RunHandle] | None:
        """Its run, in the next hub; None where that knows nothing of it, or can't tell."""
        await self._world.lives.up.wait()
        hub = self._world.hub
        if hub is None:
            return None
        try:
            run = await hub.find_run(self._user, name)
        except StoreUnavailable:
            return None
        self._world.sim.sometimes("a run went on in another life", run is not None and run.outcome is None)
        if run is None:
            return None
        run.renew()
        return hub, run

    # -- their work

    async def _work(self, hub: Hub, run: RunHandle, told: Told) -> None:
        """Some of what agents do, and now and then what they must not."""
        rng = self._rng
        for _ in range(rng.randint(1, 8)):
            if self._world.hub is not hub:
                return
            roll = rng.random()
            if roll < 0.4:
                pause = rng.choice((0.0, 0.0, 0.01, 0.05))  # models speak at once, or word by word
                for _ in range(rng.randint(1, 12)):
                    if pause:
                        await trio.sleep(rng.uniform(0, 2 * pause))
                    await run.delta(f"{rng.randint(0, 999)} ")
            elif roll < 0.5:
                await run.progress(round(rng.random(), 3))
            elif roll < 0.6:
                await run.think(f"thought {rng.randint(0, 99)}")
            elif roll < 0.75:
                await self._use_tool(run)
            elif roll < 0.85:
                await self._ask(run, told)
                continue
            elif roll < 0.92:
                await run.publish("note", {"no": "part of a view"}, priority=rng.choice((Priority.LOW, None)))
            else:
                await self._break_the_grammar(run)
            if self._world.hub is hub:
                told.alive_at = trio.current_time()
            if rng.random() < 0.4:
                await trio.sleep(rng.choice((0.01, 0.1, 0.4)))

    async def _use_tool(self, run: RunHandle) -> None:
        rng = self._rng
        if run.lease is not None and rng.random() < 0.3:
            number = run._run.next_call
            await run.publish("tool_executing", {"call": number, "tool": "search"})
            if rng.random() < 0.5:  # else it forgets to say how that went
                done = {"call": number, "tool": "search", "outcome": "completed", "duration": 0.1}
                await run.publish("tool_completed", done)
            return
        try:
            async with run.tool("search", rng.randint(1, 9)) as tool:
                for _ in range(rng.randint(0, 3)):
                    await tool.output("line\n")
                if rng.random() < 0.2:
                    raise Deliberate
        except Deliberate:
            pass

    async def _ask(self, run: RunHandle, told: Told) -> None:
        record = self._world.record
        if self._rng.random() < 0.3:
            question = await run.open_question("Withdraw me?", choices=CHOICES)
            await run.withdraw(question)
            return
        question = await run.open_question("Well?", choices=CHOICES, timeout=self._rng.uniform(0.1, 3))
        told.alive_at = trio.current_time()
        if self._rng.random() < 0.3:
            return  # it does not wait for the answer
        closed = await run.wait_closed(question)
        self._world.sim.sometimes(f"a question was {closed.outcome}")
        known = record.answers.get(question, [])
        if closed.outcome == "answered" and closed.answer not in [answer for answer, _ in known]:
            record.fail(ANSWERED, f"{question} was answered {closed.answer!r}, which nobody has said")

    async def _break_the_grammar(self, run: RunHandle) -> None:
        """Try what has no place now: it must be refused."""
        kind, payload = self._rng.choice(
            (
                ("tool_output", {"call": 9999, "text": "x"}),
                ("tool_completed", {"call": 9999, "tool": "t", "outcome": "failed", "duration": 1}),
                ("tool_executing", {"call": 9999, "tool": "t"}),
            )
        )
        try:
            await run.publish(kind, payload)
        except IllegalTransition:
            self._world.sim.sometimes("the grammar was broken")
        else:
            self._world.record.fail(ILLEGAL, f"{kind} in {run!r}")

    # -- their user

    async def _speak(self) -> None:
        """From any of the user's tabs: answer what is asked, twice at times, and stop what runs."""
        world, rng = self._world, self._rng
        tabs = [tab for tab in world.tabs if tab.user == self._user]
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(rng.uniform(0.05, 1.0))
                questions, runs = world.record.standing(self._user)
                for question in questions:
                    if rng.random() < 0.5:
                        for tab in rng.sample(tabs, min(len(tabs), rng.choice((1, 1, 2)))):
                            nursery.start_soon(self._say, tab, question, rng.choice((*CHOICES, "nonsense")))
                if runs and rng.random() < 0.15:
                    name = rng.choice(runs)
                    world.record.runs[self._user, name].cancels += 1
                    nursery.start_soon(self._cancel, rng.choice(tabs), name)

    async def _say(self, tab: object, question: str, answer: str) -> None:
        client = getattr(tab, "client", None)
        if client is None:
            return
        record = self._world.record
        said = (answer, record.clock())
        record.answers.setdefault(question, []).append(said)
        try:
            with trio.move_on_after(20):
                await client.send("agent_answer", {"question": question, "answer": answer})
                record.answer_accepted(question, answer)
        except MessageRejected as error:
            self._world.sim.sometimes(f"an answer was {error}")
        except (SessionEnded, ConnectionRefused, trio.ClosedResourceError):
            pass

    async def _cancel(self, tab: object, name: str) -> None:
        client = getattr(tab, "client", None)
        if client is None:
            return
        try:
            with trio.move_on_after(20):
                await client.send("agent_cancel", {"run": name, "reason": "enough"})
                self._world.sim.sometimes("a user cancelled a run")
        except MessageRejected as error:
            self._world.sim.sometimes(f"a cancel was {error}")
        except (SessionEnded, ConnectionRefused, trio.ClosedResourceError):
            pass
