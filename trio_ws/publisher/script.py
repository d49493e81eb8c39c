"""A run as it is played over HTTP: which calls there are from its opening to its end, as steps.

One of them is under way at a time (whoever plays it sees to that), but for heartbeats and questions; so a run's events
keep their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, Final

import msgspec

from ..errors import InvalidEvent, QuestionClosed, QuestionExpired, TrioWSError
from .calls import Call, Patience, Pause, Steps, insist, refusal, segment
from .errors import Refused, RunLost, Unreachable
from .events import Accepted, encoded, event, line, new_id, raw, send_lines
from .waiting import Waiting

LONGEST_WAIT: Final = 60.0
"""Seconds that a server may be asked to wait."""

WATCHED: Final = 32
"""Runs of one publisher that hear of a cancel at once; further ones hear of it within a third of their lease."""

ANSWER_WAIT: Final = 20.0
"""Seconds for which one call waits for a user's answer."""

BREATH: Final = 0.1
"""Seconds between two such calls: a server that can't wait is not asked all the time."""


class Script:
    """One run.

    Args:
      user: who watches it.
      run: its id; None makes one.
      lease: seconds that it lives on without a sign of life.
      retries: how often a call is repeated.
      told: what `agent_started` says besides: name, parent, input.

    Attributes:
      id: its id.
      period: seconds between two signs of life.
      waiting: what is sent with the next call.
      cancelling: a cancel was asked for.
      lost: how it is known that the run is no more.
      outcome: how it has ended, as the server has it.
      on_change: called when `cancelling` or `lost` is first so.
    """

    def __init__(
        self, user: str, run: str | None, lease: float, retries: int, told: Mapping[str, Any]
    ) -> None:
        self.user = user
        self.id = run or new_id()
        self.lease = lease
        self.period = min(lease / 3, LONGEST_WAIT)
        self.waiting = Waiting()
        self.cancelling = False
        self.lost: RunLost | None = None
        self.outcome: str | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._retries = retries
        self._told = _given(**told)
        self._runs = f"/v1/users/{segment(user)}/runs"
        self._path = f"{self._runs}/{segment(self.id)}"
        self._closing = False
        self._frozen: list[bytes] = []
        self._token, self._numbers, self._calls = new_id(), itertools.count(1), itertools.count(1)

    def child(self, run: str | None, lease: float | None, told: Mapping[str, Any]) -> Script:
        """A run within this one."""
        parent = {**told, "parent": self.id}
        return Script(self.user, run, self.lease if lease is None else lease, self._retries, parent)

    def open(self) -> Steps[None]:
        """Opens it. Raises what `insist` does, and `InvalidEvent` for an input that has no JSON form."""
        told = {name: raw(value) for name, value in self._told.items()}
        yield from self._ask("POST", self._runs, {"run": self.id, "lease": self.lease, **told})

    def publish(self, type: str, payload: Any, options: Mapping[str, Any]) -> Steps[Accepted]:
        """Sends what waits, and then an event. What `insist` raises, and what it is refused with."""
        own = line(event(type, payload, {"id": self._next_id(), **options}))
        results = yield from self._send([own])
        if isinstance(results[-1], Exception):
            raise results[-1]
        return results[-1]

    def begin_tool(self, tool: str, input: Any) -> Steps[int]:
        """A tool is called; returns the number of the call."""
        call = next(self._calls)
        yield from self.publish("tool_executing", _given(call=call, tool=tool, input=input), {})
        return call

    def end_tool(
        self,
        call: int,
        tool: str,
        duration: float,
        outcome: str,
        output: Any,
        error: Mapping[str, Any] | None,
    ) -> Steps[None]:
        """The call of a tool is over.

        Raises:
          InvalidEvent: its `output` has no JSON form, or is too large: the call has failed.
        """
        told = {"call": call, "tool": tool, "duration": round(duration, 6)}
        if outcome != "completed":
            output = None
        try:
            payload = _given(**told, outcome=outcome, output=output, error=error)
            yield from self.publish("tool_completed", payload, {})
        except InvalidEvent as invalid:
            if output is not None:
                yield from self.publish("tool_completed", {**told, **_failed_of(invalid)}, {})
            raise

    def add_progress(self, fraction: float, message: str | None) -> None:
        """How far it is, to be sent with the next call.

        Raises:
          InvalidEvent: `fraction` is not from 0 to 1, or `message` no text.
        """
        if not 0 <= fraction <= 1 or not isinstance(message, str | None):
            raise InvalidEvent("progress is a fraction, from 0 to 1, and words", field="payload")
        payload = _given(fraction=fraction, message=message)
        raw(payload)  # so that what has no JSON form is told at once
        self.waiting.add_progress(payload)

    def flush(self) -> Steps[None]:
        """Sends what waits, in one try. Where that fails for now, it goes with the next call."""
        yield from self._send([], retries=0)

    def heartbeat(self, watches: bool) -> Steps[bool]:
        """Renews the lease, in one try; returns whether the server has heard of it.

        Args:
          watches: the answer comes when a cancel is asked for, or after a `period`; else at once.
        """
        wait = self.period if watches else 0.0
        params = {"wait": "cancelling", "timeout": wait} if watches else {}
        answer = yield Call("POST", f"{self._path}/heartbeat", b"{}", params=params, wait=wait)
        if answer is None or isinstance(answer, Unreachable):
            return False
        error = answer.error()
        try:
            if error is None:
                self._note(answer.json())
        except Refused:  # that was somebody else
            return False
        if error is not None and isinstance(lost := refusal(error), RunLost) and not self._closing:
            self._lose(lost)
        return error is None

    def close(self, outcome: str, result: Any, error: Mapping[str, Any] | None) -> Steps[None]:
        """Sends what waits, and ends the run, also where what waits is refused. It may be repeated. A run that is cut
        short does not wait for room for its last words: its end has room always.

        Raises:
          RunLost: it has ended otherwise before.
          InvalidEvent: `result` has no JSON form, or is too large: the run has failed.
          InvalidEvent, IllegalTransition, Refused: what waited was refused; the run has ended.
        """
        self._closing = True
        if outcome != "completed":
            result = None
        refused: TrioWSError | None = None
        try:
            yield from self._send([], waits=outcome == "completed")
        except (RunLost, Unreachable):
            raise
        except TrioWSError as failure:
            refused = failure
        try:
            yield from self._end(_given(outcome=outcome, result=result, error=error))
        except InvalidEvent as invalid:
            yield from self._end(_failed_of(invalid))
            refused = invalid
        if refused is not None:
            raise refused

    def _end(self, body: dict[str, Any]) -> Steps[None]:
        if "result" in body:
            body["result"] = raw(body["result"])
        yield from self._ask("POST", f"{self._path}/close", body)
        self.outcome = str(body["outcome"])

    def note(self, failure: Exception) -> str:
        """What is to be added to an exception that left the block, where `failure` came to it at the end."""
        what = "The end of" if self.outcome is None else "Something that was said in"
        return f"{what} run {self.id} could not be told: {failure}"

    def ask(self, question: str, body: Mapping[str, Any]) -> Steps[None]:
        """Sends what waits, and puts a question to the user."""
        yield from self._send([])
        yield from self._ask("POST", f"{self._path}/questions", {"question": question, **body})

    def hear(self, question: str) -> Steps[dict[str, Any]]:
        """What has become of a question, after a while at most: ``state``, and ``answer`` where it has one."""
        params = {"wait": "answered", "timeout": ANSWER_WAIT}
        call = Call("GET", self._question(question), params=params, wait=ANSWER_WAIT)
        answer = yield from insist(call, Patience(self._retries))
        body = answer.json()
        self._note(body)
        if body["state"] == "open" and not self.cancelling:
            yield Pause(BREATH)
        return body

    def withdraw(self, question: str) -> Steps[None]:
        """Takes a question back, in one try: at the end of the run it is gone in any case."""
        yield Call("DELETE", self._question(question))

    def _send(
        self, lines: list[bytes], retries: int | None = None, waits: bool = True
    ) -> Steps[list[Accepted | Exception]]:
        """Sends what waits and then `lines`; returns what became of those.

        Raises:
          RunLost: there is no such run any more.
          Refused, Unreachable: for now; what waits is kept, and goes before all else the next time.
          InvalidEvent, IllegalTransition, …: what waited was refused for good, and is let go.
        """
        if self._frozen:  # the answer to it did not come, or was to come back later
            yield from self._deliver([], retries, waits)
        for type, payload in self.waiting.take():
            self._frozen.append(line(event(type, payload, {"id": self._next_id()})))
        return (yield from self._deliver(lines, retries, waits))

    def _deliver(
        self, lines: list[bytes], retries: int | None, waits: bool
    ) -> Steps[list[Accepted | Exception]]:
        sent = len(self._frozen)
        if not sent and not lines:
            return []
        try:
            results = yield from send_lines(
                f"{self._path}/events",
                [*self._frozen, *lines],
                self._retries if retries is None else retries,
                self._note,
                waits,
            )
            for result in results:
                if isinstance(result, RunLost):
                    raise result
        except RunLost as lost:
            self._lose(lost)
            raise
        refused = [result for result in results[:sent] if isinstance(result, Exception)]
        self._frozen = [
            one for one, result in zip(self._frozen, results, strict=False) if isinstance(result, Refused)
        ]
        if refused:
            raise refused[0]
        return results[sent:]

    def _ask(self, method: str, path: str, body: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        try:
            answer = yield from insist(Call(method, path, encoded(body)), Patience(self._retries))
        except RunLost as lost:
            self._lose(lost)
            raise
        told = answer.json()
        self._note(told)
        return told

    def _note(self, told: Mapping[str, Any]) -> None:
        if told.get("cancelling") and not self.cancelling:
            self.cancelling = True
            self.on_change()

    def _lose(self, lost: RunLost) -> None:
        if self.lost is None and self.outcome is None:
            self.lost, self.outcome = lost, "lost"
            self.on_change()

    def _question(self, question: str) -> str:
        return f"{self._path}/questions/{segment(question)}"

    def _next_id(self) -> str:
        return f"{self._token}-{next(self._numbers)}"


def _given(**values: Any) -> dict[str, Any]:
    """What of `values` is not None."""
    return {name: value for name, value in values.items() if value is not None}


def _failed_of(error: Exception) -> dict[str, Any]:
    return {"outcome": "failed", "error": {"kind": type(error).__name__}}


def question_body(prompt: str, choices: Any, schema: Any, timeout: float | None) -> dict[str, Any]:
    """What is asked; `schema` is a JSON schema already, or a type that msgspec knows."""
    if schema is not None and not isinstance(schema, Mapping):
        schema = msgspec.json.schema(schema)
    choices = None if choices is None else list(choices)
    return _given(prompt=prompt, choices=choices, schema=schema, timeout=timeout)


def answer_of(question: str, told: Mapping[str, Any], schema: Any) -> Any:
    """The answer to a question that is not open any more: of the type that was asked for, or the JSON that it is.

    Raises:
      QuestionClosed: there is none; `QuestionExpired` where it came too late.
    """
    state = str(told["state"])
    if state != "answered":
        raise (QuestionExpired if state == "expired" else QuestionClosed)(question, state)
    answer = told.get("answer")
    return answer if schema is None or isinstance(schema, Mapping) else msgspec.convert(answer, schema)


class Watchers:
    """How many runs of one publisher may hear of a cancel at once: each takes a connection. Any thread may ask."""

    def __init__(self) -> None:
        self._left = BoundedSemaphore(WATCHED)

    @contextmanager
    def slot(self, wanted: bool) -> Iterator[bool]:
        """Whether the run may watch during the block."""
        has = wanted and self._left.acquire(blocking=False)
        try:
            yield has
        finally:
            if has:
                self._left.release()
