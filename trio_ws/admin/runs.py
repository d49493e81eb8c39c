"""Runs of agents over HTTP: opened, told of and closed by whoever publishes them, in any language; looked at by anyone.

A run that was opened here lives by its lease: each call for it is a sign of life. A run of this process is its block's:
here it can be looked at, and cancelled. As for single events, no call waits for long for room in the buffer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
import trio
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..core.answers import MAX_CHOICES, MAX_PROMPT
from ..core.run_grammar import Closed
from ..errors import StoreUnavailable
from ..hub import Hub, Receipt, RunHandle
from ..hub.hub import DEFAULT_LEASE
from ..hub.questions import MAX_TIMEOUT
from .answers import ApiError, answer, retry_after
from .batch import BatchAnswer, has_lines, publish_batch
from .events import EventBody, Events, Line, Name, accepted, as_line, committed, options, refusals
from .requests import (
    HOP,
    ROOM_FOR_NAMES,
    check_query,
    decode,
    name_in_path,
    read_body,
    route,
    seconds_to_wait,
)

ROOM_TIMEOUT: Final = 2.0
"""Seconds within which a run is opened, or a question asked."""

Lease = Annotated[float, Meta(ge=1, le=3600, description="Seconds that it outlives the last sign of life.")]


class RunBody(msgspec.Struct, forbid_unknown_fields=True):
    """A run as it is opened."""

    run: Name | None = None
    name: Name | None = None
    parent: Name | None = None
    input: Any = None
    lease: Lease = DEFAULT_LEASE


class HeartbeatBody(msgspec.Struct, forbid_unknown_fields=True):
    """A sign of life; with `lease`, for how long it is good from now on."""

    lease: Lease | None = None


class ErrorBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a run failed of, for its user's eyes."""

    kind: Name
    message: Annotated[str, Meta(max_length=1024)] | None = None


class CloseBody(msgspec.Struct, forbid_unknown_fields=True):
    """How a run ended."""

    outcome: Literal["completed", "failed", "cancelled"]
    result: Any = None
    error: ErrorBody | None = None


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why a run is to stop, for its user's eyes."""

    reason: Annotated[str, Meta(max_length=1024)] | None = None


class QuestionBody(msgspec.Struct, forbid_unknown_fields=True):
    """A question to the user: answered by one of `choices`, by what `schema` describes, or by any JSON."""

    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT)]
    question: Name | None = None
    choices: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=256)]],
            Meta(min_length=1, max_length=MAX_CHOICES, extra_json_schema={"uniqueItems": True}),
        ]
        | None
    ) = None
    schema: dict[str, Any] | None = None
    timeout: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT, description="Seconds.")] | None = None


BODIES: Final = (RunBody, HeartbeatBody, CloseBody, CancelBody, QuestionBody)

_run_decoder = msgspec.json.Decoder(RunBody)
_event_decoder = msgspec.json.Decoder(EventBody)
_heartbeat_decoder = msgspec.json.Decoder(HeartbeatBody)
_close_decoder = msgspec.json.Decoder(CloseBody)
_cancel_decoder = msgspec.json.Decoder(CancelBody)
_question_decoder = msgspec.json.Decoder(QuestionBody)


