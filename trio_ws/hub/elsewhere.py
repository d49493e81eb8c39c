"""The seam of a cluster: what those who serve connections and calls see of a user whose log another node has.

A hub by itself has all logs, and `Hub.place` always says None. On a node of a cluster it may say who has the log: then
a connection is attached there, and relayed; a call of the admin API is made there, and its answer handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import attrs

from ..core.closing import CloseCode
from ..core.histogram import Histogram
from ..core.pool import Ask, Refused
from ..identity import Identity
from ..store import NodeRecord, SharedStore
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
    """A connection's hold on a session that another node has: what a connection, and who drains, ask of it, and of an
    `Attachment` alike. Nothing here waits, and nothing raises.

    Attributes:
      fenced: it holds nothing any more.
      deaf: what is received has no effect any more.
    """

    fenced: bool
    deaf: bool

    @property
    def user(self) -> str:
        """Whose session it holds."""

    @property
    def is_flushed(self) -> bool:
        """Nothing waits for it that it could still be sent, as far as is known here."""

    @property
    def is_through(self) -> bool:
        """It was sent all there is, and has acked it, as far as is known here."""

    def receive(self, message: bytes | str) -> None:
        """Hand over what the client sent: one frame, or a batch; of a plain client, a message."""

    def drained(self) -> None:
        """The link takes more again."""

    def renew(self, identity: Identity) -> None:
        """The client's credentials hold until `identity` expires."""

    def detach(self, *, silent: bool = False) -> None:
        """The connection is gone; see `Attachment.detach`."""

    def drain(self, low: float, high: float) -> None:
        """Tell the client that this server goes away, and when to come back."""

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """Have the connection tell why and close, soon."""


class Elsewhere(Protocol):
    """A user whose log another node has. It is good for one attempt: the log may be elsewhere soon.

    Attributes:
      node: the id of that node.
    """

    @property
    def node(self) -> str:
        """The id of that node."""

    async def attach(
        self, identity: Identity, ask: Ask, link: Link, *, path: str
    ) -> RemoteAttachment | Refused:
        """Give a connection that has said hello its session over there: the welcome is sent through `link`, and what
        follows. A checkpoint. Cancelled, nothing is attached.

        Args:
          identity, ask, link: see `Reception.attach`.
          path: of the listener that it came in by; what takes its messages is what takes them at that path over there.

        Returns: its hold on the session; or why it can't have one.

        Raises:
          NoAnswer: that node is not there any more, or the log not there: place it again.
        """

    async def ask(self, call: HttpCall) -> HttpAnswer:
        """Have a call answered over there; asked again, it is done once. A checkpoint. Cancelled, it may be done.

        Raises:
          NoAnswer: none came in time, since that node is not there any more, or the log not there: place it again.
        """


class Cluster(Protocol):
    """The nodes that share a store, as one of them sees them: `Hub.cluster`.

    Attributes:
      node: the id of this one.
      store: what they share.
      suspended: it can't be sure that it still owns what it owned: it accepts nothing until it is.
      bus_delay: how long messages of other nodes took to this one.
    """

    @property
    def node(self) -> str:
        """The id of this node."""

    @property
    def store(self) -> SharedStore:
        """What the nodes share."""

    @property
    def suspended(self) -> bool:
        """Whether this node accepts nothing, until it is sure again of what it owns."""

    @property
    def bus_delay(self) -> Histogram:
        """How long messages of other nodes took to this one."""

    def nodes(self) -> list[NodeRecord]:
        """Who lived at the last beat, this one among them."""

    async def ask(self, node: str, call: HttpCall) -> HttpAnswer:
        """As `Elsewhere.ask`, of a node and not for the sake of one user. This one may be asked, too.

        Raises:
          NoAnswer: none came in time.
        """

    def moved(self, user: str, node: str) -> None:
        """A node has said that it does not have the log of this user: whoever believed so is to look again."""

    def stats(self) -> dict[str, Any]:
        """What there is to tell of this node, as plain numbers: `owned`, `claims`, `take_overs`, `handed_over`,
        `released`, `fenced`, `forwarded`, `calls_forwarded`, `relayed`, `relays_cut`, `calls`, `calls_repeated`,
        `lost_messages`, `beats`, `suspensions`."""


class NoAnswer(Exception):
    """A node did not answer: it may have done what it was asked, or not, and will not any more.

    Attributes:
      in_doubt: whether it may have done it; False where it said that it has not the log, and did nothing.
    """

    def __init__(self, message: str = "", *, in_doubt: bool = True) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
