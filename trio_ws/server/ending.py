"""How a WebSocket ends, and the exceptions that say so."""

from __future__ import annotations

from typing import Final, Literal

import attrs
import trio

from ..core.closing import BROKEN
from ..errors import RemoteError

MAX_REASON_BYTES: Final = 123
"""What a close frame has room for, beside the code."""


@attrs.frozen
class Ending:
    """How a WebSocket ended.

    Attributes:
      code: the close code; 1006 where the connection broke, 1005 where the peer gave none.
      reason: the words that go with it.
      by: who ended it: the ``peer`` (with a close frame), ``us``, or the ``network``.
    """

    code: int
    reason: str
    by: Literal["peer", "us", "network"]


class TransportClosed(RemoteError):
    """The WebSocket has ended, or is about to.

    Attributes:
      code, reason, by: as in `Ending`.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(f"ended by {ending.by} with {ending.code}: {ending.reason}")
        self.code = ending.code
        self.reason = ending.reason
        self.by = ending.by


class Refused(TransportClosed):
    """The request never became a WebSocket: it was answered in HTTP.

    Attributes:
      status: the HTTP status of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(Ending(BROKEN.code, f"refused with {status}: {message}", "us"))
        self.status = status


class BinaryMessage(RemoteError):
    """The client sent a binary message where all must be text. The WebSocket is still open.

    Attributes:
      payload: what it held.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__("a binary message where all must be text")
        self.payload = payload


def cut_reason(reason: str) -> str:
    """`reason` cut to what a close frame has room for, between two characters."""
    return reason.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def close_frame(code: int, reason: str) -> bytes:
    """A server's close frame; `code` is one that may be sent."""
    payload = code.to_bytes(2) + cut_reason(reason).encode()
    return bytes((0x88, len(payload))) + payload


def unwrap(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in `group` that is no cancellation; the group itself where there are several."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        exc = stack.pop()
        if isinstance(exc, BaseExceptionGroup):
            stack.extend(exc.exceptions)
        elif not isinstance(exc, trio.Cancelled):
            leaves.append(exc)
    return leaves[0] if len(leaves) == 1 else group