class RunCalls:
    """The calls that concern the runs of `hub`; `events` has the bounds of what is published."""

    def __init__(self, hub: Hub, events: Events) -> None:
        self._hub = hub
        self._events = events

    def routes(self) -> list[Route]:
        """Where the calls are."""
        run = "/v1/users/{user}/runs/{run}"
        return [
            route("/v1/users/{user}/runs", GET=self.list, POST=self.open),
            route(run, GET=self.look),
            route(f"{run}/events", POST=self.publish),
            route(f"{run}/heartbeat", POST=self.heartbeat),
            route(f"{run}/close", POST=self.close),
            route(f"{run}/cancel", POST=self.cancel),
            route(f"{run}/questions", POST=self.ask),
            route(f"{run}/questions/{{question}}", GET=self.hear, DELETE=self.withdraw),
        ]

    async def open(self, request: Request) -> Response:
        """A run begins: 201; 200 where it had, and is open."""
        user = name_in_path(request, "user")
        check_query(request)
        body = decode(_run_decoder, await self._body(request))
        self._events.spend(user)
        known = None
        async with self._within_time():
            if body.run is not None:
                known = await self._hub.find_run(user, body.run)
            run = await self._hub.open_run(
                user, body.run, name=body.name, parent=body.parent, input=body.input, lease=body.lease
            )
        told = {"run": run.id, "seq": run.seq, "epoch": run.epoch, "lease": run.lease, "expires": run.expires}
        return answer({**told, "duplicate": known is not None}, 201 if known is None else 200)

    async def list(self, request: Request) -> Response:
        """All known runs of a user, as they stand."""
        user = name_in_path(request, "user")
        check_query(request)
        with refusals(self._hub):
            return answer({"runs": await self._hub.runs(user)})

    async def look(self, request: Request) -> Response:
        """One run as it stands; with ``?wait=cancelling``, when it is to stop, has ended, or the time is over."""
        timeout = seconds_to_wait(request, "cancelling")
        run = await self._find(request)
        if timeout is not None:
            with trio.move_on_after(timeout):
                await _first(run.wait_cancelling, self._hub.engine.stopping.wait)
        return answer(run.snapshot())

    async def publish(self, request: Request) -> Response | BatchAnswer:
        """One event of a run, or JSON lines of them."""
        run = await self._find(request, leased=True)
        check_query(request)
        lines = RunLines(self._hub, self._events, run)
        if HOP in request.scope:
            lines.max_body += ROOM_FOR_NAMES
        if has_lines(request):
            return await publish_batch(lambda _: lines, request)
        body = decode(_event_decoder, await self._body(request))
        receipt = await lines.publish(body)
        await committed([receipt], self._hub)
        return answer(_told(receipt, run), 202)

    async def heartbeat(self, request: Request) -> Response:
        """A sign of life; answered as it comes, or with ``?wait=cancelling`` as `look` is, within half the lease."""
        timeout = seconds_to_wait(request, "cancelling")
        run = await self._find(request, leased=True)
        body = decode(_heartbeat_decoder, await self._body(request) or b"{}")
        _check_open(run)
        run.renew(body.lease)
        if timeout is not None:
            assert run.lease is not None
            with trio.move_on_after(min(timeout, run.lease / 2)):
                await _first(run.wait_cancelling, self._hub.engine.stopping.wait)
        return answer(_signs(run))

    async def close(self, request: Request) -> Response:
        """The end of a run; 200 again for the same one."""
        run = await self._find(request, leased=True)
        check_query(request)
        body = decode(_close_decoder, await self._body(request))
        error = None if body.error is None else _given(body.error)
        with refusals(self._hub):
            receipt = await run.close(body.outcome, result=body.result, error=error)
        return answer({**accepted(receipt), "outcome": run.outcome})

    async def cancel(self, request: Request) -> Response:
        """A run is to stop; its publisher hears of it."""
        run = await self._find(request)
        check_query(request)
        body = decode(_cancel_decoder, await self._body(request) or b"{}")
        with refusals(self._hub):
            await self._hub.cancel_run(run.user, run.id, body.reason)
        return answer({"run": run.id, "cancelling": run.cancelling}, 202)

    async def ask(self, request: Request) -> Response:
        """A question to the user: 201; 200 where it had been asked."""
        run = await self._find(request, leased=True)
        check_query(request)
        body = decode(_question_decoder, await self._body(request))
        asked = _given(body)
        if body.question is not None and _knows(run, body.question):
            with refusals(self._hub), run.busy():
                await self._hub.desk.settled(run.user)
            return answer({"question": body.question, "duplicate": True, **_signs(run)})
        self._events.spend(run.user)
        async with self._within_time():
            question = await run.open_question(**asked)
        return answer({"question": question, "duplicate": False, **_signs(run)}, 201)

    async def hear(self, request: Request) -> Response:
        """What has become of a question; with ``?wait=answered``, when it is closed, the run is to stop, or the time is
        over."""
        timeout = seconds_to_wait(request, "answered")
        run, question = await self._find_question(request)
        if timeout is not None:
            with trio.move_on_after(timeout):
                await _first(
                    partial(_wait_closed, run, question), run.wait_cancelling, self._hub.engine.stopping.wait
                )
        closed = _find_closed(run, question)
        told: dict[str, Any] = {"question": question, "state": "open"}
        if closed is not None:
            with refusals(self._hub):
                closed = await run.wait_closed(question)  # that is durable, too
            told["state"] = closed.outcome
            if closed.outcome == "answered":
                told["answer"] = closed.answer
        return answer({**told, "cancelling": run.cancelling})

    async def withdraw(self, request: Request) -> Response:
        """A question is taken back; one that is closed stays as it is."""
        run, question = await self._find_question(request)
        check_query(request)
        with refusals(self._hub):
            await run.withdraw(question)
        return Response(status_code=204)

    async def _body(self, request: Request) -> bytearray:
        return await read_body(request, self._events.max_body)

    async def _find(self, request: Request, *, leased: bool = False) -> RunHandle:
        """The run that the path names.

        Raises:
          ApiError: 404 where it is not known; 409 where it has to be one that lives by a lease, and does not.
        """
        user, name = name_in_path(request, "user"), name_in_path(request, "run")
        with refusals(self._hub):
            run = await self._hub.find_run(user, name)
        if run is None:
            raise ApiError(404, "unknown_run", "no such run of this user is known")
        if leased and run.lease is None:
            message = "the run is this process's own: it can be looked at, and cancelled"
            raise ApiError(409, "illegal_transition", message)
        return run

    async def _find_question(self, request: Request) -> tuple[RunHandle, str]:
        run, question = await self._find(request), name_in_path(request, "question")
        _find_closed(run, question)
        return run, question

    @asynccontextmanager
    async def _within_time(self) -> AsyncIterator[None]:
        """Refuse what finds no room for long.

        Raises:
          ApiError: 503; and what `refusals` does.
        """
        with trio.move_on_after(ROOM_TIMEOUT) as wait, refusals(self._hub):
            yield
        if wait.cancelled_caught:
            durability = self._hub.engine.durability
            with refusals(self._hub):
                if durability is not None and durability.state != "ok":
                    raise StoreUnavailable(durability.reason)
            message = "the buffer is full of events that must not be dropped"
            raise ApiError(503, "buffer_full", message, retry_after=retry_after(self._hub))


