"""Calls that concern a user whose log another node has: made there, and answered here with what came back.

A call may come to any node; its path says whom it concerns. Where the log is elsewhere the whole call goes there, and
that node's own API answers it. The key was checked here, and what a body may have is held here.

Who has the log may die with the call in its hands. So that the call can be made again, at who has the log next, and be
done once, what it makes is named before it goes: a run, a question, and an event that must be durable get an id where
they have none. An event that need not be, and has none, is not asked for again: whoever has the log next would know
neither that event nor its id.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs
import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import HubClosed, InvalidEvent, StoreUnavailable
from ..hub import Hub
from ..hub.elsewhere import AnswerCall, Elsewhere, HttpAnswer, HttpCall, NoAnswer
from ..hub.intake import check_name
from .answers import ApiError, internal_error, is_for_another, moved
from .events import priority_of, refusals
from .requests import HOP, read_body

logger = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds within which a call is answered, beyond what it asks to wait."""

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
"""Seconds before a call is made again, which grow."""

HEADERS: Final = frozenset(("accept", "content-type"))
"""Those that matter to who answers."""

USERS: Final = "/v1/users/"

_BODILESS: Final = frozenset(("GET", "HEAD", "DELETE"))

_POSTED: Final = re.compile(
    r"/v1/users/[^/]+/(?:(runs|events)|runs/[^/]+/(events|questions|heartbeat|close|cancel))"
)
"""What can be posted to twice, and is done once, where it says what it makes."""

_NAMES: Final = {"runs": "run", "questions": "question"}
"""By which field of its body that is known."""

_TIMEOUT: Final = re.compile(r"(?<=[?&])timeout=[^&]*")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])

Special: TypeAlias = Callable[[Request, str, Elsewhere], Awaitable[ASGIApp | None]]
"""Answers a call for a user who is elsewhere in a way of its own, or says None."""


class Forward:
    """ASGI middleware of a node: has calls for users who are elsewhere answered there.

    Args:
      app: answers all others.
      hub: the node's.
      max_body: bytes that a body may have.
      special: asked first.
    """

    def __init__(self, app: ASGIApp, hub: Hub, *, max_body: int, special: Special) -> None:
        self._app = app
        self._hub = hub
        self._max_body = max_body
        self._special = special

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = None if HOP in scope else _user_of(scope["path"])
        try:
            there = None if user is None else await self._hub.place(user)
        except (StoreUnavailable, HubClosed):
            there = None  # who answers says so, in its words
        if user is None or there is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await self._answer(Request(scope, receive), user, there)
        except ApiError as error:
            response = error.response()
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request, user: str, there: Elsewhere) -> ASGIApp:
        special = await self._special(request, user, there)
        if special is not None:
            return special
        forwarded = await forwardable(self._hub, request, self._max_body)
        return as_response(await ask(self._hub, user, there, forwarded))


@attrs.frozen
class Forwarded:
    """A call as another node is asked to make it.

    Attributes:
      repeatable: it can be made again where it may have been made, and is done once all the same.
    """

    call: HttpCall
    repeatable: bool


async def forwardable(hub: Hub, request: Request, max_body: int) -> Forwarded:
    """A call, to be made elsewhere: what it makes has a name. A checkpoint.

    Raises:
      ApiError, ClientDisconnect: as `read_body`.
    """
    body, repeatable = b"", request.method != "POST"
    if request.method not in _BODILESS:
        body = bytes(await read_body(request, max_body))
    posted = _POSTED.fullmatch(request.scope["path"])
    if request.method == "POST" and posted is not None:
        what = posted[1] or posted[2]
        if what == "events":
            body, repeatable = named_event(hub, body)
        else:
            body, repeatable = named(body, _NAMES[what]) if what in _NAMES else body, True
    call = HttpCall(
        method=request.method,
        target=target_of(request),
        headers=[(name, value) for name, value in request.headers.items() if name in HEADERS],
        body=body,
        timeout=PATIENCE + _wait_of(request),
    )
    return Forwarded(call, repeatable)


def target_of(request: Request) -> str:
    """Path and query of a call, as they came."""
    path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def as_response(answer: HttpAnswer) -> Response:
    """What another node has answered."""
    response = Response(answer.body, answer.status)
    response.raw_headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
    return response


class _Event(msgspec.Struct):
    """What of an event decides whether it is durable."""

    type: str
    id: str | None = None
    priority: Literal["low", "normal", "high", "critical"] | None = None


_event = msgspec.json.Decoder(_Event)


