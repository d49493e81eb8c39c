"""The hub: publish to users, and have what was published confirmed. One value that holds all state; nothing is global.

`open_hub` runs its tasks in one nursery for as long as its block lasts:

    cleanup     expired sessions, times to live, empty mailboxes; every `cleanup_interval`
    alerts      compares the figures of a window with what they should be, 30 times in its length
    store       group commit, where there is a store
    deadlines   one task, one cancel scope whose deadline is the earliest of all; moved, not polled
    flusher     writes what is pending, once a turn of the loop
    and, while there are any: a task for each session whose messages wait for the application, one for dead letters
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, Self

import trio

from ..config import Config
from ..core.buffer import UNREAD
from ..core.pool import Ask, Refused
from ..identity import Identity
from ..store import Fenced, Store
from ..store.interface import Opened
from . import figures, history
from .alerts import OnAlert
from .attachment import Attachment, Link
from .channel import PublishChannel
from .cleanup import cleanup
from .dead_letters import OnDeadLetter
from .draining import Draining
from .elsewhere import AnswerCall, Cluster, Elsewhere
from .engine import Engine, new_token
from .inbox import OnMessage
from .intake import check_name
from .moving import Moving
from .opening import opened, own_nursery
from .publisher import Publisher
from .reception import Reception
from .run import RunHandle
from .runs import RunDesk
from .subscription import Subscription

DEFAULT_LEASE: Final = 30.0
"""Seconds that a run outlives its publisher's last sign of life, where nobody says otherwise."""


