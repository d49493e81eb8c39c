"""Publishers who wait for room, and whose turn it is: those for one user in the order in which they came.

Whoever makes room hands it on in the same step (`Room.serve`). So nobody is woken to try in vain, nobody overtakes, and
the order does not hang on the scheduler, which shuffles the tasks that become runnable together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import outcome
import trio

from .receipt import Receipt

Attempt: TypeAlias = Callable[[], Receipt | None]
"""Tries to have an event accepted: its receipt, or None where there still is no room. It never waits."""


@attrs.frozen(eq=False)
class _Waiter:
    task: trio.lowlevel.Task
    attempt: Attempt


class Room:
    """The lines of waiting publishers, one a user.

    Args:
      full: whether, since this user has found no room, no other user can either; then nobody after is tried in vain.

    Attributes:
      waiting: how many publishers wait, in all.
    """

    def __init__(self, full: Callable[[str], bool]) -> None:
        self.waiting = 0
        self._full = full
        self._lines: dict[str, dict[_Waiter, None]] = {}
        self._serving = False

    def line(self, user: str) -> int:
        """How many publishers wait for room in the mailbox of `user`."""
        return len(self._lines.get(user, ()))

    async def wait(self, user: str, attempt: Attempt) -> Receipt:
        """Wait for a turn at which `attempt` succeeds. A checkpoint.

        Cancelled, `attempt` has not succeeded: once it has, its receipt is what this returns, whatever happens then.

        Raises: what `attempt` raises, or what `end` is given.
        """
        waiter = _Waiter(trio.lowlevel.current_task(), attempt)
        self._lines.setdefault(user, {})[waiter] = None
        self.waiting += 1

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(user, waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            receipt: Receipt = await trio.lowlevel.wait_task_rescheduled(abort)
        except trio.Cancelled:
            self.serve()  # the next in line may ask for less
            raise
        return receipt

    def serve(self) -> None:
        """Give room that has become free to those who wait, each line from its head on."""
        if self._serving or not self.waiting:
            return
        self._serving = True
        try:
            for user in list(self._lines):
                if not self._serve_line(user) and self._full(user):
                    return
        finally:
            self._serving = False

    def _serve_line(self, user: str) -> bool:
        """Serve one line as far as room goes; returns whether that was to its end."""
        while line := self._lines.get(user):
            waiter = next(iter(line))
            result = outcome.capture(waiter.attempt)
            if isinstance(result, outcome.Value) and result.value is None:
                return False
            self._leave(user, waiter)
            trio.lowlevel.reschedule(waiter.task, result)
        return True

    def end(self, error: Callable[[], Exception]) -> None:
        """Nobody gets room any more: everyone who waits is raised an `error()`."""
        for user in list(self._lines):
            self.end_line(user, error)

    def end_line(self, user: str, error: Callable[[], Exception]) -> None:
        """As `end`, for those who wait for one user's room."""
        for waiter in list(self._lines.get(user, ())):
            self._leave(user, waiter)
            trio.lowlevel.reschedule(waiter.task, outcome.Error(error()))

    def _leave(self, user: str, waiter: _Waiter) -> None:
        line = self._lines[user]
        del line[waiter]
        if not line:
            del self._lines[user]
        self.waiting -= 1
