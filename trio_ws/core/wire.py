"""The wire protocol: frames to and from bytes. docs/protocol.md is the contract that this file puts into code.

A server reads with `decode_client` and writes with what is under "Server to client"; a client reads with
`decode_server` and writes with what is under "Client to server". All of it is pure. What is read is made in
`frames.py`, and named here too, so that nobody else need know of two files.

An event is by far the most frequent frame that goes out: its tail is made once, and each frame is a short
head before it. The other hot frames are spliced by hand too; every string goes through a JSON encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from .frames import (
    MAX_SEQ,
    MISTAKES_TO_CLOSE,
    Accepted,
    Ack,
    AckRule,
    Auth,
    Bye,
    ClientFrame,
    Drain,
    ErrorFrame,
    EventFrame,
    GapFrame,
    Heartbeat,
    Hello,
    Live,
    MergedFrom,
    Message,
    Mistake,
    Nack,
    NotAFrame,
    Ping,
    Pong,
    Rejected,
    ServerFrame,
    ServerPing,
    SnapshotFrame,
    StandingFrame,
    Welcome,
    decode_client,
    decode_server,
    split,
)

__all__ = [
    "BARE_EVENT",
    "BYE",
    "MAX_SEQ",
    "MISTAKES_TO_CLOSE",
    "PING",
    "PONG",
    "Accepted",
    "Ack",
    "AckRule",
    "Auth",
    "Bye",
    "ClientFrame",
    "Drain",
    "ErrorFrame",
    "EventFrame",
    "GapFrame",
    "Heartbeat",
    "Hello",
    "Live",
    "MergedFrom",
    "Message",
    "Mistake",
    "Nack",
    "NotAFrame",
    "Ping",
    "Pong",
    "Rejected",
    "ServerFrame",
    "ServerPing",
    "SnapshotFrame",
    "StandingFrame",
    "Start",
    "Welcome",
    "accepted",
    "ack",
    "auth",
    "batch",
    "decode_client",
    "decode_server",
    "drain",
    "error",
    "event_frame",
    "event_tail",
    "gap",
    "hello",
    "live",
    "message",
    "nack",
    "ping",
    "plain_event",
    "rejected",
    "snapshot",
    "split",
    "standing",
    "text_message",
    "welcome",
]

Start: TypeAlias = Literal["retained", "pending", "now", "snapshot"]
"""Where a new session starts."""

# --- Server to client --------------------------------------------------------------------------------

_dumps = msgspec.json.Encoder().encode

PING: Final = b'{"t":"ping"}'
PONG: Final = b'{"t":"pong"}'
BYE: Final = b'{"t":"bye"}'


def _words(text: str) -> str:
    """Words that come from elsewhere, made fit to send: at most 512 characters, no lone surrogates."""
    return text[:512].encode("utf-8", "replace").decode()


def welcome(
    *,
    session: str,
    epoch: str,
    seq: int,
    head: int,
    resumed: bool,
    heartbeat_active: float,
    heartbeat_idle: float,
    heartbeat_grace: float,
    ack_events: int,
    ack_delay: float,
    expires: float | None = None,
) -> bytes:
    """The answer to `hello`. Times in seconds; `expires` is left out where it is None."""
    frame: dict[str, Any] = {
        "t": "welcome",
        "session": session,
        "epoch": epoch,
        "seq": seq,
        "head": head,
        "resumed": resumed,
        "heartbeat": {"active": heartbeat_active, "idle": heartbeat_idle, "grace": heartbeat_grace},
        "ack": {"events": ack_events, "delay": ack_delay},
    }
    if expires is not None:
        frame["expires"] = expires
    return _dumps(frame)


def event_tail(id: str, type: str, payload_json: bytes, ts: float, run: str | None = None) -> bytes:
    """What every frame of an event ends with, whoever gets it and however often: made once, then shared.

    Args:
      payload_json: one JSON text, as `payload.encode` makes it.
      ts: when the event was accepted, in seconds since the Unix epoch; finite.
      run: the agent's run that it is part of.
    """
    if run is not None:
        return b',"id":%b,"type":%b,"run":%b,"payload":%b,"ts":%b}' % (
            _dumps(id),
            _dumps(type),
            _dumps(run),
            payload_json,
            _dumps(ts),
        )
    return b',"id":%b,"type":%b,"payload":%b,"ts":%b}' % (_dumps(id), _dumps(type), payload_json, _dumps(ts))


def payload_of(tail: bytes) -> bytes:
    """The payload's JSON in what `event_tail` has made. In strings quotes are escaped, so what is looked for can't be
    part of an id or a type; and behind the time nothing follows."""
    return tail[tail.index(b'","payload":') + 12 : tail.rindex(b',"ts":')]


BARE_EVENT: Final = b'{"t":"event","seq":%d%b'
"""What `event_frame` gives where there is nothing to say but seq and tail; to be filled in with them."""


def event_frame(
    seq: int,
    tail: bytes,
    *,
    critical: bool = False,
    truncated: bool = False,
    retry: int = 0,
    merged_from: int = 0,
) -> bytes:
    """One event, as a user's session gets it.

    Args:
      tail: from `event_tail`.
      retry: which redelivery this is; 0 is none.
      merged_from: the seq of the first delta that is merged into this event; 0 is none.
    """
    head = b'{"t":"event","seq":%d' % seq
    if critical:
        head += b',"critical":true'
    if truncated:
        head += b',"truncated":true'
    if retry:
        head += b',"retry":%d' % retry
    if merged_from:
        head += b',"merged":{"from":%d,"n":%d}' % (merged_from, seq - merged_from)
    return head + tail


def plain_event(tail: bytes) -> bytes:
    """One event, as a plain client gets it: a bare object."""
    return b"{" + tail[1:]


def gap(
    first: int,
    last: int,
    reason: str,
    lost: Mapping[str, int],
    critical: int,
    snapshots: Sequence[str] = (),
    healed: int = 0,
) -> bytes:
    """The seqs `first` to `last`, both inclusive, will not come.

    Args:
      snapshots: the runs whose snapshots follow right behind.
      healed: how many of what is lost is in snapshots that the client has, or that follow; left out where it is 0.
    """
    frame = {"t": "gap", "from": first, "to": last, "reason": reason, "lost": lost, "critical": critical}
    if snapshots:
        frame["snapshots"] = snapshots
    if healed:
        frame["healed"] = healed
    return _dumps(frame)


def snapshot(seq: int, run: str, payload: Mapping[str, Any], ts: float) -> bytes:
    """A run as it stands with everything up to `seq`."""
    return _dumps({"t": "snapshot", "seq": seq, "run": run, "payload": payload, "ts": ts})


def standing(seq: int, questions: Sequence[Mapping[str, Any]]) -> bytes:
    """The questions that wait for the user's answer at `seq`."""
    return _dumps({"t": "standing", "seq": seq, "questions": questions})