class RunLines:
    """Publishes events of one run. Their order holds: behind one that is refused for now, all of a batch are."""

    def __init__(self, hub: Hub, events: Events, run: RunHandle) -> None:
        self.max_body = events.max_body
        self._hub = hub
        self._events = events
        self._run = run
        self._refused: dict[str, Any] | None = None

    async def publish(self, body: EventBody) -> Receipt:
        """Publish one event, without waiting for room, unless that is a commit away. A checkpoint then.

        Raises:
          ApiError: it was refused.
        """
        self._events.spend(self._run.user)
        with refusals(self._hub):
            while True:
                try:
                    return self._run.publish_nowait(body.type, bytes(body.payload), **options(body))
                except trio.WouldBlock:
                    if not await self._hub.landed():
                        raise

    async def publish_line(self, line: bytes) -> Line:
        """The answer to one line of a batch; what is wrong with it is an answer, too."""
        if self._refused is not None:
            return Line(self._refused)
        return await as_line(self._publish_line(line))

    async def _publish_line(self, line: bytes) -> Line:
        try:
            receipt = await self.publish(decode(_event_decoder, line))
        except ApiError as error:
            if error.retry_after is not None:
                self._refused = error.body(status=error.status)
            raise
        return Line(_told(receipt, self._run), [receipt] if receipt.to_be_committed else [])

    async def durable(self, line: Line) -> dict[str, Any]:
        """The answer to a line, once what it tells of is durable."""
        return await self._events.durable(line)


def _told(receipt: Receipt, run: RunHandle) -> dict[str, Any]:
    """What a publisher is told of an event of a run."""
    return {**accepted(receipt), **_signs(run)}


def _signs(run: RunHandle) -> dict[str, Any]:
    """What every answer to the publisher of a run tells."""
    return {"cancelling": run.cancelling, "expires": run.expires}


def _check_open(run: RunHandle) -> None:
    if run.outcome is not None:
        raise ApiError(409, "run_ended", f"the run is {run.outcome}", run=run.id)


def _knows(run: RunHandle, question: str) -> bool:
    try:
        run.question(question)
    except KeyError:
        return False
    return True


def _given(body: msgspec.Struct) -> dict[str, Any]:
    """The fields of `body` that say something."""
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}


def _find_closed(run: RunHandle, question: str) -> Closed | None:
    """What has become of a question; None while it is open.

    Raises:
      ApiError: 404, where it is not known.
    """
    try:
        return run.question(question)
    except KeyError:
        raise ApiError(404, "unknown_question", "no such question of this run is known") from None


async def _wait_closed(run: RunHandle, question: str) -> None:
    """Wait until a question is closed, or forgotten, or can't be made durable; who looks then, is told which."""
    try:
        await run.wait_closed(question)
    except (KeyError, StoreUnavailable):
        pass


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until the first of several waits ends."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)
