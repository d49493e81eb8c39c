"""The seam of a cluster: what those who serve connections and calls see of a user whose log another node has.

A hub by itself has all logs, and `Hub.place` always says None. On a node of a cluster it may say who has the log: then
a connection is attached there, and relayed; a call of the admin API is made there, and its answer handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import attrs

from ..core.pool import Ask, Refused
from ..identity import Identity
from .attachment import Link


@attrs.frozen(kw_only=True)
class HttpCall:
    """A call of the admin API, as it came.

    Attributes:
      target: the path and the query, percent-encoded.
      headers: those that matter to who answers; names in lower case.
      timeout: seconds after which nobody waits for the answer any more.
    """

    method: str
    target: str
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: bytes = b""
    timeout: float = 10.0


@attrs.frozen(kw_only=True)
class HttpAnswer:
    """What a call was answered."""

    status: int
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: bytes = b""


AnswerCall: TypeAlias = Callable[[HttpCall], Awaitable[HttpAnswer]]
"""Answers a call that another node has forwarded. It raises nothing: what goes wrong is an answer, too."""


class RemoteAttachment(Protocol):
    """A connection's hold on a session that another node has; what a connection asks of it. Nothing here waits, and
    nothing raises.

    Attributes:
      deaf: what is received has no effect any more.
    """

    deaf: bool

    def receive(self, message: bytes | str) -> None:
        """Hand over what the client sent: one frame, or a batch; of a plain client, a message."""

    def drained(self) -> None:
        """The link takes more again."""

    def renew(self, identity: Identity) -> None:
        """The client's credentials hold until `identity` expires."""

    def detach(self, *, silent: bool = False) -> None:
        """The connection is gone; see `Attachment.detach`."""


class Elsewhere(Protocol):
    """A user whose log another node has. It is good for one attempt: the log may be elsewhere soon.

    Attributes:
      node: the id of that node.
    """

    @property
    def node(self) -> str:
        """The id of that node."""

    async def attach(self, identity: Identity, ask: Ask, link: Link) -> RemoteAttachment | Refused:
        """Give a connection that has said hello its session over there: the welcome is sent through `link`, and what
        follows. A checkpoint. Cancelled, nothing is attached.

        Returns: its hold on the session; or why it can't have one, also where that node does not answer.
        """

    async def ask(self, call: HttpCall) -> HttpAnswer:
        """Have a call answered over there; asked again, it is done once. A checkpoint. Cancelled, it may be done.

        Raises:
          NoAnswer: none came in time, since that node is not there any more, or the log not there: place it again.
        """


class NoAnswer(Exception):
    """A node did not answer: it may have done what it was asked, or not, and will not any more."""
