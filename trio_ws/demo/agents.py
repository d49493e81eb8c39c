"""Simulated agents: believable runs at a pace that a person can watch.

An agent does one run after the other, and rests while nobody has seen the last `UNSEEN` of them: the demo may stand
for days without filling the buffer with critical events that no one confirms.

Each event goes out twice: to the user, and to the user's twin, who is the page's bare WebSocket. A plain client
confirms by being sent to, and what that one is sent must not say that the page has processed anything.
"""

from __future__ import annotations

import itertools
import math
import random
import secrets
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import trio

from ..errors import ConfirmationTimeout, HubClosed, StoreUnavailable
from ..event import Priority
from ..hub import Hub, Receipt
from .scripts import SCRIPTS, Call, Script

USERS: Final = ("ada", "bob", "cyd")
UNSEEN: Final = 2
"""Finished runs that nobody has seen before an agent rests."""
TWIN: Final = "-bare"
"""Behind the name of a user: the twin."""
TWIN_TTL: Final = 5.0
"""Seconds that a twin's events are held: plain clients get live events only."""


async def publish_twice(hub: Hub, user: str, type: str, payload: dict[str, Any], **options: Any) -> Receipt:
    """Publishes to `user` and to the twin, who never makes anybody wait; returns the user's receipt.

    Args:
      options: as of `Hub.publish`.
    """
    receipt = await hub.publish(user, type, payload, **options)
    twins = {"priority": Priority.NORMAL, "ttl": TWIN_TTL} | options | {"id": receipt.id}
    try:
        hub.publish_nowait(user + TWIN, type, payload, **twins)
    except trio.WouldBlock:
        pass
    return receipt


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
        self._told: list[Receipt] = []  # of the run that is under way

    async def live(self, number: int) -> None:
        """One run after the other; the `number`-th user's agent begins somewhere else."""
        unseen: deque[trio.Event] = deque()
        async with trio.open_nursery() as nursery:
            for script in itertools.islice(itertools.cycle(SCRIPTS), number, None):
                run = next(self._runs)
                receipts = await self._run(run, script)
                unseen.append(trio.Event())
                nursery.start_soon(self._report, run, receipts, unseen[-1])
                if len(unseen) > UNSEEN:
                    await unseen.popleft().wait()
                await self._rest(2.0, 4.0)

    async def _report(self, run: int, receipts: list[Receipt], seen: trio.Event) -> None:
        """What the publisher knows in the end: how many of the run's critical events were processed, and how fast."""
        took = []
        for receipt in receipts:
            try:
                took.append((await receipt.confirmed(timeout=math.inf)).after)
            except ConfirmationTimeout:
                pass  # a dead letter by now: it takes no room any more, so the next run may
        seen.set()
        told: dict[str, float] = {"run": run, "events": len(receipts), "confirmed": len(took)}
        if took:
            told |= {"median": round(statistics.median(took), 4), "slowest": round(max(took), 4)}
        await self._patiently(self._hub.publish, "run_report", told)

    async def _run(self, run: int, script: Script) -> list[Receipt]:
        self._told = []
        began = trio.current_time()
        await self._tell("agent_started", run=run, agent=script.agent, task=script.task)
        call = 0
        for step in script.steps:
            await self._rest(0.6, 1.4)
            if isinstance(step, str):
                await self._tell("agent_thinking", run=run, thought=step)
            else:
                call += 1
                await self._call(run, call, step)
        await self._rest(0.5, 1.0)
        for word in _words(script.answer):
            await self._say("text", f"run-{run}", run=run, text=word)
            await self._rest(0.03, 0.09)
        took = round(trio.current_time() - began, 1)
        await self._tell("agent_completed", run=run, duration=took, outcome="done")
        return self._told

    async def _call(self, run: int, call: int, step: Call) -> None:
        began = trio.current_time()
        await self._tell("tool_executing", run=run, call=call, tool=step.tool, input=step.input)
        for line in step.output:
            await self._rest(0.12, 0.5)
            await self._say("tool_output", f"run-{run}-{call}", run=run, call=call, text=line)
        await self._rest(0.2, 0.6)
        took = round(trio.current_time() - began, 1)
        await self._tell(
            "tool_completed", run=run, call=call, ok=step.ok, summary=step.summary, duration=took
        )

    async def _tell(self, type: str, **payload: object) -> None:
        """A critical event."""
        self._told.append(await self._patiently(partial(publish_twice, self._hub), type, payload))

    async def _say(self, type: str, key: str, **payload: object) -> None:
        """A delta. Its numbers are numbers: of strings, joining would make one."""
        publish = partial(publish_twice, self._hub, key=key, merge="append")
        await self._patiently(publish, type, payload)

    async def _patiently(
        self, publish: Callable[..., Awaitable[Receipt]], type: str, payload: dict[str, Any]
    ) -> Receipt:
        """Publish; while the store takes nothing, again and again: it is one event, by its id."""
        id = secrets.token_hex(8)
        while True:
            try:
                return await publish(self._user, type, payload, id=id)
            except StoreUnavailable:
                await trio.sleep(1)

    async def _rest(self, low: float, high: float) -> None:
        await trio.sleep(self._rng.uniform(low, high) / self._pace)


def _words(text: str) -> Iterator[str]:
    """`text` in the pieces that a language model would stream."""
    words = text.split(" ")
    yield from (word + " " for word in words[:-1])
    yield words[-1]
