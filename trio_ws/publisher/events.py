"""Events on their way to users, alone and in batches: the steps, and what a publisher is told of each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec

from ..core import payload as payloads
from ..errors import InvalidEvent
from ..event import Priority
from .calls import LINES, Call, Patience, Steps, insist, is_temporary, refusal, segment
from .errors import BatchRefused

MAX_LINES: Final = 500
"""Events that one call carries at most."""

MAX_BYTES: Final = 1024 * 1024
"""Bytes of events from which on a call carries no further one."""

_encode = msgspec.json.encode


@attrs.frozen(kw_only=True)
class Accepted:
    """Where an event is, once the server has it.

    Attributes:
      id: its idempotency key.
      seq, epoch: its place in its user's log.
      state: what has become of it by then: ``held``, ``sent``, ``confirmed``, …: see docs/http.md.
      duplicate: it had been published before, under the same id.
      confirmed_after: seconds until a client had processed it, where that was waited for.
    """

    id: str
    seq: int
    epoch: str
    state: str
    duplicate: bool = False
    confirmed_after: float | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Accepted:
        """What an answer tells."""
        return cls(**{name: body[name] for name in _FIELDS if name in body})


_FIELDS: Final = tuple(field.name for field in attrs.fields(Accepted))


def new_id() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_urlsafe(16)


def event(type: str, payload: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """An event as the wire has it; it has an id, so that it can be sent again.

    Raises:
      InvalidEvent: the payload has no JSON form.
    """
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    priority = given.get("priority")
    if isinstance(priority, Priority):
        given["priority"] = priority.name.lower()
    body = {"type": type, "id": given.pop("id", None) or new_id(), **given}
    if payload is not None:
        body["payload"] = raw(payload)
    return body


def raw(value: Any) -> msgspec.Raw:
    """The JSON of any value that has one, on one line. Raises `InvalidEvent`."""
    data = payloads.encode(value)
    return msgspec.Raw(msgspec.json.format(data, indent=-1) if b"\n" in data else data)


def publish(user: str, body: Mapping[str, Any], wait: float | None, retries: int) -> Steps[Accepted]:
    """Publishes one event; with `wait`, until a client has processed it, for at most so many seconds."""
    params = {} if wait is None else {"wait": "confirmed", "timeout": wait}
    path = f"/v1/users/{segment(user)}/events"
    call = Call("POST", path, encoded(body), params=params, wait=wait or 0.0)
    answer = yield from insist(call, Patience(retries))
    return Accepted.of(answer.json())


def publish_many(events: Iterable[Mapping[str, Any]], retries: int) -> Steps[list[Accepted]]:
    """Publishes many events, in order, in as few calls as are reasonable.

    Raises:
      BatchRefused: some were refused; once all others are published.
      InvalidEvent: a payload has no JSON form, or `user` or `type` is missing; what stands before its batch is
        published.
      Unreachable: nobody answers; what stands before the batch is published, the batch may be.
    """
    results: list[Accepted | Exception] = []
    for batch in _batches(_line(given) for given in events):
        results += yield from send_lines("/v1/events", batch, retries)
    accepted = [result for result in results if isinstance(result, Accepted)]
    if len(accepted) < len(results):
        raise BatchRefused(results)
    return accepted


def send_lines(
    path: str,
    lines: list[bytes],
    retries: int,
    note: Callable[[Mapping[str, Any]], None] = lambda _: None,
    waits: bool = True,
) -> Steps[list[Accepted | Exception]]:
    """Sends JSON lines until each has the server's last word: its place, or what it was refused with.

    Args:
      note: told what is said of each that is accepted.
      waits: send again what is refused for now.
    """
    results: list[Accepted | Exception | None] = [None] * len(lines)
    pending, patience = list(range(len(lines))), Patience(retries)
    while pending:
        answer = yield from insist(Call("POST", path, b"".join(lines[n] for n in pending), LINES), patience)
        bodies = answer.lines(len(pending))
        again: list[int] = []
        asked = 0.0
        for n, body in zip(pending, bodies, strict=True):
            error = body.get("error")
            if error is None:
                results[n] = Accepted.of(body)
                note(body)
                continue
            results[n] = refusal(error)
            if is_temporary(error):
                again.append(n)
                asked = max(asked, float(error.get("retry_after") or 0))
        if len(again) < len(pending):
            patience.renew()
        pending = again
        if pending:
            if patience.is_exhausted or not waits:
                break
            yield patience.pause(asked)
    return [result for result in results if result is not None]


def encoded(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON.

    Raises:
      InvalidEvent: a part of it has no JSON form.
    """
    try:
        return _encode(body)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(str(error), field="") from None


def line(body: Mapping[str, Any]) -> bytes:
    """`body` as one line of JSON."""
    return encoded(body) + b"\n"


def _line(given: Mapping[str, Any]) -> bytes:
    for name in ("user", "type"):
        if name not in given:
            raise InvalidEvent(f"an event of a batch needs a {name}", field=name)
    options = {name: value for name, value in given.items() if name not in ("user", "type", "payload")}
    return line({"user": given["user"], **event(given["type"], given.get("payload"), options)})


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for one in lines:
        batch.append(one)
        size += len(one)
        if len(batch) == MAX_LINES or size >= MAX_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