def live(seq: int) -> bytes:
    """The replay is over at `seq`."""
    return b'{"t":"live","seq":%d}' % seq


def accepted(id: str) -> bytes:
    """The message `id` was taken."""
    return b'{"t":"accepted","id":%b}' % _dumps(id)


def rejected(id: str, error: str) -> bytes:
    """The message `id` was refused; `error` is cut at 512 characters."""
    return b'{"t":"rejected","id":%b,"error":%b}' % (_dumps(id), _dumps(_words(error)))


def ping(seq: int, next: float) -> bytes:
    """A heartbeat: the head is `seq`, and the next frame comes in at most `next` seconds."""
    return b'{"t":"ping","seq":%d,"next":%a}' % (seq, next)


def drain(lo: float, hi: float) -> bytes:
    """The server goes away: reconnect after `lo` to `hi` seconds."""
    return b'{"t":"drain","after":[%a,%a]}' % (lo, hi)


def error(code: int, reason: str, fatal: bool, retry_after: float | None = None) -> bytes:
    """What went wrong, under its close code; `reason` is cut at 512 characters."""
    frame: dict[str, Any] = {"t": "error", "code": code, "reason": _words(reason), "fatal": fatal}
    if retry_after is not None:
        frame["retry_after"] = retry_after
    return _dumps(frame)


def batch(frames: Sequence[bytes]) -> bytes:
    """One message out of at least one frame: a single one as it is, several as a JSON array."""
    if len(frames) > 1:
        return b"[" + b",".join(frames) + b"]"
    return frames[0]


_SHORT_HEADERS = tuple(bytes((0x81, length)) for length in range(126))


def text_message(message: bytes) -> bytes:
    """A server's WebSocket text message: one final, unmasked RFC 6455 frame, header and payload."""
    length = len(message)
    if length < 126:
        return _SHORT_HEADERS[length] + message
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + message
    return b"\x81\x7f" + length.to_bytes(8, "big") + message


# --- Client to server --------------------------------------------------------------------------------


def hello(
    *,
    token: str | None = None,
    user: str | None = None,
    session: str | None = None,
    epoch: str | None = None,
    seq: int | None = None,
    from_: Start | None = None,
) -> bytes:
    """The first frame; what is None is left out."""
    fields = {"token": token, "user": user, "session": session, "epoch": epoch, "seq": seq, "from": from_}
    return _dumps({"t": "hello"} | {key: value for key, value in fields.items() if value is not None})


def ack(seq: int) -> bytes:
    """Everything up to `seq` was processed."""
    return b'{"t":"ack","seq":%d}' % seq


def nack(seq: int) -> bytes:
    """The handler failed on `seq`."""
    return b'{"t":"nack","seq":%d}' % seq


def message(id: str, type: str, payload_json: bytes) -> bytes:
    """From the user to the application; `payload_json` is one JSON text, as `payload.encode` makes it."""
    return b'{"t":"message","id":%b,"type":%b,"payload":%b}' % (_dumps(id), _dumps(type), payload_json)


def auth(token: str) -> bytes:
    """A fresh token."""
    return b'{"t":"auth","token":%b}' % _dumps(token)
