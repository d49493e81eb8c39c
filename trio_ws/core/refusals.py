"""Why clients are not let in: every reason there is, so that the figures have each from the start."""

from __future__ import annotations

from typing import Final

REASONS: Final = (
    "request",  # no proper HTTP request: 400
    "not_websocket",  # asks for no WebSocket, or another version of it: 426
    "head_too_long",  # 431
    "path",  # 404
    "origin",  # a page that may not connect: 403
    "proxy",  # a proxy that is trusted did not say, or not properly, where a client is
    "tls",  # no TLS handshake
    "protocol",  # the first frame is no hello: 4400
    "credentials",  # none, or not valid: 401, 4401
    "revoked",  # issued before the user was revoked: 401, 4401
    "address_rate",  # too many connections of one address: 429
    "user_rate",  # too many connections of one user: 429, 4503
    "handshakes",  # too many handshakes under way: cut, or 4503
    "limit",  # no connection is free: 4429, 4503
    "superseded",  # the session has connected elsewhere meanwhile: 4409
    "hello_timeout",  # request and hello did not come in time: cut, or 4501
    "overloaded",  # the loop lags behind: 503, 4503
    "draining",  # 503, 4503
    "api_key",  # a call of the admin API with a wrong key, or with any after too many: 401, 429
    "store",  # the user's log can't be read: 503, 4503
)
"""Every reason to refuse a connection, or a call."""


class Refusals:
    """How often a connection was refused, by reason.

    Attributes:
      counts: by each of `REASONS`.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(REASONS, 0)

    def count(self, reason: str) -> None:
        """One more. KeyError for what is no reason."""
        self.counts[reason] += 1
