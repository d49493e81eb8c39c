"""Whether all has converged, once the faults of a run are over: what is still to be delivered, acked or confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.entry import Entry
from ..core.mailbox import Mailbox
from .cast.tabs import Tab
from .checkers.sight import Published
from .checkers.survival import Promises

if TYPE_CHECKING:
    from .scenario import World


def lag(tab: Tab, box: Mailbox | None, *, known: bool = False) -> str:
    """How far a tab is from having all of its user's log, and from having acked it; empty where it has.

    Args:
      known: the log must know its session.
    """
    client = tab.client
    saved = None if client is None else client.saved()
    if client is None or saved is None or client.state.name != "live":
        return f"{tab.name} is {'away' if client is None else client.state}"
    if box is None or (saved.epoch, saved.seq) != (box.epoch, box.head):
        return f"{tab.name} is at {saved.seq}, its log at {box and box.head}"
    session = box.sessions.get(saved.session)
    if session is None and known:
        return f"{tab.name} has a session that is not known"
    if session is not None and session.acked < box.head:
        return f"{tab.name} is at {saved.seq}, and has acked {session.acked}"
    return ""


def unsettled(world: World, tabs: list[Tab]) -> str:
    """What is still to be delivered, acked or confirmed; empty where nothing is."""
    hub = world.hub
    if hub is None:
        return "the server is away"
    if hub.engine.durability is not None and hub.engine.durability.state != "ok":
        return "the store is away"
    if hub.desk.handles:
        return f"{next(iter(hub.desk.handles.values()))} is open"
    for tab in tabs:
        box = hub.engine.buffer.mailboxes.get(tab.user)
        if why := lag(tab, box):
            return why
    for event in world.record.events.values():
        if _is_pending(world, event) and not event.processed:
            return f"{event}"
    for promises in world.record.checkers:
        if isinstance(promises, Promises) and (left := promises.left()):
            return f"{left[0]} was promised"
    if hub.engine.room.waiting:
        return f"{hub.engine.room.waiting} publishers wait"
    return ""


def _is_pending(world: World, event: Published) -> bool:
    return event.critical and event.life == world.record.life and event.state in ("held", "sent")


def pending_for_the_next(world: World, tabs: list[Tab]) -> list[Tab]:
    """The tabs of those for whom something critical was processed and never acked."""
    assert world.hub is not None
    boxes = world.hub.engine.buffer.mailboxes
    # The log knows more than the record: a publisher that was cancelled never heard what became of its event.
    users = [user for user, box in boxes.items() if any(map(_is_unconfirmed, box.entries.values()))]
    return [tab for tab in tabs if tab.user in users]


def kept_from_the_rest(world: World, tabs: list[Tab]) -> list[Tab]:
    """The tabs of those who are through with all that they are given, and are given no more of what is in the store
    only: as much as may is pending for a new session."""
    if world.hub is None:
        return []
    buffer = world.hub.engine.buffer
    kept: list[Tab] = []
    for tab in tabs:
        box = buffer.mailboxes.get(tab.user)
        if box is None or box.rest is None or not box.sessions:
            continue
        events, size = buffer.room_to_take_in(box)
        through = all(s.link is not None and s.acked >= box.ready for s in box.sessions.values())
        if through and (events <= 0 or size < max(1, box.rest.wanted)):
            kept.append(tab)
    return kept


def _is_unconfirmed(entry: Entry) -> bool:
    return entry.critical and entry.confirmed_at is None
