"""The wire protocol's frames as they are read: from bytes to typed values. docs/protocol.md is the contract.

A server reads with `decode_client`, a client with `decode_server`; both are pure. An `ack` is by far the most
frequent frame that comes in. It costs one pass of a typed decoder and a count of its quotes, which shows that
nothing is in it that needs a closer look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, NoReturn, TypeAlias

import attrs
import msgspec

from ..errors import RemoteError
from . import payload as payloads

MISTAKES_TO_CLOSE: Final = 10
"""The mistake on one connection, counted from 1, that closes it."""

MAX_SEQ: Final = 2**63 - 1
"""The highest `seq` that is taken from a client: what a database holds in one column."""

_Seq: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class NotAFrame(RemoteError):
    """A message that is no frame and no batch of frames: it ends the connection with 4400.

    Attributes:
      reason: in words of ours; nothing of the message is quoted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@attrs.frozen
class Mistake:
    """An object that is no frame we know: answered by an `error` that is not fatal, and otherwise ignored.

    Attributes:
      reason: in words of ours; nothing of the object is quoted.
      kind: its `t`, where that is a kind of frame that we know.
    """

    reason: str
    kind: str | None


# --- Client to server --------------------------------------------------------------------------------


class _Frame(msgspec.Struct, tag_field="t", tag=str.lower, frozen=True, gc=False):
    QUOTES: ClassVar[int] = -1
    """How many quotes its shortest form has; each further key brings two more. -1: always look closely."""

    def quotes(self) -> int:
        """How many quotes its text has if it holds no key twice, no unknown key, and no escaped quote."""
        return self.QUOTES


class Hello(_Frame, frozen=True, rename={"from_": "from"}):
    """The first frame: who comes, and where to go on."""

    token: str | None = None
    user: str | None = None
    session: str | None = None
    epoch: str | None = None
    seq: _Seq | None = None
    from_: Literal["retained", "pending", "now", "snapshot"] = "retained"


class Ack(_Frame, frozen=True):
    """Everything up to `seq` was processed."""

    QUOTES = 6
    seq: _Seq


class Nack(_Frame, frozen=True):
    """The handler failed on `seq`."""

    QUOTES = 6
    seq: _Seq


class Message(_Frame, frozen=True):
    """From a user to the application. `payload` is JSON that is known to decode, in a copy of its own."""

    id: _Name
    type: _Name
    payload: msgspec.Raw

    def __post_init__(self) -> None:
        try:
            payloads.decode(self.payload)
        except ValueError as error:
            raise ValueError(f"payload {error}") from None
        # A Raw is a view that would keep the whole message alive.
        msgspec.structs.force_setattr(self, "payload", self.payload.copy())

    def quotes(self) -> int:
        return 14 + bytes(self.payload).count(b'"')


class Auth(_Frame, frozen=True):
    """A fresh token."""

    QUOTES = 8
    token: str


class Ping(_Frame, frozen=True):
    """A client's sign of life that asks for one."""

    QUOTES = 4


class Pong(_Frame, frozen=True):
    """A sign of life, from either side."""

    QUOTES = 4


class Bye(_Frame, frozen=True):
    """The session ends for good."""

    QUOTES = 4


ClientFrame: TypeAlias = Hello | Ack | Nack | Message | Auth | Ping | Pong | Bye

_LARGE: Final = 1024
"""Characters of a message for which it is seen beforehand that there is memory."""

_client = msgspec.json.Decoder[Any](ClientFrame | Annotated[list[ClientFrame], msgspec.Meta(min_length=1)])
_client_one = msgspec.json.Decoder[ClientFrame](ClientFrame)
_CLIENT_KINDS = frozenset(("hello", "ack", "nack", "message", "auth", "ping", "pong", "bye"))


def decode_client(data: bytes | str) -> list[ClientFrame | Mistake]:
    """The frames in one message from a client, in order; at least one.

    An object that is no frame is a `Mistake` in its place: an unknown `t`, a key that is missing, ill-typed
    or there twice. What follows the `MISTAKES_TO_CLOSE`-th mistake is left out: the connection is closed by
    then. Unknown keys are ignored. In a payload, as in JavaScript, the last of several equal keys counts.

    Raises:
      NotAFrame: it is not JSON in UTF-8, or neither an object nor a non-empty array of objects.
    """
    if len(data) > _LARGE:
        payloads.require_memory(len(data))
    try:
        found = _client.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        found = None
    quotes = data.count('"' if type(data) is str else b'"')  # type: ignore[arg-type]
    if type(found) is list:
        if sum([frame.quotes() for frame in found]) == quotes:
            return found
    elif found is not None and found.quotes() == quotes:
        return [found]
    return _look_closely(data)


def _look_closely(data: bytes | str) -> list[ClientFrame | Mistake]:
    """As `decode_client`, for what is not beyond doubt: it tells a mistake from what is no frame at all."""
    frames: list[ClientFrame | Mistake] = []
    mistakes = 0
    for text, item in _objects(data):
        kind = item.get("t")
        kind = kind if isinstance(kind, str) and kind in _CLIENT_KINDS else None
        if isinstance(item, _Doubled):
            frame: ClientFrame | Mistake = Mistake("a key is there twice", kind)
        elif kind is None:
            frame = Mistake("unknown t" if "t" in item else "t is missing", None)
        else:
            try:
                frame = _client_one.decode(text)
            except msgspec.ValidationError as error:
                frame = Mistake(_explain(kind, error), kind)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                frame = Mistake(f"{kind}: half of a surrogate pair, or nested too deeply", kind)
        frames.append(frame)
        mistakes += type(frame) is Mistake
        if mistakes == MISTAKES_TO_CLOSE:
            break
    return frames


