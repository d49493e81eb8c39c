"""Simulated agents: believable runs at a pace that a person can watch.

An agent does one run after the other, and rests while nobody has seen the last `UNSEEN` of them: the demo may stand
for days without filling the buffer with critical events that no one confirms.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from ..hub import Hub, Receipt

USERS: Final = ("ada", "bob", "cyd")
UNSEEN: Final = 2
"""Finished runs that nobody has seen before an agent rests."""


@attrs.frozen
class Call:
    """One use of a tool: what it prints, line by line, and how it ends."""

    tool: str
    input: str
    output: tuple[str, ...]
    summary: str
    ok: bool = True


@attrs.frozen
class Script:
    """One run: thoughts, calls, and the answer that is streamed."""

    agent: str
    task: str
    steps: tuple[str | Call, ...]
    answer: str


SCRIPTS: Final = (
    Script(
        "Researcher",
        "Why did sign-ups drop on Tuesday?",
        (
            "Sign-ups are counted in two places. I compare the funnel with the raw events first.",
            Call(
                "query_warehouse",
                "select step, count(*) from funnel where day = '2025-03-11' group by step",
                ("landing      18,204\n", "form_opened   6,911\n", "form_sent     1,120\n", "confirmed     1,088\n"),
                "4 rows in 0.8 s",
            ),
            "People open the form and don't send it. That smells like the client, not like marketing.",
            Call(
                "read_deploys",
                "web, 10 to 12 March",
                ("09:12  web 2025.3.10  rolled out\n", "14:40  web 2025.3.11  rolled out\n", "14:52  alerts quiet\n"),
                "2 deploys",
            ),
        ),
        "The drop begins at 14:41, a minute after web 2025.3.11. That release validates phone numbers before the country "
        "is chosen, so the form refuses every number that is not American. 83 % of those who opened the form left there. "
        "Rolling back brings them back at once; the proper fix is to validate on submit.",
    ),
    Script(
        "Engineer",
        "Make the flaky checkout test reliable",
        (
            "It fails about once in thirty runs. I run it until it does.",
            Call(
                "run_tests",
                "pytest tests/test_checkout.py --count 60 -x",
                tuple(f"run {n:2d} {'.' * 12} ok\n" for n in range(1, 9))
                + ("run  9 .....F  assert cart.total == 42\n",),
                "failed in run 9",
                ok=False,
            ),
            "The total is read before the discount has arrived: a race between two requests.",
            Call(
                "edit_file",
                "tests/test_checkout.py",
                ("-    cart = client.cart()\n", "+    cart = client.wait_for_cart(discounts=1)\n", "     assert cart.total == 42\n"),
                "1 line changed",
            ),
            Call(
                "run_tests",
                "pytest tests/test_checkout.py --count 60",
                tuple(f"runs {n:2d} to {n + 9:2d} {'.' * 10} ok\n" for n in range(1, 61, 10)),
                "60 passed in 41 s",
            ),
        ),
        "The test read the cart before its discount was applied. It now waits for the discount instead of hoping for it, "
        "and passed 60 times in a row. The application was right all along; nothing but the test has changed.",
    ),
    Script(
        "Travel desk",
        "Three days in Lisbon in May, by train where it makes sense",
        (
            "From Madrid there is no direct train by day any more. I look at what is left.",
            Call(
                "search_connections",
                "Madrid to Lisboa, 14 May, arrive before 20:00",
                ("train  2 changes  9 h 40   €52\n", "bus    direct     8 h 10   €39\n", "plane  direct     1 h 25   €61\n"),
                "3 connections",
            ),
            Call(
                "search_hotels",
                "Alfama or Graça, 3 nights, quiet",
                ("Casa do Largo     €94   9.2\n", "Graça Terrace     €118  9.0\n", "Pátio Velho       €81   8.7\n"),
                "3 of 41 match",
            ),
        ),
        "Fly out on the morning of the 14th and take the slow train home on the 17th: the stretch along the Tejo is worth the "
        "day. Casa do Largo is the quiet one; ask for a room to the court. Both are held for you until six this evening.",
    ),
    Script(
        "Data keeper",
        "Bring the customer table into the new region",
        (
            "41,300 rows, no downtime. I copy in batches and compare at the end.",
            Call(
                "copy_rows",
                "customers, batches of 5,000",
                tuple(f"{min(n * 5000, 41300):6,d} of 41,300\n" for n in range(1, 10)),
                "41,300 rows in 5.2 s",
            ),
            Call(
                "compare",
                "customers: checksum by month",
                ("2023  12 of 12 equal\n", "2024  12 of 12 equal\n", "2025   3 of  3 equal\n"),
                "no difference",
            ),
        ),
        "All 41,300 rows are in the new region and equal to the last byte. Writes go to both sides until you say otherwise; "
        "the old copy stays for thirty days.",
    ),
)


async def work(hub: Hub, *, seed: int | None = None, pace: float = 1.0) -> None:
    """Agents at work for `USERS`, until cancelled.

    Args:
      hub: where they publish.
      seed: decides what they do; None leaves it to chance.
      pace: seconds of theirs a second; 2 is twice as fast.
    """
    rng = random.Random(seed)
    runs = itertools.count(rng.randrange(1000, 9000))
    async with trio.open_nursery() as nursery:
        for number, user in enumerate(USERS):
            agent = _Agent(hub, user, random.Random(rng.random()), runs, pace)
            nursery.start_soon(agent.live, number)


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
        unseen: deque[Receipt] = deque()
        for script in itertools.islice(itertools.cycle(SCRIPTS), number, None):
            unseen.append(await self._run(next(self._runs), script))
            if len(unseen) > UNSEEN:
                await unseen.popleft().confirmed(timeout=float("inf"))
            await self._rest(2.0, 4.0)

    async def _run(self, run: int, script: Script) -> Receipt:
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
        return await self._tell("agent_completed", run=run, duration=took, outcome="done")

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

    async def _tell(self, type: str, **payload: object) -> Receipt:
        """A critical event."""
        return await self._hub.publish(self._user, type, payload)

    async def _say(self, type: str, key: str, **payload: object) -> None:
        """A delta. Its numbers are numbers: of strings, joining would make one."""
        await self._hub.publish(self._user, type, payload, key=key, merge="append")

    async def _rest(self, low: float, high: float) -> None:
        await trio.sleep(self._rng.uniform(low, high) / self._pace)


def _words(text: str) -> Iterator[str]:
    """`text` in the pieces that a language model would stream."""
    words = text.split(" ")
    yield from (word + " " for word in words[:-1])
    yield words[-1]
