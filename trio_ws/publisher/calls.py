"""What is asked of a server, what its answers mean, and when it is asked again.

It is worded once for those who block and those who await: as *steps*, generators that yield what is to be done, a call
or a pause, and are sent what came of it. No step does I/O, reads a clock or waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import attrs
import msgspec

from ..core.backoff import Backoff
from ..errors import ConfirmationTimeout, EventTooLarge, IllegalTransition, InvalidEvent, TooManyRuns
from .errors import Refused, RunLost, Unreachable

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"

LONGEST_PAUSE: Final = 60.0
"""Seconds after which a call is repeated at the latest, whatever the server asks for."""

_TEMPORARY: Final = {429, 502, 503, 504}


@attrs.frozen
class Call:
    """One request.

    Attributes:
      path: percent-encoded.
      body: what goes along.
      wait: seconds that the server is asked to wait with its answer.
    """

    method: str
    path: str
    body: bytes | None = None
    media_type: str = JSON
    params: Mapping[str, Any] = attrs.field(factory=dict)
    wait: float = 0.0


@attrs.frozen
class Pause:
    """So many seconds in which nothing is to be done."""

    seconds: float


@attrs.frozen
class Answer:
    """What the server answered to a call.

    Attributes:
      retry_after: seconds after which to ask again, where the server said so.
    """

    status: int
    body: bytes
    retry_after: float | None = None

    def json(self) -> dict[str, Any]:
        """The JSON object that it is. Raises `Refused`."""
        return self._object(self.body)

    def lines(self, expected: int) -> list[dict[str, Any]]:
        """The JSON objects that it is, one a line. Raises `Refused` where they are not as many as `expected`."""
        found = [self._object(line) for line in self.body.split(b"\n") if line.strip()]
        if len(found) != expected:
            raise Refused(self.status, "not_trio_ws", f"{len(found)} of {expected} lines were answered")
        return found

    def error(self) -> dict[str, Any] | None:
        """What the server refused the call with; None where it did not."""
        if self.status < 400:
            return None
        try:
            error = self.json().get("error")
        except Refused:
            error = None
        if isinstance(error, dict):
            return {**error, "status": self.status}
        return {"code": str(self.status), "message": f"HTTP {self.status}", "status": self.status}

    def _object(self, data: bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(data, type=dict[str, Any])
        except ValueError:
            message = "what answers there is no trio-ws server"
            raise Refused(self.status, "not_trio_ws", message) from None


T = TypeVar("T")
Steps: TypeAlias = Generator[Call | Pause, Answer | Unreachable | None, T]
"""What leads to a T: each call is answered by an `Answer` or `Unreachable`, each pause by None."""


class Patience:
    """How often something is tried again, and after which pauses.

    Args:
      retries: how often, before a failure is final.
    """

    def __init__(self, retries: int) -> None:
        self._retries = self._left = retries
        self._backoff = Backoff(random.Random())

    @property
    def is_exhausted(self) -> bool:
        """Whether the next failure is final."""
        return self._left <= 0

    def pause(self, asked: float | None) -> Pause:
        """The pause before the next try, of at least the seconds that the server has `asked` for."""
        self._left -= 1
        return Pause(max(self._backoff.next_delay(), min(asked or 0.0, LONGEST_PAUSE)))

    def renew(self) -> None:
        """Something went well: the next failure is a first one."""
        if self._left != self._retries:
            self._left = self._retries
            self._backoff = Backoff(random.Random())


def insist(call: Call, patience: Patience) -> Steps[Answer]:
    """Makes `call`, again and again while nobody answers or it is refused for now. It has to bear repetition.

    Raises:
      Unreachable: nobody answered.
      Refused, InvalidEvent, EventTooLarge, ConfirmationTimeout, …: as the server has it.
    """
    while True:
        answer = yield call
        assert answer is not None
        if isinstance(answer, Unreachable):
            failure: Exception = answer
            asked = None
        else:
            error = answer.error()
            if error is None:
                return answer
            failure, asked = refusal(error), answer.retry_after
            if not is_temporary(error):
                raise failure
        if patience.is_exhausted:
            raise failure
        yield patience.pause(asked)


def is_temporary(error: Mapping[str, Any]) -> bool:
    """Whether what was refused with `error` may well be taken later."""
    return error.get("status") in _TEMPORARY and error.get("code") != "confirmation_timeout"


def refusal(error: Mapping[str, Any]) -> Exception:
    """The exception that the `error` of an answer, or of a line of one, stands for."""
    code, message = str(error.get("code")), str(error.get("message"))
    make = _MEANINGS.get(code)
    return Refused(int(error.get("status") or 0), code, message) if make is None else make(error, message)


_MEANINGS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Exception]]] = {
    "invalid": lambda error, message: InvalidEvent(message, field=str(error.get("field"))),
    "event_too_large": lambda error, message: EventTooLarge(message, field=str(error.get("field"))),
    "confirmation_timeout": lambda error, _: ConfirmationTimeout(str(error.get("state"))),
    "illegal_transition": lambda error, message: IllegalTransition(
        str(error.get("run")), str(error.get("type")), message.partition(" now: ")[2] or message
    ),
    "unknown_run": lambda error, message: RunLost(int(error["status"]), "unknown_run", message),
    "run_ended": lambda error, message: RunLost(int(error["status"]), "run_ended", message),
    "too_many_runs": lambda _, message: TooManyRuns(message),
}


def segment(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")
