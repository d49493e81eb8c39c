"""Steps of the scheduler, counted: the finest grain of time at which something can happen to a simulated run.

Between two steps each task stands at a checkpoint, so what is done then finds the program in every state that another
task can ever see.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks, and of one task with all that it starts; acts after a number of them.

    Args:
      fail: is told what an act raises.

    Attributes:
      all: the steps of all tasks since the run began.
      count: those of the task that `watch` names, and of all below it.
    """

    def __init__(self, fail: Callable[[BaseException], object]) -> None:
        self.all = self.count = 0
        self._fail = fail
        self._spawned = 0
        self._watched: dict[trio.lowlevel.Task, int] = {}
        self._acts: dict[int, list[Callable[[], object]]] = {}
        self._acts_of_watched: dict[int, list[Callable[[], object]]] = {}

    def watch(self, task: trio.lowlevel.Task) -> None:
        """Count this task, and what it starts from now on."""
        self._spawned += 1
        self._watched[task] = self._spawned

    def number(self, task: trio.lowlevel.Task) -> int:
        """The place of a watched task in the order in which they began."""
        return self._watched[task]

    def after(self, steps: int, act: Callable[[], object], *, of_watched: bool = False) -> None:
        """Have `act` called when so many more steps are over, at least one: of all tasks, or of the watched ones. It
        is no task, so it can't wait."""
        acts, now = (self._acts_of_watched, self.count) if of_watched else (self._acts, self.all)
        acts.setdefault(now + max(1, steps), []).append(act)

    def forget(self) -> None:
        """Have nothing called any more."""
        self._acts.clear()
        self._acts_of_watched.clear()

    # -- For Trio

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if task.parent_nursery is not None and task.parent_nursery.parent_task in self._watched:
            self.watch(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._watched.pop(task, None)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self.all += 1
        if self._acts:
            self._act(self._acts.pop(self.all, ()))
        if task in self._watched:
            self.count += 1
            if self._acts_of_watched:
                self._act(self._acts_of_watched.pop(self.count, ()))

    def _act(self, acts: list[Callable[[], object]] | tuple[()]) -> None:
        for act in acts:
            try:
                act()
            except Exception as error:  # Trio would log it, and go on without this instrument
                self._fail(error)
