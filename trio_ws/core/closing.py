"""The close codes: one table that the server, the clients, the documentation and the figures share.

A code is data: what it is called, and what a client does on seeing it. Codes 44xx end a client for good,
45xx and a transport that broke (1006) are retried (the idea is centrifuge's `disconnect.go`).
"""

from __future__ import annotations

import enum
from typing import Final

import attrs


class Reaction(enum.Enum):
    """What a client does when it sees a close code."""

    STOP = "stop"
    RETRY = "retry"
    FRESH_TOKEN = "fresh_token"


@attrs.frozen
class CloseCode:
    """One row of the table."""

    code: int
    name: str
    reaction: Reaction
    meaning: str


NORMAL: Final = CloseCode(1000, "normal", Reaction.STOP, "the session ended as it should")
BROKEN: Final = CloseCode(1006, "broken", Reaction.RETRY, "the transport broke; never on the wire")
INVALID_UTF8: Final = CloseCode(1007, "invalid_utf8", Reaction.STOP, "a text message was not UTF-8")
TOO_BIG: Final = CloseCode(1009, "too_big", Reaction.STOP, "a message was over max_message_bytes")
PROTOCOL_ERROR: Final = CloseCode(4400, "protocol_error", Reaction.STOP, "what was sent is not this protocol")
UNAUTHENTICATED: Final = CloseCode(
    4401, "unauthenticated", Reaction.FRESH_TOKEN, "no valid credentials, or they expired"
)
FORBIDDEN: Final = CloseCode(
    4403, "forbidden", Reaction.STOP, "another user's token, or ended by the operator"
)
SUPERSEDED: Final = CloseCode(
    4409, "superseded", Reaction.STOP, "connected elsewhere, or the limit took the oldest"
)
LIMIT_REACHED: Final = CloseCode(4429, "limit_reached", Reaction.STOP, "connection limit reached")
INTERNAL_ERROR: Final = CloseCode(4500, "internal_error", Reaction.RETRY, "the server failed")
TIMEOUT: Final = CloseCode(4501, "timeout", Reaction.RETRY, "hello, heartbeat or acks did not come in time")
SLOW_CONSUMER: Final = CloseCode(
    4502, "slow_consumer", Reaction.RETRY, "the client does not take what it is sent"
)
DRAINING: Final = CloseCode(4503, "draining", Reaction.RETRY, "the server is going away, or is overloaded")

STANDARD: Final = frozenset((1001, 1002, 1003, 1005, 1008, 1010, 1011, 1012, 1013))
"""Further codes of RFC 6455 and its registry that a peer, or nobody, may end a WebSocket with."""

TABLE: Final = {
    row.code: row
    for row in (
        NORMAL,
        BROKEN,
        INVALID_UTF8,
        TOO_BIG,
        PROTOCOL_ERROR,
        UNAUTHENTICATED,
        FORBIDDEN,
        SUPERSEDED,
        LIMIT_REACHED,
        INTERNAL_ERROR,
        TIMEOUT,
        SLOW_CONSUMER,
        DRAINING,
    )
}
"""Every close code of the protocol, by its number."""


def reaction(code: int) -> Reaction:
    """What a client does on seeing `code`: the table's word; for codes outside it, 44xx stops and the rest retries."""
    row = TABLE.get(code)
    if row is not None:
        return row.reaction
    return Reaction.STOP if 4400 <= code < 4500 else Reaction.RETRY