def named_event(hub: Hub, body: bytes) -> tuple[bytes, bool]:
    """The body of an event, with an id where it must be durable and has none; and whether it has one now. What is no
    event is left as it is, for who answers to say so."""
    try:
        event = _event.decode(body)
        if event.id is not None or not hub.commits(event.type, priority_of(event.priority)):
            return body, event.id is not None
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidEvent):
        return body, False
    return named(body, "id"), True


def named(body: bytes, name: str) -> bytes:
    """A body whose field `name` says what it makes; as it was, where it does already, or is no JSON object."""
    try:
        fields = _object.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body
    if bytes(fields.get(name, b"null")) != b"null":
        return body
    fields[name] = msgspec.Raw(msgspec.json.encode(new_name()))
    return msgspec.json.encode(fields)


def new_name() -> str:
    """A name for what has none: it is there once, however often it is asked for."""
    return secrets.token_urlsafe(18)


async def ask(hub: Hub, user: str, there: Elsewhere | None, forwarded: Forwarded) -> HttpAnswer:
    """Have a call answered where the log of its user is, and where that moves, or that node dies, where it is next.

    A checkpoint. Cancelled, it may have been done.

    Raises:
      ApiError: 503, where nobody has answered in time, or it can't be asked again.
    """
    call = forwarded.call
    ends = trio.current_time() + call.timeout
    pause, in_doubt = FIRST_PAUSE, False
    with trio.move_on_at(ends), refusals(hub):
        while True:
            before, in_doubt = in_doubt, True
            try:
                answer = await (answer_here(hub, call) if there is None else there.ask(call))
            except NoAnswer as error:
                in_doubt = before or error.in_doubt
            else:
                if before and call.method == "DELETE" and answer.status == 404:
                    return HttpAnswer(status=204)  # it was done by who did not live to say so
                if answer.status != 503 or not is_for_another(answer.body) or hub.draining:
                    return answer
                in_doubt = before
            if in_doubt and not forwarded.repeatable:
                break
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            there = await hub.place(user)
            call = within(call, ends - trio.current_time())
    raise unanswered() if in_doubt else moved()


async def answer_here(hub: Hub, call: HttpCall) -> HttpAnswer:
    """Have a call answered by this node."""
    assert hub.on_call is not None
    return await hub.on_call(call)


def unanswered(**details: Any) -> ApiError:
    """What is told of a call that a node has taken, and never answered."""
    message = "the node that had the user's log did not answer: it may have been accepted"
    return ApiError(503, "unanswered", message, retry_after=1, **details)


def within(call: HttpCall, seconds: float) -> HttpCall:
    """The same call, with so much time left for its answer, and for what it waits for as much less."""
    wait = max(0.001, seconds - PATIENCE)
    return attrs.evolve(call, target=_TIMEOUT.sub(f"timeout={wait:.3f}", call.target), timeout=seconds)


def answering(app: ASGIApp) -> AnswerCall:
    """What answers the calls that other nodes forward, for `Hub.on_call`: `app`, in this process."""

    async def answer(call: HttpCall) -> HttpAnswer:
        path, _, query = call.target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in call.headers],
            "client": None,
            "server": None,
            HOP: True,
        }
        answered = _Answered(call.body)
        with trio.move_on_after(call.timeout):
            try:
                await app(scope, answered.receive, answered.send)
            except Exception:
                logger.exception("a call of another node failed", extra={"method": call.method})
        return answered.answer()

    return answer


class _Answered:
    """Both ends of a call that comes as a whole, and is answered as a whole."""

    def __init__(self, body: bytes) -> None:
        self._request: bytes | None = body
        self._start: Message | None = None
        self._body = bytearray()
        self._done = False

    async def receive(self) -> Message:
        """The body, once."""
        if self._request is None:
            await trio.sleep_forever()
        body, self._request = self._request, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")
            self._done = not message.get("more_body", False)

    def answer(self) -> HttpAnswer:
        """All of it; where it was cut off, that."""
        if self._start is None or not self._done:
            response = internal_error().response()
            return HttpAnswer(status=500, headers=response.headers.items(), body=bytes(response.body))
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._start["headers"]]
        return HttpAnswer(status=self._start["status"], headers=headers, body=bytes(self._body))


def _user_of(path: str) -> str | None:
    """Whom a path is about; None where that is nobody, or no name."""
    if not path.startswith(USERS):
        return None
    try:
        user = unquote_to_bytes(path[len(USERS) :].partition("/")[0]).decode()
        check_name(user, "user")
    except (UnicodeDecodeError, InvalidEvent):
        return None
    return user


def _wait_of(request: Request) -> float:
    """For how many seconds a call asks to wait; 0 where that makes no sense, which who answers will say."""
    if "wait" not in request.query_params:
        return 0.0
    try:
        return min(60.0, max(0.0, float(request.query_params.get("timeout", "5"))))
    except ValueError:
        return 0.0
