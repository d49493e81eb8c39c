"""Group commit: what the ledger has noted goes to the store, a batch at a time; and whether one can rely on the store.

    ok        commits go through
    slow      one has been under way for `STALL` seconds
    failing   the last try has failed; the same batch is tried again, with pauses that grow, until it goes through
    suspended where several processes share the store: this one can't be sure that what it has is still its own

While it is not ok, nothing is accepted that must be durable (`StoreUnavailable`); what is committed is delivered all
the same, and what is not is neither shown to clients nor told to publishers. When a commit goes through, all is well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import trio

from ..config import MIB, Config
from ..core.buffer import Buffer
from ..core.histogram import Histogram
from ..core.ledger import NOW, SOON, Ledger
from ..core.mailbox import Mailbox
from ..core.records import Batch, RevokedRecord
from ..errors import StoreError, StoreUnavailable
from ..store import Fenced, Store, divided, without

if TYPE_CHECKING:
    from .receipt import Confirmation, Receipt

logger = logging.getLogger(__name__)

MOST: Final = 200
"""Events of one commit, so that the loop is not held up by drawing them up."""

MOST_BYTES: Final = 4 * MIB
"""About how many bytes of events one commit has, so that it is through in time over a slow network, or on a slow disk,
and other calls of a store need not wait behind it for long."""

STATES: Final = ("ok", "slow", "failing", "suspended")

STALL: Final = 1.0
"""Seconds that a commit may take; then the store counts as slow."""

PATIENCE: Final = 5.0
"""Seconds that a publisher waits for the commit of its event."""

PROGRESS: Final = 10
"""How many times `commit_interval` acks, and where sessions are, may wait for an event to be written along with."""

MOVED_AWAY: Final = "another node has the user's log by now: publish it again, under the same id"

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0


class Durability:
    """Commits for one hub.

    Args:
      store: where to; open.
      clock, wall_clock: seconds on the hub's clock, and since the Unix epoch.
      on_ready: is called with each mailbox that has more to show since it was committed.
      on_commit: is called after each commit.

    Attributes:
      ledger: what is not durable yet.
      commits, errors: how many went through, and how many tries failed.
      events: how many events were written.
      seconds: how long commits took.
      buffer: the logs that are in memory; the engine sees to it.
      loaded: is set when the next log has come into memory, and is another one then.
      suspended: nothing at all is accepted, durable or not.
      on_fenced: is called with what the store has refused, as it is another process's.
      follow: waits, until a deadline, for the confirmation of an event whose log is another process's.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_ready: Callable[[Mailbox], None],
        on_commit: Callable[[], None],
    ) -> None:
        self.store = store
        self.ledger = Ledger(config.durability, config.session_ttl, config.event_ttl, self._on_work)
        self.commits = self.errors = self.events = 0
        self.seconds = Histogram()
        self.buffer: Buffer
        self.loaded = trio.Event()
        self.suspended = False
        self.on_fenced: Callable[[Fenced], None] | None = None
        self.follow: Callable[[Receipt, float], Awaitable[Confirmation]] | None = None
        self._interval = config.commit_interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_ready = on_ready
        self._on_commit = on_commit
        self._work, self._soon, self._hurry, self._done = (trio.Event() for _ in range(4))
        self._since = math.inf  # when the commit that is under way began
        self._error: str | None = None
        self._failing_since = math.inf
        self._revoked: dict[str, RevokedRecord] = {}
        self._trying: Batch | None = None
        self._abandoned: set[str] = set()  # of whom nothing of the batch under way is to be written any more
        self._tried = trio.Event()
        self._begun = self._through = 0  # turns, each with at most one commit
        self._unconfirmed_at_open: int | None = None
        self._unconfirmed_read = 0

    # -- the state of the store

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.suspended:
            return "suspended"
        if self._error is not None:
            return "failing"
        return "slow" if self._clock() - self._since > STALL else "ok"

    def check(self, retention: int) -> None:
        """Refuse an event of this class, where it must be durable and the store can't be relied on; and any while it is
        suspended.

        Raises:
          StoreUnavailable: that is so.
        """
        if self.suspended or (self.ledger.is_durable(retention) and self.state != "ok"):
            raise StoreUnavailable(self.reason)

    @property
    def reason(self) -> str:
        """Why nothing durable is accepted."""
        if self.suspended:
            return "this node has no touch with the store that it shares with others"
        if self._error is not None:
            return f"the store fails: {self._error}"
        return f"the store is slow: a commit has taken more than {STALL:g} s so far"

    @property
    def idle(self) -> bool:
        """Whether everything is durable."""
        return not len(self.ledger) and not self._revoked and self._since == math.inf

    @property
    def unread(self) -> int | None:
        """How many unconfirmed events there are of users of whom nothing was read yet; None as long as that is not
        known."""
        opened_with = self._unconfirmed_at_open
        return None if opened_with is None else max(0, opened_with - self._unconfirmed_read)

    def was_read(self, unconfirmed: int) -> None:
        """The log of a user came into memory for the first time, with so many events that are unconfirmed."""
        self._unconfirmed_read += unconfirmed

    async def survey(self) -> None:
        """Look over all that the store holds, once."""
        self._unconfirmed_at_open = await self.store.check()

    # -- for those who wait

    async def wait(self, box: Mailbox, seq: int) -> None:
        """Wait until what `box` has accepted up to `seq` is durable. A checkpoint, unless it is so.

        Raises:
          StoreUnavailable: it takes more than `PATIENCE` seconds, or the log is another process's by now; it may still
            come to be.
        """
        track = box.track
        if track is None or track.committed >= seq:
            return
        with trio.move_on_after(PATIENCE):
            while track.committed < seq:
                if box.closed:
                    raise StoreUnavailable(MOVED_AWAY)
                await self._done.wait()
            return
        raise StoreUnavailable(f"not durable after {PATIENCE:g} s: {self.reason}")

    async def wait_for_next(self) -> None:
        """Wait for a commit that begins from now on: what has changed up to now is in it, unless there is very much
        (`MOST`, `MOST_BYTES`). A checkpoint.

        Raises:
          StoreUnavailable: the store can't be relied on, or it takes more than `PATIENCE` seconds.
        """
        turn = self._begun + 1
        if self.state != "ok":
            raise StoreUnavailable(self.reason)
        with trio.move_on_after(PATIENCE):
            while self._through < turn:
                self._on_work(NOW)
                await self._done.wait()
            return
        raise StoreUnavailable(f"not durable after {PATIENCE:g} s: {self.reason}")

    async def next_commit(self) -> bool:
        """Wait for the next commit, at most `PATIENCE` seconds. A checkpoint.

        Returns: whether there was one.
        """
        with trio.move_on_after(PATIENCE) as patience:
            await self._done.wait()
        return not patience.cancelled_caught

    async def finish(self) -> None:
        """Wait until nothing is left to commit. A checkpoint."""
        self.ledger.tighten(math.inf)
        while not self.idle:
            self._on_work(NOW)
            await self._done.wait()
            self.ledger.tighten(math.inf)
        await trio.lowlevel.checkpoint()

    # -- the commits

    def revoke(self, record: RevokedRecord) -> None:
        """Have it kept that a user is revoked."""
        self._revoked[record.user] = record
        self._on_work(NOW)

    def _on_work(self, urgency: int) -> None:
        self._work.set()
        if urgency >= SOON:
            self._soon.set()
        if urgency >= NOW:
            self._hurry.set()

    async def run(self) -> None:
        """Commit what there is, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self.ledger.tighten(self._clock())):
                await self._work.wait()
            # Who waits is not kept waiting, but for what others do in the same turn; who doesn't waits for company.
            with trio.move_on_after(PROGRESS * self._interval):
                await self._soon.wait()
            with trio.move_on_after(self._interval):
                await self._hurry.wait()
            self._work, self._soon, self._hurry = (trio.Event() for _ in range(3))
            now = self._clock()
            self._begun += 1
            batch = self._draw_up(now)
            if batch is not None:
                self._since = now
                await self._commit(batch)
                self.seconds.record(self._clock() - now)
            self._since = math.inf
            self._through = self._begun
            self._wake_all()

    def _wake_all(self) -> None:
        done, self._done = self._done, trio.Event()
        done.set()

    def _draw_up(self, now: float) -> Batch | None:
        batch = self.ledger.draw_up(MOST, MOST_BYTES, now, self._wall_clock() - now)
        if self._revoked:
            batch = batch or Batch()
            batch.revoked, self._revoked = list(self._revoked.values()), {}
        return batch

    async def _commit(self, batch: Batch) -> None:
        """Bring one batch to the store, however long it takes."""
        pause = FIRST_PAUSE
        fenced: Fenced | None = None
        self._abandoned = set()
        while True:
            try:
                await self._try(batch)
            except Fenced as error:
                fenced = error
                break
            except StoreError as error:
                self._failed(str(error))
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                break
            if self._abandoned:
                batch = without(batch, self._abandoned)
        refused = self._abandoned if fenced is None else self._abandoned | fenced.users
        if self._error is not None:
            logger.warning("the store is back", extra={"failed_for": self._clock() - self._failing_since})
            self._error, self._failing_since = None, math.inf
        self.commits += 1
        self.events += len(batch.events)
        for box in self.ledger.committed(refused):
            self._on_ready(box)
        if fenced is not None and self.on_fenced is not None:
            self.on_fenced(fenced)
        self._on_commit()

    async def _try(self, batch: Batch) -> None:
        self._trying = batch
        try:
            await self.store.commit(batch)
        finally:
            self._trying = None
            tried, self._tried = self._tried, trio.Event()
            tried.set()

    def abandon(self, user: str) -> None:
        """Of `user` nothing more is written, but by the try that is under way."""
        self._abandoned.add(user)
        self._wake_all()

    @property
    def writing(self) -> Collection[str]:
        """The users of whom something is written by the try that is under way."""
        return () if self._trying is None else divided(self._trying).keys()

    async def untouched(self, user: str) -> None:
        """Wait until no try is under way that writes something of `user`. A checkpoint where there is one."""
        while user in self.writing:
            await self._tried.wait()

    def _failed(self, error: str) -> None:
        self.errors += 1
        if self._error is None:
            self._failing_since = self._clock()
            logger.error(
                "the store fails: nothing durable is accepted until it is back", extra={"error": error}
            )
        self._error = error

    def stats(self) -> dict[str, Any]:
        """What there is to tell of it."""
        return {
            **self.store.stats(),
            "state": self.state,
            "error": self._error,
            "pending": len(self.ledger),
            "commits": self.commits,
            "errors": self.errors,
            "events_written": self.events,
            "commit_p50": self.seconds.percentile(0.5),
            "commit_p99": self.seconds.percentile(0.99),
        }
