"""What callers send, read within bounds: names in paths, bodies, the query."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from ..config import KIB
from ..core.payload import require_memory
from ..errors import InvalidEvent
from ..hub import Hub
from ..hub.intake import check_name
from .answers import ApiError, quoted

T = TypeVar("T")
Call: TypeAlias = Callable[[Request], Awaitable[Any]]

BODY_TIMEOUT: Final = 10.0
"""Seconds within which the body of a single call is there."""

MAX_REVOKE: Final = 366 * 86_400.0
"""Seconds for which a user can be revoked."""

HOP: Final = "trio_ws.hop"
"""What the scope of a call has that another node has forwarded: it is answered here, or not at all."""

ROOM_FOR_NAMES: Final = KIB
"""Bytes by which a body, or a line of one, may have grown where it was forwarded."""

_PLAIN_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,20}")
_AT_FIELD = re.compile(r" - at `\$\.(\w+)")
_NAMED_FIELD = re.compile(r"field `(.*)`", re.DOTALL)


def route(path: str, **calls: Call) -> Route:
    """One route for the calls of a path, by their methods, so that `Allow` names them all."""

    async def call(request: Request) -> Any:
        method = "GET" if request.method == "HEAD" else request.method
        return await calls[method](request)

    return Route(path, call, methods=list(calls))


def name_in_path(request: Request, field: str) -> str:
    """A name that the path holds percent-encoded.

    Raises:
      ApiError: 422, for what is no name.
    """
    try:
        name = unquote_to_bytes(request.path_params[field]).decode()
        check_name(name, field)
    except UnicodeDecodeError:
        raise ApiError(422, "invalid", f"{field} must be UTF-8, percent-encoded", field=field) from None
    except InvalidEvent as error:
        raise ApiError(422, "invalid", str(error), field=field) from None
    return name


async def read_body(request: Request, limit: int) -> bytearray:
    """The whole body, at most `limit` bytes as it was sent, within `BODY_TIMEOUT`. A checkpoint; cancelled, what came
    is lost.

    Raises:
      ApiError: 413 if it is larger, 408 if it takes longer.
      ClientDisconnect: the client went away first.
    """
    if HOP in request.scope:
        limit += ROOM_FOR_NAMES
    if declared_length(request) > limit:
        raise too_large(limit)
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT):
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large(limit)
            if not message.get("more_body", False):
                return body
    raise ApiError(408, "request_timeout", f"the body did not come within {BODY_TIMEOUT:g} s")


def declared_length(request: Request) -> int:
    """What the head says of the body's size; 0 where it says nothing."""
    return int(request.headers.get("content-length", 0))


def too_large(limit: int) -> ApiError:
    """The refusal of a body, or a line of one, over `limit` bytes."""
    return ApiError(413, "too_large", f"larger than {limit} bytes")


def decode(decoder: msgspec.json.Decoder[T], data: bytes | bytearray) -> T:
    """The JSON `data` as what `decoder` is for, strictly: unknown keys and wrong types are mistakes.

    Raises:
      ApiError: 400 for what is not JSON, 422 for what is other JSON.
    """
    require_memory(len(data))
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        field = _field_of(str(error))
        raise ApiError(422, "invalid", quoted(str(error)), field=field and quoted(field)) from None
    except RecursionError:
        raise ApiError(400, "not_json", "nested too deeply") from None
    except ValueError as error:  # msgspec's DecodeError is one, and what is not UTF-8
        raise ApiError(400, "not_json", f"not JSON: {quoted(str(error))}") from None


def _field_of(message: str) -> str | None:
    """The top-level field that a message of msgspec's is about."""
    found = _AT_FIELD.search(message) or _NAMED_FIELD.search(message)
    return found[1] if found else None


def check_query(request: Request, *names: str) -> None:
    """Refuse query parameters that there are not: one that was mistyped should not pass for one that was left out.

    Raises:
      ApiError: 422.
    """
    for name in request.query_params:
        if name not in names:
            raise ApiError(422, "invalid", "there is no such query parameter", field=quoted(name))


def wants_cluster(request: Request, hub: Hub, *names: str) -> bool:
    """Whether ``?scope=cluster`` asks for all nodes; else it is this one alone.

    Args:
      names: what the query may have besides; ``*`` for anything.

    Raises:
      ApiError: 422 for another scope, for the cluster where there is none, and for parameters that there are not.
    """
    if names != ("*",):
        check_query(request, "scope", *names)
    scope = request.query_params.get("scope", "node")
    if scope not in ("node", "cluster"):
        raise ApiError(422, "invalid", "scope can only be node or cluster", field="scope")
    if scope == "cluster" and hub.cluster is None:
        raise ApiError(422, "invalid", "this server is no node of a cluster", field="scope")
    return scope == "cluster"


def number_in_query(request: Request, name: str, default: int | None, high: int) -> int | None:
    """A whole number from 1 to `high` in the query; `default` where it is not there.

    Raises:
      ApiError: 422 for anything else.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if not _WHOLE_NUMBER.fullmatch(given) or not 1 <= int(given) <= high:
        raise ApiError(422, "invalid", f"{name} must be a whole number from 1 to {high}", field=name)
    return int(given)


def seconds_to_wait(request: Request, what: str) -> float | None:
    """For how many seconds ``?wait=WHAT&timeout=…`` asks to wait, with 5 as the default; None if it does not.

    Raises:
      ApiError: 422 for another `wait`, a `timeout` that is not above 0 and at most 60, and parameters that there
        are not: one that was mistyped should not pass for one that was left out.
    """
    check_query(request, "wait", "timeout")
    query = request.query_params
    if query.get("wait", what) != what:
        raise ApiError(422, "invalid", f"wait can only be {what}", field="wait")
    given = query.get("timeout", "5")
    timeout = float(given) if _PLAIN_NUMBER.fullmatch(given) else math.nan
    if not 0 < timeout <= 60:
        raise ApiError(
            422, "invalid", "timeout must be a number of seconds above 0, at most 60", field="timeout"
        )
    return timeout if "wait" in query else None


def seconds_to_revoke(request: Request) -> float:
    """For how many seconds ``?revoke=…`` asks to revoke; 0 if it does not.

    Raises:
      ApiError: 422 for what is not above 0 and at most `MAX_REVOKE`, and for other parameters.
    """
    check_query(request, "revoke")
    given = request.query_params.get("revoke")
    if given is None:
        return 0.0
    seconds = float(given) if _PLAIN_NUMBER.fullmatch(given) else math.nan
    if not 0 < seconds <= MAX_REVOKE:
        raise ApiError(
            422,
            "invalid",
            f"revoke must be a number of seconds above 0, at most {MAX_REVOKE:.0f}",
            field="revoke",
        )
    return seconds
