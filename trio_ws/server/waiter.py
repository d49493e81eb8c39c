"""A place for one task to wait in, that costs next to nothing while nobody does."""

from __future__ import annotations

from collections.abc import Awaitable

import trio


class Waiter:
    """One task waits, until it is woken. A `trio.Event` for that costs six times the memory."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wait(self) -> Awaitable[None]:
        """Wait for `wake`; a checkpoint. To be awaited at once. BusyResourceError where another task waits here."""
        if self._task is not None:
            raise trio.BusyResourceError("another task waits here already")
        self._task = trio.lowlevel.current_task()
        # Not awaited here: each idle connection would keep one frame more.
        return trio.lowlevel.wait_task_rescheduled(self._abort)  # noqa: ASYNC105

    def wake(self) -> None:
        """Let the task that waits go on, if one does; not a checkpoint."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
