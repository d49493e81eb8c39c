"""The publisher for asyncio and Trio, through anyio. What a run does beside its owner's calls, tasks of its own do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal, TypeVar

import anyio
import httpx

from ..errors import RemoteError, TrioWSError
from ..event import Priority
from . import events
from .calls import Steps
from .ending import ending_of, failure
from .events import Accepted
from .script import Script, Watchers, answer_of, question_body
from .transport import AsyncCaller
from .waiting import AGAIN, ENOUGH, LINGER, MAX_WAITING

T = TypeVar("T")

GRACE: Final = 5.0
"""Seconds in which a block that is cancelled may tell how it ended."""


class AsyncPublisher:
    """Publishes to a server over HTTP, under asyncio or Trio.

    Everything that is sent bears an id, so that it is sent again where no answer came, and is there once. Cancelling a
    call leaves open whether it was done.

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
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._caller = AsyncCaller(url, api_key, timeout, client)
        self._retries = retries
        self._watched = Watchers()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Runs that are open lose their lease."""
        await self._caller.aclose()

    async def publish(
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
        return await self._caller.drive(events.publish(user, body, wait, self._retries))

    async def publish_many(self, many: Iterable[Mapping[str, Any]]) -> list[Accepted]:
        """Publishes many events, in order: far cheaper than one by one.

        Args:
          many: each with `user`, `type`, and what else `publish` takes but `wait`.

        Raises:
          BatchRefused: some were refused; its `results` tell which. All others are published.
          InvalidEvent: a payload has no JSON form; some that stand before it are published.
          Unreachable: there was no answer; some may be published.
        """
        return await self._caller.drive(events.publish_many(many, self._retries))

    def run(
        self,
        user: str,
        run_id: str | None = None,
        *,
        name: str | None = None,
        parent: str | None = None,
        input: Any = None,
        lease: float = 30.0,
    ) -> AbstractAsyncContextManager[AsyncRun]:
        """A run, for an ``async with`` block: opened as it begins, ended with it, whatever happens.

        Where the block is left by an exception the run has failed; it passes on. Where a cancel was asked for, the
        block is cancelled, and ends quietly, as one of a cancel scope does. Where it is cancelled from outside, it
        takes `GRACE` seconds at most to tell so. Where this process dies the server tells the user after `lease` that
        the agent is lost.

        Args:
          user: who watches.
          run_id: its id, unique for the user; None makes one.
          name: what the user sees it as.
          parent: the id of the run that it is a part of.
          input: what it works on: anything that has a JSON form.
          lease: seconds without a sign of life after which it counts as lost, 1 to 3600. Signs are given by a task:
            don't block the event loop for as long.

        Raises, as the block begins: as `publish`; `TooManyRuns`. At its end: `RunLost` where the run ended before.
        """
        told = {"name": name, "parent": parent, "input": input}
        return AsyncRun(self._caller, Script(user, run_id, lease, self._retries, told), self._watched).play()


class AsyncRun:
    """A run while its block lasts. Its calls raise `RunLost` where the server knows no such run any more.

    Attributes:
      result: what it came to: told at its end.
    """

    def __init__(self, caller: AsyncCaller, script: Script, watched: Watchers) -> None:
        self.result: Any = None
        self._caller = caller
        self._script = script
        self._watched = watched
        self._error: dict[str, Any] | None = None
        self._sending = anyio.Lock()
        self._scope = anyio.CancelScope()
        self._added, self._enough = anyio.Event(), anyio.Event()
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

    async def publish(
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
        """Publishes an event in this run, behind all that was said before. Arguments as `AsyncPublisher.publish`'s.

        Raises:
          IllegalTransition: the grammar of runs has no place for it here.
        """
        self._raise_failure()
        options = {"id": id, "priority": priority, "key": key, "merge": merge, "ttl": ttl, "confirm": confirm}
        return await self._play(self._script.publish(type, payload, options))

    async def think(self, text: str) -> None:
        """Tells what the agent thinks."""
        await self.publish("agent_thinking", {"text": text})

    async def delta(self, text: str) -> None:
        """A piece of the answer as it is written. It is sent with the others of the next 50 ms, by another task.

        Waits only where much is waiting. A checkpoint.
        """
        await self._add_text(text, None)

    def delta_nowait(self, text: str) -> None:
        """As `delta`, from what can't wait, such as the callback of a framework.

        Raises:
          anyio.WouldBlock: too much waits to be sent.
        """
        self._raise_failure()
        if self._script.waiting.size >= MAX_WAITING:
            raise anyio.WouldBlock
        self._script.waiting.add_text(text)
        self._wake()

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """How far it is, 0 to 1. Only the last word on it is sent, within 50 ms. A checkpoint."""
        self._raise_failure()
        self._script.add_progress(fraction, message)
        self._wake()
        await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def tool(self, name: str, input: Any = None) -> AsyncIterator[AsyncTool]:
        """A call of a tool, for an ``async with`` block: told as it begins, and how it ended, whatever happens."""
        self._raise_failure()
        tool = AsyncTool(self, await self._play(self._script.begin_tool(name, input)))
        started = anyio.current_time()

        def end(outcome: str, error: dict[str, Any] | None) -> Steps[None]:
            took = anyio.current_time() - started
            return self._script.end_tool(tool.call, name, took, outcome, tool.result, error)

        try:
            yield tool
        except BaseException as exc:
            with anyio.move_on_after(GRACE, shield=True):
                try:
                    await self._play(end(*ending_of(exc, _cancelled())))
                except TrioWSError as failure:
                    exc.add_note(f"The end of tool {name} could not be told: {failure}")
            raise
        await self._play(end("completed", None))

    async def ask(
        self,
        prompt: str,
        *,
        choices: Sequence[Any] | None = None,
        schema: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Asks the user, and waits until they have answered, on whichever tab. Cancelled, the question is taken back.

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
        self._raise_failure()
        question = events.new_id()
        try:
            await self._play(self._script.ask(question, question_body(prompt, choices, schema, timeout)))
            while (told := await self._caller.drive(self._script.hear(question)))["state"] == "open":
                pass
        except BaseException:
            with anyio.move_on_after(GRACE, shield=True):
                await self._caller.drive(self._script.withdraw(question))
            raise
        return answer_of(question, told, schema)

    def run(
        self,
        run_id: str | None = None,
        *,
        name: str | None = None,
        input: Any = None,
        lease: float | None = None,
    ) -> AbstractAsyncContextManager[AsyncRun]:
        """A run within this one, for an ``async with`` block; see `AsyncPublisher.run`."""
        script = self._script.child(run_id, lease, {"name": name, "input": input})
        return AsyncRun(self._caller, script, self._watched).play()

    def fail(self, kind: str, message: str | None = None) -> None:
        """The run has failed, in these words, whether or not an exception leaves the block: told at its end."""
        self._error = failure(kind, message)

    @asynccontextmanager
    async def play(self) -> AsyncIterator[AsyncRun]:
        """Opens the run, and ends it with the block."""
        await self._play(self._script.open())
        self._script.on_change = self._scope.cancel
        of_block, of_tasks = _Caught(), _Caught()
        with of_tasks:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep)
                tasks.start_soon(self._flush)
                with of_block:
                    async with self._told():
                        yield self
                tasks.cancel_scope.cancel()
        # The task group is no business of the caller's: what left the block goes on as it was.
        failure = of_block.exc
        if failure is None or isinstance(failure, _cancelled()):
            failure = of_tasks.exc or failure
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """Tells how the block ended."""
        outcome, error = "cancelled", None
        try:
            with self._scope:
                yield
                outcome, error = "completed" if self._error is None else "failed", self._error
        except BaseException as exc:
            outcome, error = ending_of(exc, _cancelled(), self._error)
            await self._close_within_grace(outcome, error, exc)
            raise
        if self._script.lost is None:
            try:
                await self._close(outcome, error)
            except _cancelled() as exc:
                await self._close_within_grace(outcome, error, exc)
                raise
        self._raise_failure()

    async def _close_within_grace(
        self, outcome: str, error: dict[str, Any] | None, exc: BaseException
    ) -> None:
        if self._script.lost is not None:
            return
        with anyio.move_on_after(GRACE, shield=True):
            try:
                await self._close(outcome, error)
            except TrioWSError as failure:
                exc.add_note(self._script.note(failure))

    async def _close(self, outcome: str, error: dict[str, Any] | None) -> None:
        await self._play(self._script.close(outcome, self.result, error))

    def _raise_failure(self) -> None:
        """Raise how the run is known to be lost, or what deltas were refused with, which nobody waited for."""
        failure, self._failure = self._script.lost or self._failure, None
        if failure is not None:
            raise failure

    async def _add_text(self, text: str, call: int | None) -> None:
        self._raise_failure()
        if self._script.waiting.size >= MAX_WAITING:
            await self._play(self._script.flush())
        self._script.waiting.add_text(text, call)
        self._wake()
        await anyio.lowlevel.checkpoint()

    async def _play(self, steps: Steps[T]) -> T:
        async with self._sending:
            return await self._caller.drive(steps)

    def _wake(self) -> None:
        """Something waits for the flusher."""
        self._added.set()
        if self._script.waiting.size >= ENOUGH:
            self._enough.set()

    async def _flush(self) -> None:
        """Sends what waits, as it comes due."""
        while True:
            await self._added.wait()
            with anyio.move_on_after(LINGER):
                await self._enough.wait()
            self._added, self._enough = anyio.Event(), anyio.Event()
            try:
                await self._play(self._script.flush())
            except RemoteError:  # it is kept; a call that is made meanwhile takes it along, and tells
                await anyio.sleep(AGAIN)
                self._added.set()
            except RuntimeError:  # the client was closed
                return
            except TrioWSError as failure:
                self._failure = failure

    async def _keep(self) -> None:
        """Keeps the run's lease, and hears of a cancel."""
        script, period = self._script, self._script.period
        while script.lost is None:
            began = anyio.current_time()
            try:
                with self._watched.slot(not script.cancelling) as watches:
                    heard = await self._caller.drive(script.heartbeat(watches))
            except RuntimeError:  # the client was closed
                return
            rest = period - (anyio.current_time() - began)
            await anyio.sleep(max(0.0, rest if heard else min(rest, AGAIN)))


class AsyncTool:
    """A call of a tool while its block lasts.

    Attributes:
      call: its number within the run.
      result: what it came to: told at its end.
    """

    def __init__(self, run: AsyncRun, call: int) -> None:
        self.call = call
        self.result: Any = None
        self._run = run

    async def output(self, text: str) -> None:
        """A piece of its output, as it comes; sent as deltas are. A checkpoint."""
        await self._run._add_text(text, self.call)


class _Caught:
    """Keeps what leaves its block, a cancellation too, to be raised a few lines later.

    Attributes:
      exc: what it was.
    """

    exc: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> Literal[True]:
        self.exc = exc
        return True


def _cancelled() -> tuple[type[BaseException], ...]:
    """What stands for a cancellation in this event loop."""
    return (anyio.get_cancelled_exc_class(), KeyboardInterrupt, GeneratorExit)