class Hub(Publisher):
    """Users, mailboxes, sessions. Made by `open_hub`.

    Attributes:
      engine: the state that all parts share; for those who build on the hub, not for those who use it.
      reception: gives connections their sessions.
      desk: has all that concerns runs.
      on_call: answers calls of the admin API that another node forwards, of users whose log is here; the admin API puts
        it there.
      cluster: the nodes that this one is of; None for a hub by itself.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.on_call: AnswerCall | None = None
        self.cluster: Cluster | None = None
        self.reception = Reception(engine)
        self.desk = RunDesk(self)
        self._moving = Moving(engine, self.loader, self.desk)
        self._draining = Draining(engine, self.desk.last_words)
        engine.on_woken = self.desk.adopt
        if engine.durability is not None:
            engine.durability.on_fenced = self.fenced
        self.reception.inbox.verbs.update(agent_answer=self.desk.answered, agent_cancel=self.desk.cancelled)

    @property
    def config(self) -> Config:
        """The limits it runs by."""
        return self.engine.config

    @property
    def draining(self) -> bool:
        """It accepts nothing any more, and says so at `/readyz`."""
        return self.engine.draining

    @property
    def stopping(self) -> trio.Event:
        """Is set when draining begins."""
        return self.engine.stopping

    @property
    def retry_after(self) -> float:
        """Seconds after which a refused publisher or client may well be served again."""
        return self.engine.retry_after

    def channel(self, user: str) -> PublishChannel:
        """A channel to publish to one user through, by Trio's conventions; close it when done.

        Raises:
          InvalidEvent: `user` is no name.
        """
        check_name(user, "user")
        return PublishChannel(self, user)

    def subscribe(
        self, user: str, *, start: Literal["retained", "pending", "now", "snapshot"] = "retained"
    ) -> Subscription:
        """One user's events in this process, as a channel to receive batches from; close it when done.

        Args:
          user: whose.
          start: where it begins: all that is held, what nobody confirmed, what comes from now on; or as ``pending``,
            with snapshots of all runs before.

        Raises:
          LocalError: the user's connection limit is reached and the policy is to reject, or the hub drains.
        """
        check_name(user, "user")
        return Subscription(self.reception, user, start, partial(self.load, to_connect=True))

    async def place(self, user: str, *, to_connect: bool = False) -> Elsewhere | None:
        """Have the log of `user` here (see `load`), or tell who has it. A checkpoint where it is not here; cancelled,
        nothing has changed.

        Returns: None where it is here, as it always is but on a node of a cluster.

        Raises:
          StoreUnavailable: as `load`.
        """
        await self.load(user, to_connect=to_connect)
        return None

    def attach(
        self, identity: Identity, ask: Ask, link: Link, *, on_message: OnMessage | None = None
    ) -> Attachment | Refused:
        """Give a connection that has said hello its session; see `Reception.attach`."""
        return self.reception.attach(identity, ask, link, on_message=on_message)

    def users(self) -> list[str]:
        """Who is known: connected, parked, or with events held."""
        return [*self.engine.buffer.mailboxes, *self.engine.buffer.asleep]

    def end_session(self, user: str, session: str) -> bool:
        """End a session for good; its connection is closed with 4403. What nobody confirmed stays pending.

        Returns: False where the user has no such session.
        """
        box = self.engine.buffer.mailboxes.get(user)
        found = None if box is None else box.sessions.get(session)
        if found is None:
            return False
        self.reception.dismiss(found)
        return True

    def end_sessions(self, user: str, *, revoke: float = 0.0) -> int:
        """End all sessions of a user, as `end_session` does; of a user whose log is in the store only, once it was
        loaded (`load`). It holds at once, and beyond this process once it is `committed`.

        Args:
          revoke: for so many seconds, at least as long as the user's longest-lived credentials hold, nobody gets in by
            credentials that were issued up to now, or of which that is not known. 0 lets the user come again at once.

        Returns: how many there were.

        Raises:
          InvalidEvent: `user` is no name.
          TooManyRevoked: others are; nothing was ended.
        """
        check_name(user, "user")
        if revoke > 0:
            record = self.engine.revocations.revoke(user, self.engine.wall_clock(), revoke)
            if self.engine.durability is not None:
                self.engine.durability.revoke(record)
        box = self.engine.buffer.mailboxes.get(user)
        sessions = [] if box is None else list(box.sessions.values())
        for session in sessions:
            self.reception.dismiss(session)
        return len(sessions)

    async def committed(self) -> None:
        """Wait until what was done up to now outlives this process: sessions that were ended, users who were revoked.
        Nothing to wait for without a store. A checkpoint. Cancelled, it stops waiting.

        Raises:
          StoreUnavailable: the store can't be relied on now. What was done holds in this process all the same.
        """
        if self.engine.durability is None:
            await trio.lowlevel.checkpoint()
        else:
            await self.engine.durability.wait_for_next()

    def is_revoked(self, identity: Identity) -> bool:
        """Whether these credentials were issued before their user was revoked."""
        return self.reception.is_revoked(identity)

    # -- runs of agents

    def run(
        self,
        user: str,
        run_id: str | None = None,
        *,
        name: str | None = None,
        parent: str | None = None,
        input: Any = None,
    ) -> AbstractAsyncContextManager[RunHandle]:
        """An agent's run, as a block: ``agent_started`` on entry, and exactly one terminal event on the way out.

        The block completes, fails (by the exception that leaves it, of which its user is told the kind and not the
        words; see `trio_ws.RunFailed`) or is cancelled: from outside, or by the user (`cancel_run`), which ends it
        quietly, as a `trio.CancelScope` does. The exception goes on. When the hub ends before it does, the run is
        ``lost``.

        Cancelled on entry, the run was not begun, or ends at once. On the way out the terminal event is accepted in any
        case, beyond all bounds; that it becomes durable is waited for at most `drain_timeout` seconds, cancelled or
        not.

        Args:
          user: whose.
          run_id: a name, 1 to 128 characters, that no other run of the user has; None makes one.
          name: of the agent.
          parent: the id of the run that this one is a part of; see `RunHandle.run`.
          input: what it was asked to do: any value that has a JSON form.

        Raises:
          TooManyRuns: so many are open.
          IllegalTransition: the user has such a run.
          InvalidEvent: a field is out of its bounds; or, on the way out, `RunHandle.result` has no JSON form.
        """
        return self.desk.run(user, run_id, name=name, parent=parent, input=input)

    async def open_run(
        self,
        user: str,
        run_id: str | None = None,
        *,
        name: str | None = None,
        parent: str | None = None,
        input: Any = None,
        lease: float = DEFAULT_LEASE,
    ) -> RunHandle:
        """A run whose publisher is elsewhere: it is ``lost`` when nothing was heard of that one for `lease` seconds.

        The same run opened again while it is open, with the same arguments, is that one. A checkpoint. Cancelled, the
        run was not begun, or is open until its lease lapses.

        Args:
          user, run_id, name, parent, input: see `run`.
          lease: seconds, 1 to 3600; each event renews it, and `RunHandle.renew` does. It outlives a restart, with a
            store.

        Raises:
          TooManyRuns, InvalidEvent: as `run`.
          RunEnded: the user had such a run.
          IllegalTransition: the user has such a run, and it was opened otherwise.
        """
        return await self.desk.open(user, run_id, name=name, parent=parent, input=input, lease=lease)

    async def find_run(self, user: str, run_id: str) -> RunHandle | None:
        """The run of this id, open or ended; None where none is known. A checkpoint."""
        return await self.desk.find(user, run_id)

    async def runs(self, user: str) -> list[dict[str, Any]]:
        """All known runs of a user, as the payloads of their snapshots, with the id as ``run``. A checkpoint."""
        return await self.desk.snapshots(user)

    async def cancel_run(self, user: str, run_id: str, reason: str | None = None) -> None:
        """Have a run stop: its user is told (``agent_cancelling``), its block is cancelled, or its publisher told.

        To ask for it again is fine. A checkpoint; cancelled, the run may have been told to stop.

        Args:
          reason: at most 1024 characters, which the user gets to see.

        Raises:
          UnknownRun, RunEnded: there is nothing to cancel.
        """
        await self.desk.cancel(user, run_id, reason)

    @asynccontextmanager
    async def running(self, found: Opened | None) -> AsyncIterator[Self]:
        """Run its tasks while the block lasts; leaving the block drains it, leaving it by an exception ends it at once.

        Args:
          found: what its store holds; None without one.
        """
        self.start(found)
        try:
            yield self
            await self.drain()
        finally:
            self.end_now()

    def start(self, found: Opened | None) -> None:
        """Start its tasks, in the engine's nursery; see `running`."""
        engine, start_soon = self.engine, self.engine.nursery.start_soon
        if found is not None:
            engine.buffer.asleep.update(dict.fromkeys(found.users, UNREAD))
            engine.revocations.restore(found.revoked)
        if engine.durability is not None:
            start_soon(engine.durability.run)
            start_soon(engine.durability.survey)
        start_soon(engine.flusher.run)
        start_soon(engine.deadlines.run)
        start_soon(cleanup, engine, self.reception, self.loader)
        start_soon(engine.alerts.run)
        if found is not None and found.with_open_runs:
            start_soon(self.desk.recover, found.with_open_runs)

    def drop(self, user: str) -> None:
        """Have the log of `user`, which is another process's by now, out of memory; see `Moving.drop`."""
        self._moving.drop(user)

    def fenced(self, fenced: Fenced) -> None:
        """The store has refused what was of these users: their logs are another process's."""
        for user in fenced.users:
            self.drop(user)

    def suspend(self) -> None:
        """Accept nothing and send no events, until `resume`: another process may have what is here. Connections stay;
        their heartbeats go on. Not a checkpoint."""
        self._set_suspended(True)

    def resume(self) -> None:
        """What is here now is surely this process's: go on. Not a checkpoint."""
        self._set_suspended(False)
        for attachment in list(self.engine.attachments):
            attachment.resume()
        self.engine.react()

    def send_away(self, reason: str) -> None:
        """Have all who are connected here come again, in a while and maybe elsewhere: they are closed with 4503. Not a
        checkpoint.

        Args:
          reason: why, as they are told.
        """
        self._draining.send_away(reason)

    def _set_suspended(self, suspended: bool) -> None:
        self.engine.suspended = suspended
        if self.engine.durability is not None:
            self.engine.durability.suspended = suspended

    async def drain(self, timeout: float | None = None) -> None:
        """Go away in order: accept nothing more, tell each client, flush within a deadline, close with 4503.

        Events that were not confirmed stay held, sessions are parked. Draining twice is fine: the second call waits
        until the first is through. Cancelled, it stops waiting; the hub accepts nothing more all the same.
        A checkpoint.

        Args:
          timeout: seconds in all for clients to take what is pending; None takes `drain_timeout`.
        """
        await self._draining.drain(timeout)

    def end_now(self) -> None:
        """The hub has ended: whoever waits for it is told, and connections that are left are closed."""
        self._draining.end_now()

    def statistics(self) -> figures.HubStatistics:
        """A frozen snapshot of the main figures, in the manner of Trio's `statistics()`."""
        return figures.statistics(self.engine)

    def stats(self) -> dict[str, Any]:
        """Every figure, nested and named as `/v1/stats` has them."""
        stats = figures.stats(self.engine, self.intake, self.reception.inbox, self.desk)
        if self.cluster is not None:
            stats["cluster"] = figures.of_cluster(self.cluster)
        return stats

    def describe(self, user: str) -> dict[str, Any] | None:
        """What there is to know of one user: sessions, connections, buffer, lag; None for one who is not known."""
        box = self.engine.buffer.mailboxes.get(user)
        return None if box is None else figures.describe(self.engine, box)

    def list_users(self, prefix: str = "", limit: int = 50) -> dict[str, Any]:
        """Who is known, by name: ``users``, and whether there are ``more``.

        Args:
          prefix: what their names begin with.
          limit: how many.
        """
        return history.users(self.engine, prefix, limit)

    def events(self, user: str, limit: int = 50, before: int | None = None) -> dict[str, Any] | None:
        """The newest events of a user that are known; None for one who is not known.

        Args:
          limit: how many.
          before: only those of a lower seq.
        """
        box = self.engine.buffer.mailboxes.get(user)
        return None if box is None else history.events(self.engine, box, limit, before)

    async def find_events(
        self, user: str, limit: int = 50, before: int | None = None
    ) -> dict[str, Any] | None:
        """As `events`, with those that are in the store only, as memory has no room for them. A checkpoint where there
        are such.

        Raises:
          StoreUnavailable: the store can't be read.
        """
        box = self.engine.buffer.mailboxes.get(user)
        if box is None:
            return None
        behind = await history.events_behind(self.engine, box, limit, before)
        return history.events(self.engine, box, limit, before, behind)

    async def find_event(self, user: str, id: str) -> dict[str, Any] | None:
        """As `event`, also where it is in the store only. A checkpoint where that is to be read.

        Raises:
          StoreUnavailable: the store can't be read.
        """
        box = self.engine.buffer.mailboxes.get(user)
        if box is None:
            return None
        return history.event(self.engine, box, id, await history.event_behind(self.engine, box, id))

    def event(self, user: str, id: str) -> dict[str, Any] | None:
        """What became of one event, step by step; None where nothing is known of it."""
        box = self.engine.buffer.mailboxes.get(user)
        return None if box is None else history.event(self.engine, box, id)


