"""Simulated agents: believable runs at a pace that a person can watch.

An agent does one run after the other, and rests while nobody has seen the last `UNSEEN` of them: the demo may stand
for days without filling the buffer with critical events that no one confirms.
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import trio

from ..errors import ConfirmationTimeout, HubClosed, RunFailed, StoreUnavailable
from ..event import Priority
from ..hub import Hub, Receipt
from .scripts import SCRIPTS, Ask, Call, Script
from .twins import TwinRun, twin_run

USERS: Final = ("ada", "bob", "cyd")
UNSEEN: Final = 2
"""Finished runs that nobody has seen before an agent rests."""


async def work(hub: Hub, *, seed: int | None = None, pace: float = 1.0) -> None:
    """Agents at work for `USERS`, until cancelled or until the hub drains.

    Args:
      hub: where they publish.
      seed: decides what they do; None leaves it to chance.
      pace: seconds of theirs a second; 2 is twice as fast.
    """
    rng = random.Random(seed)
    runs = itertools.count(rng.randrange(1000, 9000))
    try:
        async with trio.open_nursery() as nursery:
            for number, user in enumerate(USERS):
                agent = _Agent(hub, user, random.Random(rng.random()), runs, pace)
                nursery.start_soon(agent.live, number)
    except* HubClosed:
        pass


class _Agent:
    """Works for one user, for ever."""

    def __init__(self, hub: Hub, user: str, rng: random.Random, runs: Iterator[int], pace: float) -> None:
        self._hub = hub
        self._user = user
        self._rng = rng
        self._runs = runs
        self._pace = pace

    async def live(self, number: int) -> None:
        """One run after the other; the `number`-th user's agent begins somewhere else."""
        unseen: deque[trio.Event] = deque()
        async with trio.open_nursery() as nursery:
            for script in itertools.islice(itertools.cycle(SCRIPTS), number, None):
                try:
                    async with twin_run(self._hub, self._user, next(self._runs), script.title) as run:
                        await self._follow(script, run)
                except StoreUnavailable:  # it has failed; the next may be luckier
                    await trio.sleep(1)
                    continue
                unseen.append(trio.Event())
                nursery.start_soon(self._report, run, unseen[-1])
                if len(unseen) > UNSEEN:
                    await unseen.popleft().wait()
                await self._rest(2.0, 4.0)

    async def _report(self, run: TwinRun, seen: trio.Event) -> None:
        """What the publisher knows in the end. Acks are cumulative: what confirms the last event of a run, or one that
        comes after it, confirms them all."""
        told = {"run": run.number}
        last = await self._tell("run_over", told, priority=Priority.CRITICAL)
        try:
            took = (await last.confirmed(timeout=math.inf)).after
        except ConfirmationTimeout:
            took = None  # a dead letter by now: it takes no room any more, so the next run may
        seen.set()
        if took is not None:
            await self._tell("run_report", told | {"after": round(took, 4)})

    async def _tell(self, type: str, payload: dict[str, Any], **options: Any) -> Receipt:
        """Publish; while the store takes nothing, again and again: it is one event, by its id."""
        id = secrets.token_hex(8)
        while True:
            try:
                return await self._hub.publish(self._user, type, payload, id=id, **options)
            except StoreUnavailable:
                await trio.sleep(1)

    async def _follow(self, script: Script, run: TwinRun) -> None:
        """What `script` says, step by step, and then its answer."""
        for step in script.steps:
            await self._rest(0.6, 1.4)
            match step:
                case str():
                    await run.think(step)
                case Call():
                    await self._call(step, run)
                case Ask():
                    answer = await run.ask(
                        step.prompt, choices=step.choices, timeout=step.timeout / self._pace
                    )
                    await run.think(step.otherwise if answer is None else step.replies[answer])
                case Script():
                    async with run.run(next(self._runs), step.title) as helper:
                        await self._follow(step, helper)
        await self._rest(0.5, 1.0)
        for word in _words(script.answer):
            await run.delta(word)
            await self._rest(0.03, 0.09)

    async def _call(self, step: Call, run: TwinRun) -> None:
        async with run.tool(step.tool, step.input) as tool:
            for done, line in enumerate(step.output, 1):
                await self._rest(0.12, 0.5)
                await tool.output(line)
                if step.measured:
                    await run.progress(done / len(step.output), line.strip())
            await self._rest(0.2, 0.6)
            if not step.ok:
                raise RunFailed(step.summary)
            tool.done(step.summary)

    async def _rest(self, low: float, high: float) -> None:
        await trio.sleep(self._rng.uniform(low, high) / self._pace)


def _words(text: str) -> Iterator[str]:
    """`text` in the pieces that a language model would stream."""
    words = text.split(" ")
    yield from (word + " " for word in words[:-1])
    yield words[-1]
