"""The package's log in a simulated run: what is logged as an error did not end where it should have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from .checkers.sight import Deliberate

UNENTERED: Final = "generator didn't yield"
"""What an ``async with`` raises whose own nursery is cancelled before it is entered. Nobody but the fault `cancel` can
do that; what is looked at is that it ends that connection alone."""


class Logged(logging.Handler):
    """Takes the log while the block lasts.

    Args:
      fail: is told which invariant did not hold, and what was seen.
      expected: exceptions that may be logged, besides what is raised on purpose.
      on_text: is called with each message.
    """

    def __init__(
        self,
        fail: Callable[[str, str], object],
        *expected: type[Exception],
        on_text: Callable[[str], object] = lambda text: None,
    ) -> None:
        super().__init__(logging.WARNING)
        self._fail = fail
        self._expected: tuple[type[Exception], ...] = (Deliberate, *expected)
        self._on_text = on_text
        self._logger = logging.getLogger("trio_ws")

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = record.getMessage()
        self._on_text(text)
        if record.exc_info and not isinstance(record.exc_info[1], self._expected):
            trace = self.format(record)
            if UNENTERED not in trace:
                self._fail("nothing fails inside", f"{text}\n{trace}")
        elif "reports a mistake" in text and "nack" not in text:
            self._fail("a real client makes no mistakes", text)

    def __enter__(self) -> None:
        self._before = (self._logger.propagate, self._logger.level)
        self._logger.addHandler(self)
        self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before[0]