def split(data: bytes | str) -> list[bytes]:
    """The text of each frame in one message.

    Raises:
      NotAFrame: as `decode_client`.
    """
    return [text.encode() for text, _ in _objects(data)]


def _explain(kind: str, error: msgspec.ValidationError) -> str:
    text = str(error)
    # The one message of msgspec's that quotes the value, which may be anything.
    return "hello: from must be retained, pending, now or snapshot" if "enum" in text else f"{kind}: {text}"


class _Doubled(dict[str, Any]):
    """An object that has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(pairs)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Here only the shape matters: as a float, a number of 10,000 digits is no work.
_scanner = json.JSONDecoder(object_pairs_hook=_object, parse_int=float, parse_constant=_no_number)
_SPACE = " \t\r\n"


def _objects(data: bytes | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text and the value of each object in a message that is one object or a non-empty array of them."""
    try:
        text = data if isinstance(data, str) else str(data, "utf-8")
        text = text.strip(_SPACE)
        value, end = _scanner.raw_decode(text)
    except UnicodeError:
        raise NotAFrame("not UTF-8") from None
    except ValueError:
        raise NotAFrame("not JSON") from None
    except RecursionError:
        raise NotAFrame("nested too deeply") from None
    if end != len(text):
        raise NotAFrame("not JSON")
    if isinstance(value, dict):
        yield text, value
        return
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise NotAFrame("neither an object nor a batch of objects")
    position = 0
    for item in value:
        start = text.index("{", position)  # between two objects there is only space and a comma
        _, position = _scanner.raw_decode(text, start)
        yield text[start:position], item


# --- Server to client --------------------------------------------------------------------------------


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """In how many seconds a frame comes, while it matters and while it does not, and the grace on top."""

    active: float
    idle: float
    grace: float


class AckRule(msgspec.Struct, frozen=True, gc=False):
    """At the latest after so many events, or so many seconds after the first, a client acks."""

    events: int
    delay: float


class Welcome(msgspec.Struct, frozen=True, tag_field="t", tag="welcome"):
    """Answers `hello`."""

    session: str
    epoch: str
    seq: _Seq
    head: _Seq
    resumed: bool
    heartbeat: Heartbeat
    ack: AckRule
    expires: float | None = None


class MergedFrom(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """An event stands for itself and the `n` before it, from `from_` on."""

    from_: _Seq
    n: _Seq


class EventFrame(msgspec.Struct, frozen=True, tag_field="t", tag="event"):
    """One event; `run` where it is one of an agent's run."""

    seq: _Seq
    id: str
    type: str
    payload: Any
    ts: float
    critical: bool = False
    retry: int = 0
    merged: MergedFrom | None = None
    truncated: bool = False
    run: str | None = None


class GapFrame(msgspec.Struct, frozen=True, tag_field="t", tag="gap", rename={"first": "from", "last": "to"}):
    """Seqs that will not come. What is lost of the runs in `snapshots` is in these, which follow right behind."""

    first: _Seq
    last: _Seq
    reason: str
    lost: dict[str, int]
    critical: int
    snapshots: tuple[str, ...] = ()
    healed: int = 0


class SnapshotFrame(msgspec.Struct, frozen=True, tag_field="t", tag="snapshot"):
    """A run as it stands with everything up to `seq`. It has no place in the accounting."""

    seq: _Seq
    run: str
    payload: Any
    ts: float


class StandingFrame(msgspec.Struct, frozen=True, tag_field="t", tag="standing"):
    """The questions that wait for the user. It has no place in the accounting."""

    seq: _Seq
    questions: list[Any]


class Live(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="live"):
    """The replay is over."""

    seq: _Seq


class Accepted(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="accepted"):
    """A message was taken."""

    id: str


class Rejected(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="rejected"):
    """A message was refused."""

    id: str
    error: str


class ServerPing(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="ping"):
    """The server's heartbeat: its head, and within how many seconds the next frame comes."""

    seq: _Seq
    next: float


class Drain(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="drain"):
    """The server goes away: come back after a random time in this range of seconds."""

    after: tuple[float, float]


class ErrorFrame(msgspec.Struct, frozen=True, gc=False, tag_field="t", tag="error"):
    """What went wrong; `fatal` says that the close follows."""

    code: int
    reason: str
    fatal: bool
    retry_after: float | None = None


ServerFrame: TypeAlias = (
    Welcome
    | EventFrame
    | GapFrame
    | SnapshotFrame
    | StandingFrame
    | Live
    | Accepted
    | Rejected
    | ServerPing
    | Pong
    | Drain
    | ErrorFrame
)

_server = msgspec.json.Decoder[Any](ServerFrame | Annotated[list[ServerFrame], msgspec.Meta(min_length=1)])
_server_one = msgspec.json.Decoder[ServerFrame](ServerFrame)
_SERVER_KINDS = frozenset(
    ("welcome", "event", "gap", "snapshot", "standing", "live", "accepted", "rejected")
    + ("ping", "pong", "drain", "error")
)


def decode_server(data: bytes | str) -> list[ServerFrame]:
    """The frames in one message from a server, in order.

    Frames of an unknown kind are skipped, unknown keys ignored: a later version may send them.

    Raises:
      NotAFrame: the message, or one frame of it, is not this protocol.
    """
    try:
        found = _server.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        found = None
    if found is not None:
        return found if type(found) is list else [found]
    objects = list(_objects(data))
    if not all(isinstance(item.get("t"), str) for _, item in objects):
        raise NotAFrame("t is missing or no string")
    try:
        return [_server_one.decode(text) for text, item in objects if item["t"] in _SERVER_KINDS]
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise NotAFrame("a key is missing or ill-typed") from None