@asynccontextmanager
async def open_hub(
    config: Config | None = None,
    *,
    store: Store | None = None,
    on_dead_letter: OnDeadLetter | None = None,
    on_alert: OnAlert | None = None,
    wall_clock: Callable[[], float] = time.time,
    new_id: Callable[[], str] = new_token,
) -> AsyncIterator[Hub]:
    """Run a hub for as long as the block lasts.

    Leaving the block drains it (see `Hub.drain`); leaving it by an exception, or cancelled, ends it at once.

    Args:
      config: the limits; None takes the defaults.
      store: where all that is to outlive this process is kept, such as `trio_ws.SqliteStore`; opened here, and closed.
        None keeps everything in memory.
      on_dead_letter: awaited with each critical event that expired unconfirmed; what it raises is logged.
      on_alert: awaited with each `Alert` that begins or ends, one after the other; what it raises is logged.
      wall_clock: seconds since the Unix epoch; for simulations.
      new_id: makes unguessable ids of at least 8 characters; for simulations.

    Raises:
      StoreError: the store can't be opened.
    """
    async with opened(store) as found, own_nursery() as nursery:
        engine = Engine(
            config or Config(),
            nursery,
            on_dead_letter=on_dead_letter,
            on_alert=on_alert,
            store=store,
            wall_clock=wall_clock,
            new_id=new_id,
        )
        async with Hub(engine).running(found) as hub:
            yield hub
