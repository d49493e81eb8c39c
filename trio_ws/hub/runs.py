"""The desk for runs: opens and ends them, takes users' answers and cancels, and sees to it that each has its end.

A run ends by its publisher, or when that one is gone: its block is over, its lease has lapsed (`look`), or the process
died in which it ran (`adopt`). The terminal event, and what closes open calls and questions before it, are never
refused: they come in beyond the bounds, `MAX_CALLS` + `MAX_QUESTIONS` + 2 a run at the most.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from ..core.entry import FIRM
from ..core.mailbox import Mailbox
from ..core.run_grammar import CANCELLING_EVENT, COMPLETED, LOST, STARTED, TOOL_COMPLETED, digest_of
from ..core.run_view import CANCELLING
from ..core.runs import Run, Runs
from ..errors import (
    IllegalTransition,
    InvalidEvent,
    MessageRejected,
    RunEnded,
    StoreUnavailable,
    UnknownRun,
)
from ..event import Message
from .intake import check_name
from .parcel import Parcel
from .receipt import Receipt
from .run import RunHandle, ToolCall, check_lease, outcome_of

if TYPE_CHECKING:
    from .publisher import Publisher

logger = logging.getLogger(__name__)

AGAIN: Final = 1.0
"""Seconds after which a run that should have ended, and could not since its user's log can't be read, is tried
again."""

OUTCOMES: Final = ("completed", "failed", "cancelled")


class RunDesk:
    """All runs of a hub.

    Args:
      publisher: what accepts their events.

    Attributes:
      handles: the one of each open run.
      opened, answered_count: how many runs were opened, and questions answered by users, since the start.
      ended: how many runs ended, by outcome.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.intake = publisher.intake
        self.handles: dict[Run, RunHandle] = {}
        self.opened = self.answered_count = 0
        self.ended = dict.fromkeys((*OUTCOMES, "lost"), 0)
        self._engine = engine = publisher.engine
        self._books = engine.buffer.runs
        self.clock = engine.clock
        self.unix = engine.unix
        self.fresh_id = engine.fresh_id
        self.arm = engine.arm

    # -- finding

    def box(self, user: str) -> Mailbox | None:
        """The log of `user`, where it is in memory."""
        return self._engine.buffer.mailboxes.get(user)

    def can_tell(self, handle: RunHandle) -> bool:
        """Whether the log of a run's user is in memory, and the hub takes what is to be told of the run."""
        return self.box(handle.user) is not None and not self._engine.closed

    async def find(self, user: str, run_id: str) -> RunHandle | None:
        """The run of this id, open or ended; None where none is known."""
        runs = await self._runs(user)
        run = None if runs is None else runs.get(run_id)
        if run is None:
            return None
        return self.handles.get(run) or RunHandle(self, user, run)

    async def snapshots(self, user: str) -> list[dict[str, Any]]:
        """All runs of `user` that are known."""
        runs, box = await self._runs(user), self.box(user)
        if runs is None or box is None:
            return []
        return [{"run": view.run, **view.payload()} for view in runs.views(box.safe)]

    async def _runs(self, user: str) -> Runs | None:
        check_name(user, "user")
        await trio.lowlevel.checkpoint()
        await self.publisher.load(user)
        return self._books.users.get(user)

    # -- opening

    @asynccontextmanager
    async def run(
        self,
        user: str,
        run_id: str | None,
        *,
        name: str | None = None,
        parent: str | None = None,
        input: Any = None,
    ) -> AsyncIterator[RunHandle]:
        """See `Hub.run`."""
        handle = await self.open(user, run_id, name=name, parent=parent, input=input, lease=None)
        scope = handle._scope = trio.CancelScope()
        if handle.cancelling:  # since before its beginning was durable
            scope.cancel()
        try:
            with scope:
                yield handle
        except BaseException as error:
            outcome, told = outcome_of(error)
            await self._end_block(handle, outcome, told and (handle._error or told))
            raise
        if scope.cancelled_caught:
            await self._end_block(handle, "cancelled", None)
        elif handle._error is not None:
            await self._end_block(handle, "failed", handle._error)
        else:
            await self._end_block(handle, "completed", None)

    async def open(
        self,
        user: str,
        run_id: str | None,
        *,
        name: str | None,
        parent: str | None,
        input: Any,
        lease: float | None,
    ) -> RunHandle:
        """Open a run; see `Hub.open_run`. Where this raises, a block's run that was accepted ends at once."""
        run_id = self.fresh_id() if run_id is None else run_id
        for field, value in (("run", run_id), ("name", name), ("parent", parent)):
            if value is not None:
                check_name(value, field)
        check_name(user, "user")
        lease = None if lease is None else check_lease(lease)
        payload = {"name": name, "parent": parent, "input": input}
        parcel = _parcel(STARTED, run_id)
        await self.intake.encode_any(parcel, {k: v for k, v in payload.items() if v is not None})
        parcel.lease = lease
        runs = await self._runs(user)
        known = None if runs is None else runs.get(run_id)
        if known is not None and not known.ended:
            return await self._open_again(user, known, parcel)
        try:
            receipt = await self.publisher.submit(user, parcel, commit=False)
        except IllegalTransition:
            known = self._books.of(user).get(run_id)
            if known is None or known.ended:
                raise
            return await self._open_again(user, known, parcel)  # it was opened while this waited for room
        run = self._books.of(user).get(run_id)
        assert run is not None
        self.opened += 1
        handle = self.handle(user, run)
        try:
            with handle.busy():
                if receipt.to_be_committed:
                    await receipt.committed()
        except BaseException:
            if lease is not None:  # asked for again, it is this one; else its lease lapses
                raise
            self._try_to_end(handle, self._ending(handle, "cancelled", None, None))
            raise
        return handle

    async def _open_again(self, user: str, run: Run, parcel: Parcel) -> RunHandle:
        """A run is to be opened that is open: it is this one, if it was opened so."""
        if parcel.lease is None or run.lease is None or run.digest != digest_of(parcel.encoded):
            raise IllegalTransition(run.id, STARTED, "the run is open already, and was opened otherwise")
        handle = self.handle(user, run)
        handle.renew(parcel.lease)
        with handle.busy():
            await self.settled(user)
        return handle

    def handle(self, user: str, run: Run) -> RunHandle:
        """The handle of a run."""
        handle = self.handles.get(run)
        if handle is None:
            handle = RunHandle(self, user, run)
            if not run.ended:
                self.handles[run] = handle
        return handle

    # -- ending

    async def _end_block(self, handle: RunHandle, outcome: str, error: dict[str, Any] | None) -> None:
        """The block of a run is over: end it, whatever has become of it, and of the task that it ran in."""
        failure: InvalidEvent | None = None
        try:
            ending = self._ending(handle, outcome, handle.result if outcome == "completed" else None, error)
        except InvalidEvent as invalid:  # its result has no JSON form, or is too large
            failure = invalid
            ending = self._ending(handle, "failed", None, {"kind": type(invalid).__name__})
        receipt = self._try_to_end(handle, ending)
        with trio.move_on_after(self._engine.config.drain_timeout, shield=True):
            while receipt is None and not handle.outcome and not self._engine.closed:
                await self._load(handle.user)
                receipt = self._try_to_end(handle, ending)
            if receipt is not None:
                await self._commit(receipt)
        if failure is not None:
            raise failure

    async def _load(self, user: str) -> None:
        """Have the log of `user` here; where the store fails, some time passes."""
        try:
            await self.publisher.load(user)
        except StoreUnavailable:
            await trio.sleep(AGAIN)

    async def _commit(self, receipt: Receipt) -> None:
        try:
            await receipt.committed()
        except StoreUnavailable:
            logger.warning("a run has ended, and that is not durable yet", extra={"user": receipt.user})

    async def close(
        self, handle: RunHandle, outcome: str, result: Any, error: dict[str, Any] | None
    ) -> Receipt:
        """See `RunHandle.close`."""
        run = handle._run
        if outcome not in OUTCOMES:
            raise InvalidEvent(f"outcome must be one of {', '.join(OUTCOMES)}", field="outcome")
        _check_error(error)
        ending = self._ending(handle, outcome, result, error)
        await trio.lowlevel.checkpoint()
        await self.publisher.load(handle.user)
        if run.ended:
            if run.outcome != outcome:
                raise RunEnded(run.id, COMPLETED, f"the run is {run.outcome}")
            receipt = self.publisher.receipt(handle.user, run.ended_id, run.ended_seq)
        else:
            receipt = self._end(handle, ending)
        await receipt.committed()
        return receipt

    def _ending(self, handle: RunHandle, outcome: str, result: Any, error: dict[str, Any] | None) -> Parcel:
        """The terminal event of a run that ends by its publisher.

        Raises:
          InvalidEvent: `result` or `error` has no JSON form, or is too large.
        """
        payload: dict[str, Any] = {"outcome": outcome, "duration": self._age(handle._run)}
        if result is not None:
            payload["result"] = result
        if error is not None:
            payload["error"] = error
        return self.worded(COMPLETED, handle, payload)

    def _lost(self, handle: RunHandle, reason: str) -> Parcel:
        payload = {"outcome": "lost", "duration": self._age(handle._run), "reason": reason}
        return self.worded(LOST, handle, payload)

    def _try_to_end(self, handle: RunHandle, ending: Parcel) -> Receipt | None:
        """End a run now, if its user's log is here; where it is not, that is tried again until it is."""
        if handle.outcome or self._engine.closed:
            return None
        if self.box(handle.user) is not None:
            return self._end(handle, ending)
        handle.ending = ending
        self.arm(handle, self.clock() + AGAIN)
        return None

    def _end(self, handle: RunHandle, ending: Parcel) -> Receipt:
        """End a run, whose user's log is here: what is open in it is closed, and then comes `ending`."""
        run = handle._run
        for number, (tool, _) in list(run.calls.items()):
            self._put_call(handle, number, tool, "cancelled", None, None)
        handle.questions.close_all()
        receipt = self.publisher.put(handle.user, ending)
        assert run.outcome is not None
        self.ended[run.outcome] += 1
        self.handles.pop(run, None)
        self._engine.timers.disarm(handle)
        handle._cancelling.set()
        return receipt

    def close_call(
        self, handle: RunHandle, call: ToolCall, outcome: str, error: dict[str, Any] | None
    ) -> Receipt | None:
        """A call of a tool is over; None where that can't be told any more, since its run has ended."""
        run = handle._run
        if call.number not in run.calls or not self.can_tell(handle):
            return None
        try:
            return self._put_call(handle, call.number, call.name, outcome, call.result, error)
        except InvalidEvent as invalid:
            told = {"kind": type(invalid).__name__}
            self._put_call(handle, call.number, call.name, "failed", None, told)
            raise

    def _put_call(
        self,
        handle: RunHandle,
        number: int,
        tool: str,
        outcome: str,
        output: Any,
        error: dict[str, Any] | None,
    ) -> Receipt:
        since = handle._run.calls[number][1]
        payload = {
            "call": number,
            "tool": tool,
            "outcome": outcome,
            "duration": round(max(0.0, self._engine.wall_clock() - since), 6),
        }
        if output is not None and outcome == "completed":
            payload["output"] = output
        if error is not None:
            payload["error"] = error
        parcel = self.worded(TOOL_COMPLETED, handle, payload)
        parcel.call = number
        return self.publisher.put(handle.user, parcel)

    def worded(self, type: str, handle: RunHandle, payload: dict[str, Any]) -> Parcel:
        """A critical event of a run, as the hub words it."""
        parcel = _parcel(type, handle.id)
        self.intake.encode(parcel, payload)
        return parcel

    def _age(self, run: Run) -> float:
        return round(max(0.0, self._engine.wall_clock() - run.started), 6)

    # -- time

    def look(self, handle: RunHandle, now: float) -> float:
        """Close what has passed its time; returns when to look again."""
        if handle.outcome or handle.moved or self._engine.closed:
            return math.inf
        if self.box(handle.user) is None:
            self.publisher.loader.load_soon(handle.user)
            return now + AGAIN
        if handle.ending is not None:
            self._end(handle, handle.ending)
            return math.inf
        handle.questions.expire(now)
        lapses = math.inf
        if handle.lease is not None:
            if handle._busy:
                handle._renewed = now
            lapses = handle._renewed + handle.lease
            if lapses <= now:
                self._end(handle, self._lost(handle, "lease"))
                return math.inf
        return min(lapses, *handle.questions.expiring.values()) if handle.questions.expiring else lapses

    # -- another process, and the end of this one

    def adopt(self, box: Mailbox) -> None:
        """The log of a user came from the store: runs that a block of another process ran are lost; leased ones go on,
        with all of their lease before them."""
        for run in [] if box.runs is None else box.runs.open:
            if run in self.handles:
                continue
            handle = self.handle(box.user, run)
            if run.lease is None:
                self._end(handle, self._lost(handle, "crash"))
                continue
            handle.renew()
            if run.state == CANCELLING:
                handle._cancelling.set()
            for question, asked in run.questions.items():
                if (expires := asked.get("expires")) is not None:
                    handle.questions.expire_at(
                        question, self.clock() + max(0.0, expires - self._engine.wall_clock())
                    )

    def drop(self, user: str) -> None:
        """The log of `user` is another process's: that one goes on with its leased runs. Those whose blocks are here it
        ends as lost, as it can't know of them."""
        for run in self._books.users.get(user) or ():
            handle = self.handles.pop(run, None)
            if handle is not None:
                self._engine.timers.disarm(handle)
                handle.move()

    async def recover(self, users: Iterable[str]) -> None:
        """Have the logs of users looked at whose runs were open when the store was left, so that nobody waits."""
        left = list(users)
        while left:
            for user in list(left):
                try:
                    await self.publisher.load(user)
                    left.remove(user)
                except StoreUnavailable:
                    logger.warning("a user's runs can't be looked after yet", extra={"user": user})
            if left:
                await trio.sleep(AGAIN)

    def last_words(self) -> None:
        """The hub ends: of runs whose blocks have not, nobody will ever hear again."""
        for handle in list(self.handles.values()):
            if handle.lease is None and self.box(handle.user) is not None:
                self._end(handle, self._lost(handle, "crash"))

    def touch(self, handle: RunHandle) -> None:
        """What a store keeps of a run has changed without an event."""
        box = self.box(handle.user)
        if box is not None and box.track is not None:
            box.track.run_changed(handle.id)

    # -- what users say

    async def cancel(self, user: str, run_id: str, reason: str | None) -> None:
        """See `Hub.cancel_run`."""
        await self._runs(user)
        self._cancel(user, run_id, reason, "operator")
        await self.settled(user)

    def _cancel(self, user: str, run_id: str, reason: str | None, by: str) -> None:
        """Have a run stop, whose user's log is here."""
        if reason is not None and (not isinstance(reason, str) or len(reason) > 1024):
            raise InvalidEvent("reason must be a text of at most 1024 characters", field="reason")
        runs = self._books.users.get(user)
        run = None if runs is None else runs.get(run_id)
        if run is None:
            raise UnknownRun(run_id)
        if run.ended:
            raise RunEnded(run.id, CANCELLING_EVENT, f"the run is {run.outcome}")
        if run.state == CANCELLING:
            return
        handle = self.handle(user, run)
        payload = {"by": by} if reason is None else {"reason": reason, "by": by}
        self.publisher.put(user, self.worded(CANCELLING_EVENT, handle, payload))
        handle._cancelling.set()
        if handle._scope is not None:
            handle._scope.cancel()

    def check_question_id(self, user: str, question: str) -> None:
        """Refuse an id that a question of another run of this user has, as far as is known."""
        for run in self._books.users.get(user) or ():
            if question in run.questions or question in run.closed:
                raise IllegalTransition(run.id, "question_asked", f"{question!r} was asked before")

    async def settled(self, user: str) -> None:
        """Wait until all of the log of `user` so far is durable. A checkpoint.

        Raises:
          StoreUnavailable: that takes too long.
        """
        await trio.lowlevel.checkpoint()
        box, durability = self.box(user), self._engine.durability
        if box is not None and durability is not None:
            await durability.wait(box, box.head)

    def answered(self, user: str, session: str, message: Message) -> None:
        """A user's ``agent_answer``: the first valid one counts, on whichever tab.

        Raises:
          MessageRejected: in a word.
        """
        payload = message.payload if isinstance(message.payload, dict) else {}
        question = payload.get("question")
        if not isinstance(question, str) or "answer" not in payload:
            raise MessageRejected("invalid_answer")
        for run in self._books.users.get(user) or ():
            if question in run.questions:
                handle = self.handle(user, run)
                if not handle.questions.takes(question, payload["answer"]):
                    raise MessageRejected("invalid_answer")
                run.won(question, (session, message.id))
                handle.questions.close(question, "answered", payload["answer"])
                self.answered_count += 1
                return
            if (closed := run.closed.get(question)) is not None and closed.outcome == "answered":
                if run.winner(question) != (session, message.id):
                    raise MessageRejected("already_answered")
                return
        raise MessageRejected("unknown_question")

    def cancelled(self, user: str, session: str, message: Message) -> None:
        """A user's ``agent_cancel``.

        Raises:
          MessageRejected: in a word.
        """
        payload = message.payload if isinstance(message.payload, dict) else {}
        try:
            self._cancel(user, str(payload.get("run")), payload.get("reason"), "user")
        except UnknownRun:
            raise MessageRejected("unknown_run") from None
        except RunEnded:
            raise MessageRejected("run_ended") from None
        except InvalidEvent:
            raise MessageRejected("invalid_reason") from None

    def stats(self) -> dict[str, Any]:
        """What there is to tell of runs."""
        return {
            "open": self._books.open,
            "known": len(self._books),
            "opened": self.opened,
            **self.ended,
            "illegal": self._books.illegal,
            "questions_open": sum(len(handle._run.questions) for handle in self.handles.values()),
            "questions_answered": self.answered_count,
        }


def _parcel(type: str, run: str) -> Parcel:
    """The parcel of a critical event of a run, its payload still to come."""
    parcel = Parcel(type, None, FIRM, True, None, False, None)
    parcel.run = run
    return parcel


def _check_error(error: Any) -> None:
    if error is None:
        return
    if not isinstance(error, dict) or not error.keys() <= {"kind", "message"}:
        raise InvalidEvent("error must have a kind, and may have a message", field="error")
    check_name(error.get("kind"), "error.kind")
    message = error.get("message")
    if message is not None and (not isinstance(message, str) or len(message) > 1024):
        raise InvalidEvent("error.message must be a text of at most 1024 characters", field="error.message")
