"""Who a client is, once its credentials were checked."""

from __future__ import annotations

import attrs


@attrs.frozen
class Identity:
    """An authenticated user.

    Attributes:
      user: the principal that events are addressed to; 1 to 128 characters, no control characters.
      expires: when the credentials cease to hold, in seconds since the Unix epoch; None for never.
      issued: when they were issued, likewise; None where that is not known. A user can be revoked: then only
        credentials that were issued later are taken.
    """

    user: str
    expires: float | None = None
    issued: float | None = None
