"""What a server answers, read strictly: HTTP, then RFC 6455 frames, then the frames of the protocol.

It shares no code with the server, so that both can't be wrong in the same way.
"""

from __future__ import annotations

import json
from typing import Any

STATUSES = frozenset((101, 400, 401, 403, 404, 426, 429, 431, 503))
CLOSE_CODES = frozenset((1000, 1002, 1003, 1007, 1009, 4400, 4401, 4403, 4409, 4429, 4500, 4501, 4502, 4503))
KINDS = {
    "welcome": {"session": str, "epoch": str, "seq": int, "head": int, "resumed": bool},
    "event": {"seq": int, "id": str, "type": str, "ts": float},
    "gap": {"from": int, "to": int, "reason": str, "lost": dict, "critical": int},
    "live": {"seq": int},
    "accepted": {"id": str},
    "rejected": {"id": str, "error": str},
    "ping": {"seq": int},
    "pong": {},
    "drain": {"after": list},
    "error": {"code": int, "reason": str, "fatal": bool},
}
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Wrong(Exception):
    """The server answered what it must not."""


class Answers:
    """Reads what one connection is sent.

    Args:
      user: whose events it may get; None for anybody's.
      echoed: a close code may be the client's own, given back: then any may come, and no `error` before it.

    Attributes:
      user: as given.
      status: of the HTTP answer, once it has come.
      plain: no subprotocol was selected.
      welcome: the frame that answered `hello`.
      cursor: the seq up to which all is accounted for.
      counts: how many frames of each kind have come; of errors, those that are not fatal.
      answered: the ids of messages that were accepted or rejected.
      fatal: the code of the `error` that announced the end.
      closed: the code of the close frame; 1005 where it had none.
      ended: the stream has ended: in order, or by a reset.
    """

    def __init__(self, user: str | None = None, *, echoed: bool = False) -> None:
        self.status: int | None = None
        self.plain = True
        self.welcome: dict[str, Any] | None = None
        self.cursor = 0
        self.counts = dict.fromkeys(KINDS, 0)
        self.answered: set[str] = set()
        self.fatal: int | None = None
        self.closed: int | None = None
        self.ended = False
        self.user = user
        self._echoed = echoed
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take what was received; ``b""`` at the end of the stream. Raises Wrong."""
        if not data:
            self.ended = True
            if self._data and self.status == 101:
                raise Wrong(f"the stream ends within a frame: {self._data[:40]!r}")
            return
        self._data += data
        if self.status is None:
            self._read_head()
        while self.status == 101 and self._read_frame():
            pass

    def _read_head(self) -> None:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(head) > 2000:
                raise Wrong(f"no HTTP answer: {head[:40]!r}")
            return
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if words[0] != b"HTTP/1.1" or not words[1].isdigit() or int(words[1]) not in STATUSES:
            raise Wrong(f"no status of ours: {first!r}")
        if any(not line.isascii() or b": " not in line or b"\n" in line for line in lines):
            raise Wrong(f"no HTTP headers: {head!r}")
        self.status, self._data = int(words[1]), rest
        self.plain = not any(line.lower().startswith(b"sec-websocket-protocol:") for line in lines)
        if self.status != 101 and b"Connection: close" not in lines:
            raise Wrong(f"a refusal that does not close: {head!r}")

    def _read_frame(self) -> bool:
        """Take the next frame; False where it is not all there."""
        data = self._data
        if len(data) < 2:
            return False
        size, begin = data[1], 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            if size & 0x80:
                raise Wrong("a server's frame is masked")
            size = int.from_bytes(data[2:begin])
        if len(data) < begin + size:
            return False
        payload, self._data = data[begin : begin + size], data[begin + size :]
        if self.closed is not None:
            raise Wrong("a frame after the close frame")
        if not data[0] & 0x80 or data[0] & 0x70 or data[0] & 0x0F not in (_TEXT, _CLOSE, _PING, _PONG):
            raise Wrong(f"a frame that is never sent: {data[:2]!r}")
        self._take(data[0] & 0x0F, payload)
        return True

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self.closed = int.from_bytes(payload[:2]) if payload else 1005
            if self._echoed:
                return
            if self.closed not in CLOSE_CODES:
                raise Wrong(f"no close code of ours: {self.closed}")
            if not self.plain and self.closed >= 4000 and self.fatal != self.closed:
                raise Wrong(f"closed with {self.closed}, and the error frame said {self.fatal}")
        elif opcode == _TEXT:
            try:
                message = json.loads(payload.decode())
            except ValueError as error:
                raise Wrong(f"a text that is not JSON: {error}") from None
            if self.plain:
                if set(message) != {"id", "type", "payload", "ts"}:
                    raise Wrong("no bare event")
                self._own(message)
                return
            for frame in message if isinstance(message, list) else [message]:
                self._take_frame(frame)

    def _take_frame(self, frame: dict[str, Any]) -> None:
        kind = frame.get("t")
        if kind not in KINDS:
            raise Wrong(f"an unknown frame: {frame}")
        for key, wanted in KINDS[kind].items():
            if not isinstance(frame.get(key), wanted):
                raise Wrong(f"{kind}.{key} is {frame.get(key)!r}")
        if self.fatal is not None:
            raise Wrong(f"{kind} after a fatal error")
        if kind == "welcome":
            if self.welcome is not None:
                raise Wrong("two welcomes")
            self.welcome, self.cursor = frame, frame["seq"]
        elif self.welcome is None and kind != "error":
            raise Wrong(f"{kind} before welcome")
        if kind == "error":
            if frame["fatal"]:
                self.fatal = frame["code"]
                return
            if frame["code"] != 4400:
                raise Wrong(f"a mistake with the code {frame['code']}")
        self.counts[kind] += 1
        if kind in ("accepted", "rejected"):
            self.answered.add(frame["id"])
        elif kind == "event":
            self._account(
                frame.get("merged", {}).get("from", frame["seq"]), frame["seq"], frame.get("retry", 0)
            )
            self._own(frame)
        elif kind == "gap":
            self._account(frame["from"], frame["to"], 0)

    def _account(self, first: int, last: int, retry: int) -> None:
        """The accounting rule."""
        if retry and last <= self.cursor:
            return
        if first != self.cursor + 1 or last < first:
            raise Wrong(f"{first} to {last} after {self.cursor}")
        self.cursor = last

    def _own(self, event: dict[str, Any]) -> None:
        owner = event["payload"].get("for") if isinstance(event["payload"], dict) else None
        if self.user is not None and owner not in (None, self.user):
            raise Wrong(f"an event for {owner} was sent to {self.user}")
