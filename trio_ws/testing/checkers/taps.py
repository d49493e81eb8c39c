"""What is put around a hub's own parts so that a record sees what passes them: links, attachments, acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core import wire
from ...core.closing import CloseCode
from ...hub import Attachment, Identity, Link, Receipt
from ...hub.acceptance import Acceptance
from ...hub.parcel import Parcel
from .sight import Known, Line

if TYPE_CHECKING:
    from .record import Record


class TappedAcceptance:
    """What accepts events, and notes those of agents' runs."""

    def __init__(self, record: Record, acceptance: Acceptance, life: int) -> None:
        self._record = record
        self._acceptance = acceptance
        self._life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._acceptance, name)

    def accept(self, user: str, parcel: Parcel) -> Receipt | None:
        receipt = self._acceptance.accept(user, parcel)
        fresh = receipt is not None and not receipt.duplicate and parcel.run is not None
        if receipt is not None and fresh and not self._record.is_dead(self._life):
            self._record.run_event(receipt, parcel)
        return receipt


class TappedLink:
    """A link, and a record of what goes over it."""

    def __init__(self, record: Record, line: Line, link: Link) -> None:
        self.line = line
        self._record = record
        self._link = link

    def send(self, frames: list[bytes]) -> bool:
        if self._record.is_dead(self.line.life):
            return True
        self._record.sent(self.line, frames)
        took = self._link.send(frames)
        if not took and self.line.blocked is None:
            self.line.blocked = self.line.blocked_from = self._record.clock()
        return took

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        self._record.closed(self.line, code, reason)
        self._link.close(code, reason, retry_after)

    def expect_by(self, deadline: float) -> None:
        self._link.expect_by(deadline)

    def authenticate(self, token: str) -> None:
        self._link.authenticate(token)


class TappedAttachment:
    """What a connection is given in the place of its attachment: it notes what comes in, and hands it on."""

    def __init__(self, record: Record, line: Line, attachment: Attachment) -> None:
        self._record = record
        self._line = line
        self._attachment = attachment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._attachment, name)

    def receive(self, message: bytes | str) -> None:
        if self._record.is_dead(self._line.life):
            return
        if not (self._attachment.deaf or self._attachment.session.plain):
            try:
                self._record.heard(self._line, wire.decode_client(message))
            except wire.NotAFrame:
                pass
        self._attachment.receive(message)

    def renew(self, identity: Identity) -> None:
        if isinstance(identity, Known):
            self._line.until = identity.until
        self._attachment.renew(identity)

    def drained(self) -> None:
        self._line.blocked, self._line.free_since = None, self._record.clock()
        self._attachment.drained()

    def detach(self, *, silent: bool = False) -> None:
        self._record.went(self._line, silent=silent)
        self._attachment.detach(silent=silent)
