"""The publisher for threads: it blocks. What a run does beside its owner's calls is done by daemon threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

import httpx

from ..errors import RemoteError, TrioWSError
from ..event import Priority
from . import events
from .calls import Steps
from .ending import ending_of, failure
from .errors import RunCancelled
from .events import Accepted
from .script import Script, Watchers, answer_of, question_body
from .transport import Caller
from .waiting import AGAIN, ENOUGH, LINGER, MAX_WAITING

T = TypeVar("T")

_CANCELLED: Final = (RunCancelled, KeyboardInterrupt, GeneratorExit)


class Publisher:
    """Publishes to a server over HTTP. Any thread may call it; each call blocks until the server has answered.

    Everything that is sent bears an id, so that it is sent again where no answer came, and is there once.

    Args:
      url: the address of the admin API.
      api_key: the key that it asks for.
      timeout: seconds for one answer.
      retries: how often a call is repeated while the server is away or busy: 8 are some 25 seconds.
      client: what sends the requests, such as one with another certificate; it is not closed here.

    Raises:
      ValueError: `url` is none.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        retries: int = 8,
        client: httpx.Client | None = None,
    ) -> None:
        self._caller = Caller(url, api_key, timeout, client)
        self._retries = retries
        self._watched = Watchers()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Runs that are open lose their lease."""
        self._caller.close()

    def publish(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | Literal["low", "normal", "high", "critical"] | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
        wait: float | None = None,
    ) -> Accepted:
        """Publishes one event to a user.

        Args:
          type, payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`.
          wait: seconds to wait until a client has processed it, at most 60; None does not.

        Raises:
          InvalidEvent, EventTooLarge: mend the event.
          ConfirmationTimeout: it is accepted, and nobody has processed it in time.
          Refused: the server does not want it.
          Unreachable: there was no answer; it may be accepted.
        """
        options = {"id": id, "priority": priority, "key": key, "merge": merge, "ttl": ttl, "confirm": confirm}
        body = events.event(type, payload, options)
        return self._caller.drive(events.publish(user, body, wait, self._retries), time.sleep)

    def publish_many(self, many: Iterable[Mapping[str, Any]]) -> list[Accepted]:
        """Publishes many events, in order: far cheaper than one by one.

        Args:
          many: each with `user`, `type`, and what else `publish` takes but `wait`.

        Raises:
          BatchRefused: some were refused; its `results` tell which. All others are published.
          InvalidEvent: a payload has no JSON form; some that stand before it are published.
          Unreachable: there was no answer; some may be published.
        """
        return self._caller.drive(events.publish_many(many, self._retries), time.sleep)

    def run(
        self,
        user: str,
        run_id: str | None = None,
        *,
        name: str | None = None,
        parent: str | None = None,
        input: Any = None,
        lease: float = 30.0,
    ) -> Run:
        """A run, for a ``with`` block: opened as it begins, ended with it, whatever happens.

        Where the block is left by an exception the run has failed; it passes on. Where a cancel was asked for, the next
        call of the run raises `RunCancelled`, and the block ends quietly. Where this process dies the server tells the
        user after `lease` that the agent is lost.

        Args:
          user: who watches.
          run_id: its id, unique for the user; None makes one.
          name: what the user sees it as.
          parent: the id of the run that it is a part of.
          input: what it works on: anything that has a JSON form.
          lease: seconds without a sign of life after which it counts as lost, 1 to 3600. Signs are given by a thread.

        Raises, as the block begins: as `publish`; `TooManyRuns`.
        """
        told = {"name": name, "parent": parent, "input": input}
        return Run(self._caller, Script(user, run_id, lease, self._retries, told), self._watched)


class Run:
    """A run while its block lasts. Its calls raise `RunCancelled` once a cancel was asked for, and `RunLost`.

    Attributes:
      result: what it came to: told at its end.
    """

    def __init__(self, caller: Caller, script: Script, watched: Watchers, within: Run | None = None) -> None:
        self.result: Any = None
        self._caller = caller
        self._script = script
        self._watched = watched
        self._within = within
        self._error: dict[str, Any] | None = None
        self._sending = Lock()
        self._added, self._enough, self._over = Event(), Event(), Event()
        self._flusher: Thread | None = None
        self._starting = Lock()
        self._failure: TrioWSError | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self._script.id

    @property
    def outcome(self) -> str | None:
        """``completed``, ``failed``, ``cancelled`` or ``lost``, after its end."""
        return self._script.outcome

    @property
    def cancelling(self) -> bool:
        """A cancel was asked for."""
        return self._script.cancelling

    def __enter__(self) -> Run:
        if self._within is not None:
            self._within.check()
        self._play(self._script.open())
        Thread(target=self._keep, name=f"run {self.id}", daemon=True).start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None
    ) -> bool:
        if exc is not None:
            outcome, error = ending_of(exc, _CANCELLED, self._error)
        else:
            outcome, error = "completed" if self._error is None else "failed", self._error
        ours = isinstance(exc, RunCancelled) and exc.run == self.id
        try:
            if self._script.lost is None:
                self._play(self._script.close(outcome, self.result, error))
            if exc is None:
                self._raise_failure()
        except TrioWSError as failure:
            if exc is None or ours:
                raise
            exc.add_note(self._script.note(failure))
        finally:
            self._over.set()
            self._added.set()
            self._enough.set()
        return ours

    def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | Literal["low", "normal", "high", "critical"] | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Accepted:
        """Publishes an event in this run, behind all that was said before. Arguments and errors as `Publisher.publish`.

        Raises:
          IllegalTransition: the grammar of runs has no place for it here.
        """
        self.check()
        options = {"id": id, "priority": priority, "key": key, "merge": merge, "ttl": ttl, "confirm": confirm}
        return self._play(self._script.publish(type, payload, options))

    def think(self, text: str) -> None:
        """Tells what the agent thinks."""
        self.publish("agent_thinking", {"text": text})

    def delta(self, text: str) -> None:
        """A piece of the answer as it is written. It is sent with the others of the next 50 ms, by another thread."""
        self._add_text(text, None)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """How far it is, 0 to 1. Only the last word on it is sent, within 50 ms."""
        self.check()
        self._script.add_progress(fraction, message)
        self._wake()

    @contextmanager
    def tool(self, name: str, input: Any = None) -> Iterator[Tool]:
        """A call of a tool, for a ``with`` block: told as it begins, and how it ended, whatever happens."""
        self.check()
        tool = Tool(self, self._play(self._script.begin_tool(name, input)))
        started = time.monotonic()

        def end(outcome: str, error: dict[str, Any] | None) -> Steps[None]:
            took = time.monotonic() - started
            return self._script.end_tool(tool.call, name, took, outcome, tool.result, error)

        try:
            yield tool
        except BaseException as exc:
            try:
                self._play(end(*ending_of(exc, _CANCELLED)))
            except TrioWSError as failure:
                exc.add_note(f"The end of tool {name} could not be told: {failure}")
            raise
        self._play(end("completed", None))

    def ask(
        self,
        prompt: str,
        *,
        choices: Sequence[Any] | None = None,
        schema: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Asks the user, and blocks until they have answered, on whichever tab.

        Args:
          prompt: the question.
          choices: what can be answered; None leaves it open.
          schema: instead of choices, what an answer looks like: a JSON schema, or a type that msgspec knows, of which
            the answer is one then.
          timeout: seconds after which the question expires; None for none.

        Raises:
          QuestionExpired: nobody answered in time.
          QuestionClosed: it was withdrawn, such as by the end of the run.
        """
        self.check()
        question = events.new_id()
        try:
            self._play(self._script.ask(question, question_body(prompt, choices, schema, timeout)))
            while (told := self._drive(self._script.hear(question)))["state"] == "open":
                self.check()
        except BaseException:
            self._drive(self._script.withdraw(question))
            raise
        return answer_of(question, told, schema)

    def run(
        self,
        run_id: str | None = None,
        *,
        name: str | None = None,
        input: Any = None,
        lease: float | None = None,
    ) -> Run:
        """A run within this one, for a ``with`` block; see `Publisher.run`. A cancel of this one ends it too."""
        script = self._script.child(run_id, lease, {"name": name, "input": input})
        return Run(self._caller, script, self._watched, self)

    def fail(self, kind: str, message: str | None = None) -> None:
        """The run has failed, in these words, whether or not an exception leaves the block: told at its end."""
        self._error = failure(kind, message)

    def check(self) -> None:
        """Raises `RunCancelled` if a cancel was asked for, here or of a run around, or `RunLost`; for long work between
        two calls. What became of deltas is raised here too."""
        if self._within is not None:
            self._within.check()
        self._raise_failure()
        if self._script.cancelling:
            raise RunCancelled(self.id)

    def _raise_failure(self) -> None:
        failure, self._failure = self._script.lost or self._failure, None
        if failure is not None:
            raise failure

    def _add_text(self, text: str, call: int | None) -> None:
        self.check()
        if self._script.waiting.size >= MAX_WAITING:
            self._play(self._script.flush())
        self._script.waiting.add_text(text, call)
        self._wake()

    def _play(self, steps: Steps[T]) -> T:
        with self._sending:
            return self._drive(steps)

    def _drive(self, steps: Steps[T]) -> T:
        return self._caller.drive(steps, time.sleep)

    def _wake(self) -> None:
        """Something waits for the flusher."""
        if self._flusher is None:
            with self._starting:
                if self._flusher is None:
                    self._flusher = Thread(target=self._flush, name=f"run {self.id}: deltas", daemon=True)
                    self._flusher.start()
        self._added.set()
        if self._script.waiting.size >= ENOUGH:
            self._enough.set()

    def _flush(self) -> None:
        """Sends what waits, as it comes due."""
        while True:
            self._added.wait()
            self._enough.wait(LINGER)
            if self._over.is_set() or self._script.lost is not None:
                return
            self._added.clear()
            self._enough.clear()
            try:
                self._play(self._script.flush())
            except RemoteError:  # it is kept; a call that is made meanwhile takes it along, and tells
                self._over.wait(AGAIN)
                self._added.set()
            except RuntimeError:  # the client was closed
                return
            except TrioWSError as failure:
                self._failure = failure

    def _keep(self) -> None:
        """Keeps the run's lease, and hears of a cancel."""
        script, period = self._script, self._script.period
        while not self._over.is_set() and script.lost is None:
            began = time.monotonic()
            try:
                with self._watched.slot(not script.cancelling) as watches:
                    heard = self._drive(script.heartbeat(watches))
            except RuntimeError:  # the client was closed
                return
            rest = period - (time.monotonic() - began)
            self._over.wait(max(0.0, rest if heard else min(rest, AGAIN)))


class Tool:
    """A call of a tool while its block lasts.

    Attributes:
      call: its number within the run.
      result: what it came to: told at its end.
    """

    def __init__(self, run: Run, call: int) -> None:
        self.call = call
        self.result: Any = None
        self._run = run

    def output(self, text: str) -> None:
        """A piece of its output, as it comes; sent as deltas are."""
        self._run._add_text(text, self.call)
