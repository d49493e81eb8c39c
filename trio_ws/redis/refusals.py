"""What Redis says no with, and that there is nobody to say anything, as errors of this package."""

from __future__ import annotations

import re
from typing import Final

from hiredis import ReplyError

from ..errors import StoreError

_ADVICE: Final = {
    "OOM": "it has reached its maxmemory, and takes nothing more",
    "READONLY": "this is a replica, which takes no writes",
    "LOADING": "it is reading its data from disk yet",
    "MISCONF": "it can't save to disk, and takes nothing until it can",
    "NOAUTH": "it wants a password",
    "WRONGPASS": "user name or password is wrong",
    "NOPERM": "its user may not do this",
    "CLUSTERDOWN": "a part of the cluster is down",
    "MOVED": "it is one of a Redis Cluster, whose URL begins with redis+cluster://",
    "MASTERDOWN": "a replica that has lost its primary",
    "NOREPLICAS": "too few replicas are there",
    "BUSY": "it is busy with a script",
}

_NO_CLUSTER: Final = "it is no Redis Cluster: the URL of one server begins with redis://"

_UNKNOWN: Final = "is it a sentinel, whose URL begins with redis+sentinel://, or something else than Redis?"

_IN_SCRIPT: Final = re.compile(r"ERR Error running script .*: @user_script: [0-9]+: -([A-Z]+) ")
"""How a server before Redis 7 says that a script was refused something."""

_FORBIDDEN_IN_SCRIPT: Final = "The user executing the script can't", "ACL failure in script"

_PASSING: Final = frozenset(
    (
        "OOM",
        "READONLY",
        "LOADING",
        "MISCONF",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "NOREPLICAS",
        "BUSY",
        "MOVED",
        "TRYAGAIN",
    )
)


class Unreachable(StoreError):
    """There is no connection to Redis, or no answer came in time. What was asked may have been done, or may be yet."""

    passes = True


class Refused(StoreError):
    """Redis has answered, and said no.

    Attributes:
      code: the first word of its answer: ``OOM``, ``READONLY``, ``ERR``, …
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.passes = code in _PASSING


def refused(error: ReplyError, place: object, secret: str | None = None) -> Refused:
    """The error that the server at `place` has answered with; without the `secret` that it was given and may quote."""
    text = str(error)
    if secret:
        text = text.replace(secret, "***")
    code = _code(text)
    advice = _ADVICE.get(code)
    if "cluster support disabled" in text:
        advice = _NO_CLUSTER
    elif text.startswith("ERR unknown command"):
        advice = _UNKNOWN
    return Refused(
        code,
        f"Redis at {place} refused: {advice} ({text})" if advice else f"Redis at {place} refused: {text}",
    )


def is_refusal(reply: object, *codes: str) -> bool:
    """Whether a reply is an error: one of these, where some are named."""
    return isinstance(reply, ReplyError) and (not codes or _code(str(reply)) in codes)


def _code(text: str) -> str:
    """What an answer is about: its first word, or what a script in it was refused with."""
    if found := _IN_SCRIPT.match(text):
        return found[1]
    if any(words in text for words in _FORBIDDEN_IN_SCRIPT):
        return "NOPERM"
    return text.partition(" ")[0]
