"""How a call of a publisher can fail. What a server finds wrong with an event is the error that a hub raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import LocalError, RemoteError

if TYPE_CHECKING:
    from .events import Accepted


class Unreachable(RemoteError):
    """No answer, however often it was asked: the server is away, or the way to it. What was asked may be done."""


class Refused(RemoteError):
    """The server said no, and goes on saying so.

    Attributes:
      status: the HTTP status.
      code: why, for programs: see docs/http.md, "Errors".
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.status = status
        self.code = code


class RunLost(Refused):
    """The server does not know the run, or knows that it has ended: its lease has lapsed, or somebody closed it."""


class RunCancelled(LocalError):
    """A cancel was asked for: raised by each further call of the run. Leave its block: that ends quietly.

    Attributes:
      run: the id of the run that is to end.
    """

    def __init__(self, run: str) -> None:
        super().__init__(f"a cancel of run {run} was asked for")
        self.run = run


class BatchRefused(RemoteError):
    """Some events of a batch were refused; the others are published.

    Attributes:
      results: for each event, in order, its place or what it was refused with.
    """

    def __init__(self, results: Sequence[Accepted | Exception]) -> None:
        refused = [result for result in results if isinstance(result, Exception)]
        super().__init__(f"{len(refused)} of {len(results)} events were refused, the first: {refused[0]}")
        self.results = list(results)
