"""What happens in the simulated world by itself, with no task behind it: data that arrives, a look at what is due.

Trio's `MockClock` jumps to the next deadline when all tasks wait. For a network that would mean a cancel scope for each
wait, and two turns of the loop for each jump. `Timers` takes the jump over: it goes to the next deadline or the next
alarm, whichever is first, and whoever waits for either runs in the very same turn.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import trio
from trio.testing import MockClock


class Timers:
    """The alarms of a run on a `MockClock` that jumps by itself. `Timers.of` makes it.

    It replaces two private methods of the clock; a test of `determinism.py` guards that they are there.
    """

    def __init__(self, clock: MockClock) -> None:
        self._clock: Any = clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._count = 0
        for name in ("_autojump", "current_time", "_virtual_base"):
            getattr(clock, name)  # AttributeError here, where a version of Trio has no such thing
        vars(clock).update(_autojump=self._jump, current_time=self.now)
        self._context = importlib.import_module("trio._core._run").GLOBAL_RUN_CONTEXT

    @classmethod
    def of(cls, clock: trio.abc.Clock | None = None) -> Timers:
        """Those of this clock, None being the one of this run.

        Raises:
          TypeError: it is no `MockClock` that stands still and jumps by itself.
        """
        clock = clock or trio.lowlevel.current_clock()
        if not isinstance(clock, MockClock) or clock.rate or clock.autojump_threshold:
            raise TypeError("the simulated network takes a MockClock(autojump_threshold=0)")
        timers: Timers | None = vars(clock).get("timers")
        if timers is None:
            timers = vars(clock)["timers"] = cls(clock)
        return timers

    def now(self) -> float:
        """The simulated time. It stands in for `MockClock.current_time`, which reads the real clock each time."""
        return self._clock._virtual_base  # type: ignore[no-any-return]

    def add(self, at: float, alarm: Alarm) -> None:
        """Look at `alarm` at this time."""
        self._count += 1
        heappush(self._heap, (at, self._count, alarm))

    def ring(self) -> None:
        """Ring all that is due now, in the order of time; what comes due by that, too. Not a checkpoint."""
        heap, now = self._heap, self.now()
        while heap and heap[0][0] <= now:
            at, _, alarm = heappop(heap)
            if alarm.at == at:
                alarm.ring()

    def _jump(self) -> None:
        """All tasks wait: let time pass until one does not."""
        runner = self._context.runner
        heap, clock = self._heap, self._clock
        while not runner.runq:
            while heap and heap[0][2].at != heap[0][0]:
                heappop(heap)  # it was moved meanwhile
            at = runner.deadlines.next_deadline()
            if heap and heap[0][0] < at:
                at = heap[0][0]
            if at == math.inf:
                return
            if at > clock._virtual_base:
                clock._virtual_base = at
            self.ring()
            runner.deadlines.expire(at)


class Alarm:
    """Calls what it was armed with, once, at a time that may be brought forward.

    Attributes:
      at: when it rings; inf where it is not to.
    """

    __slots__ = ("_call", "_timers", "at")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._call: Callable[[], object] | None = None
        self.at = math.inf

    def arm(self, at: float, call: Callable[[], object]) -> None:
        """Call `call` at this time; inf waits for `set`. What it was armed with before is forgotten.

        `call` is called outside of any task. It must not wait or raise.
        """
        self._call = call
        self.at = at
        if at != math.inf:
            self._timers.add(at, self)

    def set(self, at: float) -> None:
        """Ring at this time, if not before. Nothing happens to one that is not armed."""
        if at < self.at and self._call is not None:
            self.at = at
            self._timers.add(at, self)

    def soon(self) -> None:
        """Ring as soon as all tasks wait."""
        self.set(self._timers.now())

    def ring(self) -> None:
        """Ring now, and be silent then."""
        call, self._call, self.at = self._call, None, math.inf
        if call is not None:
            call()

    def disarm(self) -> None:
        """Not ring any more."""
        self._call, self.at = None, math.inf

    async def wait(self, until: float) -> None:
        """Sleep until it rings, at this time at the latest. It may ring for nothing: look again.

        A checkpoint; cancelling it changes nothing.
        """
        task = trio.lowlevel.current_task()
        self.arm(until, lambda: trio.lowlevel.reschedule(task))

        def abort(_: object) -> trio.lowlevel.Abort:
            self.disarm()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
