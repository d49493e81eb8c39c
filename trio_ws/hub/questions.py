"""The questions of a run: asked, and then answered, withdrawn or expired; whoever waits for one is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from ..core.answers import check_question, is_valid
from ..core.run_grammar import ASKED, CLOSED, Closed
from ..core.runs import Run
from ..errors import InvalidEvent, OwnedElsewhere, QuestionClosed, QuestionExpired
from .intake import check_name

if TYPE_CHECKING:
    from .run import RunHandle
    from .runs import RunDesk

MAX_TIMEOUT: Final = 7 * 86400.0
"""Seconds that a question may wait for its answer at most, where it has a timeout."""


class Questions:
    """Those of one run. What its publisher does with them is told of in `RunHandle`.

    Attributes:
      expiring: when open ones expire, on the hub's clock.
    """

    def __init__(self, desk: RunDesk, handle: RunHandle, run: Run) -> None:
        self.expiring: dict[str, float] = {}
        self._desk = desk
        self._handle = handle
        self._run = run
        self._waited_for: dict[str, trio.Event] = {}
        self._converters: dict[str, Callable[[Any], Any]] = {}

    async def ask(
        self, prompt: str, choices: Sequence[str] | None, schema: Any, timeout: float | None
    ) -> Any:
        """See `RunHandle.ask`."""
        question = await self.open(prompt, None, choices, schema, timeout)
        try:
            closed = await self.wait_closed(question)
        except BaseException:
            self.close(question, "withdrawn")
            raise
        if closed.outcome == "expired":
            raise QuestionExpired(question, closed.outcome)
        if closed.outcome != "answered":
            raise QuestionClosed(question, closed.outcome)
        convert = self._converters.pop(question, None)
        return closed.answer if convert is None else convert(closed.answer)

    async def open(
        self,
        prompt: str,
        question: str | None,
        choices: Sequence[str] | None,
        schema: Any,
        timeout: float | None,
    ) -> str:
        """See `RunHandle.open_question`."""
        desk, handle = self._desk, self._handle
        is_unknown = question is None
        if question is None:
            question = desk.fresh_id()
        check_name(question, "question")
        schema, convert = _schema_of(schema)
        check_question(prompt, choices, schema if convert is None else None)
        _check_timeout(timeout)
        payload: dict[str, Any] = {"question": question, "prompt": prompt}
        if choices is not None:
            payload["choices"] = list(choices)
        if schema is not None:
            payload["schema"] = schema
        deadline = math.inf
        if timeout is not None:
            deadline = desk.clock() + timeout
            payload["expires"] = desk.unix(deadline)
        parcel = desk.worded(ASKED, handle, payload)
        parcel.question = question
        desk.check_question_id(handle.user, question)
        if convert is not None:
            self._converters[question] = convert
        with handle.busy():
            receipt = await desk.publisher.submit(handle.user, parcel, commit=False)
            if timeout is not None:
                self.expire_at(question, deadline)
            try:
                await receipt.committed()
            except BaseException:
                if is_unknown:
                    self.close(question, "withdrawn")
                raise
        return question

    def expire_at(self, question: str, deadline: float) -> None:
        """Have an open question expire, on the hub's clock."""
        self.expiring[question] = deadline
        self._desk.arm(self._handle, deadline)

    def expire(self, now: float) -> None:
        """Close those whose time is over."""
        for question, at in list(self.expiring.items()):
            if at <= now:
                self.close(question, "expired")

    def takes(self, question: str, answer: Any) -> bool:
        """Whether an answer to an open question is valid, and of its type, where it has one."""
        if not is_valid(answer, self._run.questions[question]):
            return False
        convert = self._converters.get(question)
        if convert is not None:
            try:
                convert(answer)
            except (ValueError, TypeError):
                return False
        return True

    def find(self, question: str) -> Closed | None:
        """See `RunHandle.question`."""
        if question in self._run.questions:
            return None
        return self._run.closed[question]

    async def wait_closed(self, question: str) -> Closed:
        """See `RunHandle.wait_closed`."""
        while (closed := self.find(question)) is None:
            if self._handle.moved:
                raise OwnedElsewhere(self._handle.user)
            event = self._waited_for.setdefault(question, trio.Event())
            await event.wait()
        await self._desk.settled(self._handle.user)
        return closed

    def close(self, question: str, outcome: str, answer: Any = None) -> None:
        """A question is closed, unless it is already, or its user's log has left memory."""
        self.expiring.pop(question, None)
        if question not in self._run.questions or not self._desk.can_tell(self._handle):
            return
        payload = {"question": question, "outcome": outcome}
        if outcome == "answered":
            payload["answer"] = answer
        parcel = self._desk.worded(CLOSED, self._handle, payload)
        parcel.question = question
        self._desk.publisher.put(self._handle.user, parcel)
        if (event := self._waited_for.pop(question, None)) is not None:
            event.set()

    def close_all(self) -> None:
        """The run ends: those that are open are withdrawn."""
        for question in list(self._run.questions):
            self.close(question, "withdrawn")

    def move(self) -> None:
        """The log is another node's by now: whoever waits here is told so."""
        waited_for, self._waited_for = self._waited_for, {}
        for event in waited_for.values():
            event.set()


def _check_timeout(timeout: Any) -> None:
    if timeout is not None and not (
        isinstance(timeout, int | float) and not isinstance(timeout, bool) and 0 < timeout <= MAX_TIMEOUT
    ):
        raise InvalidEvent(f"timeout must be a number of seconds up to {MAX_TIMEOUT:g}", field="timeout")


def _schema_of(schema: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """The JSON schema to tell, and what converts an answer, where it is a type."""
    if schema is None or isinstance(schema, dict):
        return schema, None
    try:
        told = msgspec.json.schema(schema)
    except TypeError as error:
        raise InvalidEvent(f"schema: {error!s:.200}", field="schema") from None
    return told, lambda answer: msgspec.convert(answer, schema)
