"""A run as an agent holds it: it publishes in it, opens calls of tools, asks the user, and learns that it is to stop.

`Hub.run` gives one whose life is a block; `Hub.open_run` one that lives as long as its lease is renewed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from ..core.entry import CLASS_NORMAL, FIRM
from ..core.run_grammar import (
    DELTA,
    DELTAS,
    EXECUTING,
    OUTPUT,
    PROGRESS,
    RETENTION,
    THINKING,
    Closed,
    check_payload,
)
from ..core.run_view import CANCELLING, FOLDED, RunView
from ..core.runs import Run
from ..errors import (
    IllegalTransition,
    InvalidEvent,
    RunFailed,
)
from ..event import Priority
from .intake import check_name
from .parcel import Parcel
from .questions import Questions
from .receipt import Receipt

if TYPE_CHECKING:
    from .runs import RunDesk

LOST_WITH_NODE: Final = "lost"
"""How a block's run ends whose user's log another node has taken over: that one ends it."""


class RunHandle:
    """One run. Made by `Hub.run`, `Hub.open_run` and `Hub.find_run`.

    Every method that waits is a checkpoint; cancelled, its event was not accepted, or it was already and only its
    commit was waited for. All of them raise `IllegalTransition` where an event has no place in the run as it stands
    (`RunEnded` once it has ended), and what `Hub.publish` raises.

    Attributes:
      user: whose.
      result: goes into the terminal event of a block that completes: any value that has a JSON form.
      ending: its terminal event, where that could not be accepted yet.
      moved: its user's log is another node's by now.
      questions: what it asks its user.
    """

    def __init__(self, desk: RunDesk, user: str, run: Run) -> None:
        self.user = user
        self.result: Any = None
        self._desk = desk
        self._run = run
        self.ending: Parcel | None = None
        self.moved = False
        self._error: dict[str, Any] | None = None
        self._scope: trio.CancelScope | None = None
        self._cancelling = trio.Event()
        self.questions = Questions(desk, self, run)
        self._renewed = desk.clock()
        self._busy = 0

    def __repr__(self) -> str:
        return f"<RunHandle {self.id!r} of {self.user!r}: {self._run.state}>"

    # -- how it stands

    @property
    def id(self) -> str:
        """The run's id, one user's."""
        return self._run.id

    @property
    def seq(self) -> int:
        """Where its ``agent_started`` is in its user's log."""
        return self._run.opened_seq

    @property
    def epoch(self) -> str:
        """Which life of that log; "" while the log is not in memory."""
        box = self._desk.box(self.user)
        return "" if box is None else box.epoch

    @property
    def outcome(self) -> str | None:
        """``completed``, ``failed``, ``cancelled`` or ``lost``; None while it is open."""
        return LOST_WITH_NODE if self.moved and self.lease is None else self._run.outcome

    @property
    def lease(self) -> float | None:
        """Seconds that it outlives the last sign of life of its publisher; None for a block."""
        return self._run.lease

    @property
    def expires(self) -> float | None:
        """When its lease lapses unless it is renewed, in seconds since the Unix epoch; None for a block."""
        return None if self.lease is None else self._desk.unix(self._renewed + self.lease)

    @property
    def cancelling(self) -> bool:
        """It was asked to stop, and has not ended yet."""
        return self._run.state == CANCELLING

    async def wait_cancelling(self) -> None:
        """Wait until it is asked to stop, or has ended, here at least."""
        if self.cancelling or self._run.ended or self.moved:
            await trio.lowlevel.checkpoint()
        else:
            await self._cancelling.wait()

    def snapshot(self) -> dict[str, Any]:
        """It as it stands, as the payload of a ``snapshot`` (docs/runs.md), with its id as ``run``."""
        return {"run": self.id, **self.view().payload()}

    def view(self) -> RunView:
        """It as it stands: what of it may be shown by now."""
        box = self._desk.box(self.user)
        return self._run.view(0 if box is None else box.safe)

    # -- what an agent tells

    async def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """Publish any event in this run; waits for room as `Hub.publish` does.

        Args:
          type: of those in docs/runs.md, the ones that an agent words itself have their own priority, and `payload` is
            checked; or any other type.
          payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`; all but `payload` and `id` for other
            types only.

        Raises:
          InvalidEvent: `payload` is not as `type` has it.
        """
        parcel = self._parcel(type, id, priority, key, merge, ttl, confirm)
        await self._desk.intake.encode_any(parcel, payload)
        self._see_through(parcel)
        return await self._submit(parcel)

    def publish_nowait(
        self,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """As `publish`, without waiting.

        Raises:
          trio.WouldBlock: there is no room now.
        """
        parcel = self._parcel(type, id, priority, key, merge, ttl, confirm)
        self._desk.intake.encode(parcel, payload)
        self._see_through(parcel)
        return self._submit_nowait(parcel)

    async def think(self, text: str) -> Receipt:
        """Say what the agent thinks; a critical event."""
        return await self.publish(THINKING, {"text": text})

    async def delta(self, text: str) -> Receipt:
        """Write on at the answer: clients that are slow get several of these joined into one, and nothing is lost."""
        return await self._submit(self._delta(text))

    def delta_nowait(self, text: str) -> Receipt:
        """As `delta`, without waiting.

        Raises:
          trio.WouldBlock: there is no room now.
        """
        return self._submit_nowait(self._delta(text))

    async def progress(self, fraction: float, message: str | None = None) -> Receipt:
        """Say how far it is, from 0 to 1; a later one takes the place of one that was not sent yet."""
        payload = {"fraction": fraction} if message is None else {"fraction": fraction, "message": message}
        return await self.publish(PROGRESS, payload)

    @asynccontextmanager
    async def tool(self, name: str, input: Any = None) -> AsyncIterator[ToolCall]:
        """Call a tool: ``tool_executing`` on entry, and exactly one ``tool_completed`` on the way out.

        Its outcome is ``failed`` where the block raises, ``cancelled`` where it is cancelled; the exception goes on.
        """
        call, opening = await self._open_call(name, input)
        try:
            await self._committed(opening)
            yield call
        except BaseException as error:
            outcome, told = outcome_of(error)
            self._desk.close_call(self, call, outcome, told)
            raise
        receipt = self._desk.close_call(self, call, "completed", None)
        await self._committed(receipt)

    async def _open_call(self, name: str, input: Any) -> tuple[ToolCall, Receipt]:
        check_name(name, "tool")
        while True:
            call = ToolCall(self, self._run.next_call, name)
            payload = {"call": call.number, "tool": name}
            parcel = self._parcel(EXECUTING)
            await self._desk.intake.encode_any(
                parcel, payload if input is None else payload | {"input": input}
            )
            if call.number != self._run.next_call:  # another has taken it while this was encoded
                continue
            parcel.call = call.number
            self._run.check(EXECUTING, call.number, "")
            try:
                with self.busy():
                    return call, await self._desk.publisher.submit(self.user, parcel, commit=False)
            except IllegalTransition:
                if self._run.ended or call.number == self._run.next_call:
                    raise  # else another has taken it while this waited for room

    def run(
        self, run_id: str | None = None, *, name: str | None = None, input: Any = None
    ) -> AbstractAsyncContextManager[RunHandle]:
        """A run of its own within this one, whose events name this one as its parent; else as `Hub.run`."""
        return self._desk.run(self.user, run_id, name=name, parent=self.id, input=input)

    def fail(self, kind: str, message: str | None = None) -> None:
        """Have the run end as failed, in these words, also where its block raises nothing.

        Args:
          kind: what went wrong, 1 to 128 characters, in the place of an exception's name.
          message: words that the user gets to see.
        """
        check_name(kind, "kind")
        self._error = {"kind": kind} if message is None else {"kind": kind, "message": str(message)[:1024]}

    # -- questions

    async def ask(
        self,
        prompt: str,
        *,
        choices: Sequence[str] | None = None,
        schema: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Ask the user, and wait for the answer: the first valid one, from whichever of the user's tabs.

        The question stands until then: each connection of the user is told of it again. Where this is cancelled, it is
        withdrawn.

        Args:
          prompt: what the user reads.
          choices: texts of which one is the answer.
          schema: what an answer has to be: a type that msgspec knows, which the answer is converted to; or a JSON
            schema of the words in docs/runs.md. Not with `choices`.
          timeout: seconds after which the question expires; None waits for ever.

        Returns: the answer.

        Raises:
          QuestionExpired: nobody answered in time.
          QuestionClosed: it was withdrawn.
        """
        return await self.questions.ask(prompt, choices, schema, timeout)

    async def open_question(
        self,
        prompt: str,
        *,
        question: str | None = None,
        choices: Sequence[str] | None = None,
        schema: Any = None,
        timeout: float | None = None,
    ) -> str:
        """As `ask`, without waiting for the answer.

        Args:
          question: an id for it, which no other question of the user has; None makes one. Where this raises, a question
            with an id of yours may stand; one with an id that was made here is withdrawn.

        Returns: its id, for `wait_closed` and `withdraw`.
        """
        return await self.questions.open(prompt, question, choices, schema, timeout)

    def question(self, question: str) -> Closed | None:
        """What became of a question; None while it is open.

        Raises:
          KeyError: it was never asked, or is forgotten.
        """
        return self.questions.find(question)

    async def wait_closed(self, question: str) -> Closed:
        """Wait until a question is answered, withdrawn or expired, and until that is durable.

        Raises:
          KeyError: it was never asked, or is forgotten.
          OwnedElsewhere: another node has the user's log by now.
        """
        return await self.questions.wait_closed(question)

    async def withdraw(self, question: str) -> None:
        """Withdraw a question; one that is closed already stays as it is."""
        self.questions.close(question, "withdrawn")
        with self.busy():
            await self._desk.settled(self.user)

    # -- the lease, and the end

    def renew(self, lease: float | None = None) -> None:
        """Give a sign of life; each event is one, too.

        Args:
          lease: from now on it is so many seconds, 1 to 3600.
        """
        if lease is not None and self._run.lease is not None:
            self._run.lease = check_lease(lease)
            self._desk.touch(self)
        self._renewed = self._desk.clock()
        if self._run.lease is not None and not self.moved:
            self._desk.arm(self, self._renewed + self._run.lease)

    async def close(
        self, outcome: str = "completed", *, result: Any = None, error: dict[str, Any] | None = None
    ) -> Receipt:
        """End a run that was opened by `Hub.open_run`: what is open in it is closed, then comes its terminal event.

        Args:
          outcome: ``completed``, ``failed`` or ``cancelled``.
          result: what came of it.
          error: ``{"kind": …, "message"?: …}``, for the user's eyes.

        Returns: the receipt of the terminal event. Where it has ended in the same way already, that one's, as a
        duplicate.

        Raises:
          RunEnded: it has ended in another way.
        """
        return await self._desk.close(self, outcome, result, error)

    def move(self) -> None:
        """Its user's log is another node's by now: whoever waits for something of it here is told so."""
        self.moved = True
        self._cancelling.set()
        self.questions.move()

    def on_timer(self, now: float) -> float:
        """Its lease, or a question's time, may be over; returns when to look again."""
        return self._desk.look(self, now)

    # -- parcels

    def _parcel(
        self,
        type: str,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Parcel:
        """The parcel of an event of this run, its payload still to come."""
        if isinstance(type, str) and type in FOLDED:
            for field, given in (("priority", priority), ("key", key), ("merge", merge), ("ttl", ttl)):
                if given is not None:
                    raise InvalidEvent(
                        f"{field} of {type} in a run is not for its publisher to say", field=field
                    )
            if id is not None:
                check_name(id, "id")
            retention = RETENTION[type]
            own_key = None if retention == FIRM else self.id
            parcel = Parcel(type, id, retention, retention == FIRM, own_key, type in DELTAS, None)
        else:
            parcel = self._desk.intake.check(type, id, priority, key, merge, ttl, confirm)
        parcel.run = self.id
        return parcel

    def _see_through(self, parcel: Parcel) -> None:
        """Check an encoded payload against its type."""
        parcel.call = check_payload(parcel.type, parcel.encoded)
        if parcel.type == OUTPUT:
            parcel.key = f"{self.id}/{parcel.call}"

    def _delta(self, text: str) -> Parcel:
        if not isinstance(text, str):
            raise InvalidEvent("a delta is a text", field="payload")
        parcel = Parcel(DELTA, None, CLASS_NORMAL, False, self.id, True, None)
        parcel.run = self.id
        self._desk.intake.encode(parcel, {"text": text})
        return parcel

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Its publisher waits for the hub in this block: meanwhile its lease does not lapse, and then begins anew."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.renew()

    async def _submit(self, parcel: Parcel) -> Receipt:
        self._busy += 1  # as `busy` does, in less time: deltas are many
        try:
            return await self._desk.publisher.submit(self.user, parcel)
        finally:
            self._busy -= 1
            self._renewed = self._desk.clock()

    async def _committed(self, receipt: Receipt | None) -> None:
        with self.busy():
            if receipt is not None:
                await receipt.committed()

    def _submit_nowait(self, parcel: Parcel) -> Receipt:
        self._renewed = self._desk.clock()
        return self._desk.publisher.submit_nowait(self.user, parcel)


class ToolCall:
    """A call of a tool that is under way.

    Attributes:
      number: the call's number in its run.
      name: the tool's.
      result: goes into ``tool_completed`` as its `output`.
    """

    def __init__(self, run: RunHandle, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.result: Any = None
        self._run = run

    async def output(self, text: str) -> Receipt:
        """Tell what the tool writes, as it comes; joined for slow clients."""
        return await self._run.publish(OUTPUT, {"call": self.number, "text": text})


def check_lease(lease: Any) -> float:
    """`lease` as seconds.

    Raises:
      InvalidEvent: it is no number from 1 to 3600.
    """
    if not isinstance(lease, int | float) or isinstance(lease, bool) or not 1 <= lease <= 3600:
        raise InvalidEvent("lease must be a number of seconds from 1 to 3600", field="lease")
    return float(lease)


def outcome_of(error: BaseException) -> tuple[str, dict[str, Any] | None]:
    """How a block ended that raised `error`, and what may be told of that: an exception's kind, never its words."""
    leaves = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled | GeneratorExit)]
    if not leaves:
        return "cancelled", None
    told: dict[str, Any] = {"kind": type(leaves[0]).__name__[:128]}
    if isinstance(leaves[0], RunFailed) and str(leaves[0]):
        told["message"] = str(leaves[0])[:1024]
    return "failed", told


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
