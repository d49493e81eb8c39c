"""The hub of one node of a cluster: a hub that has the logs that its node owns, and reaches all others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from typing import Any, Final, Literal

import msgspec
import trio

from ..core.buffer import UNREAD
from ..errors import EventTooLarge, HubClosed, OwnedElsewhere, StoreError, StoreUnavailable
from ..event import Priority
from ..hub import Hub, Receipt
from ..hub.elsewhere import HttpAnswer, HttpCall, NoAnswer
from ..hub.engine import Engine
from ..hub.intake import check_name
from ..hub.parcel import Parcel
from ..store import Fenced, NodeRecord, Opened, SharedStore
from .bus import Bus
from .calls import CallFailed, Calls, NodeGone
from .elsewhere import ClusterSeen, ElsewhereUser
from .forwarding import Forwarding, receipt_of
from .leaving import Leaving
from .membership import Membership
from .ownership import Ownership
from .peers import Peers
from .relay_edge import Edge
from .relay_owner import Relayed
from .runs import RunsOverNodes
from .sweeping import Sweeping

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""To how many users an event goes at once, where it is for many."""

ASKED: Final = 3
"""How often a node is asked for a log that it says to have given away, while the store says otherwise."""

ALONE: Final = 20.0
"""Seconds for which a suspended node keeps its clients."""

RELEASE_GRACE: Final = 2.0
"""Seconds that it may take to give all logs back."""


class ClusteredHub(Hub):
    """The hub of a node. Made by `open_node`.

    What `Hub` has is here for users whose log this node has; `place` says whether it does. `publish`, `broadcast`,
    receipts, `runs` and `cancel_run` reach users wherever their log is; all, for `broadcast`, are those whose log is
    here. What can be done only where the log is (`run`, `open_run`, `find_run`, subscriptions, `publish_nowait`) brings
    it here, if nobody is connected there, or raises `OwnedElsewhere`.

    Attributes:
      node: the id of this node's life.
      store: what the nodes share.
      bus, calls: how they reach each other.
      membership: which of them live.
      ownership: who has which log.
      forwarding: publishes and confirmations over nodes.
      leaving: gives logs back.
      edge, relayed: connections whose socket is here and whose session is not; and the other way round.
    """

    def __init__(self, engine: Engine, store: SharedStore, about: Callable[[], dict[str, object]]) -> None:
        super().__init__(engine)
        assert engine.durability is not None
        self.node, self.store = store.node, store
        self._told_about = about
        self.cluster = ClusterSeen(self)
        nursery = engine.nursery
        self.bus = Bus(store, nursery, engine.wall_clock)
        self.membership = Membership(
            store, self._about, on_suspended=self.suspend, on_back=self._come_back, on_gone=self._node_is_gone
        )
        self.calls = Calls(self.bus, nursery, self.membership.lives)
        self.ownership = Ownership(
            store,
            self.membership,
            nursery,
            before_claim=engine.durability.untouched,
            on_claimed=self._claimed,
        )
        self.forwarding = Forwarding(self, self.calls)
        self._runs_over_nodes = RunsOverNodes(self, self.forwarding, self.calls)
        self.peers = Peers(self.bus, engine.clock, self.membership.lives, lambda: engine.suspended)
        self.edge = Edge(engine, self.peers, self.calls)
        self.relayed = Relayed(self, self.peers, self.calls, owns=self.ownership.owned.__contains__)
        self.fenced_off = self.calls_forwarded = 0
        self._durability = engine.durability
        self._boxes = engine.buffer.mailboxes
        self.leaving = Leaving(engine, engine.durability, self.ownership, self._moving)
        self._sweeping = Sweeping(self, engine.durability, self.leaving)
        self._sent_for: set[str] = set()
        engine.buffer.admits = self.ownership.owned.__contains__
        engine.durability.follow = self.forwarding.follow
        self.loader.connected_until = None
        self.calls.handle("hand_over", self._hand_over_asked)
        self.calls.handle("http", self._http_asked)

    def start(self, found: Opened | None) -> None:
        """See `Hub.start`."""
        super().start(found)
        start_soon = self.engine.nursery.start_soon
        start_soon(self.bus.run)
        start_soon(self.membership.run)
        start_soon(self.peers.run)
        start_soon(self._sweeping.run)
        start_soon(self._sweeping.hear_of_revoked)

    # -- where a log is

    async def place(self, user: str, *, to_connect: bool = False) -> ElsewhereUser | None:
        """See `Hub.place`."""
        if user in self._boxes:
            if to_connect:
                self.leaving.expect(user)
            return None
        check_name(user, "user")
        asked = 0
        while True:
            if self.engine.closed:
                raise HubClosed("the hub has ended")
            if self.engine.suspended:
                raise StoreUnavailable(self._durability.reason)
            if self.draining and user not in self.ownership.owned:
                raise StoreUnavailable("this node goes away, and takes no more logs")
            try:
                owner = await self.ownership.find(user)
            except StoreError as error:
                raise StoreUnavailable(f"it can't be found out who has the user's log: {error}") from error
            if owner.node != self.node:
                if to_connect and asked < ASKED and await self.ask_for(user, owner.node):
                    asked += 1
                    continue
                return ElsewhereUser(self, owner.node, user)
            await super().load(user, to_connect=to_connect)
            if user in self.ownership.owned and user not in self.engine.buffer.asleep:
                self.engine.buffer.mailbox(user)  # a new one, where nothing is kept of it
                if to_connect:
                    self.leaving.expect(user)
                return None

    async def have_here(self, user: str) -> None:
        """Have the log of `user` here, if this node owns it, or nobody else does.

        Raises:
          OwnedElsewhere: another node does.
          StoreUnavailable: as `load`.
        """
        if self.draining and user not in self.ownership.owned:
            raise OwnedElsewhere(user)
        elsewhere = await self.place(user)
        if elsewhere is not None:
            raise OwnedElsewhere(user, elsewhere.node)

    async def load(self, user: str, *, to_connect: bool = False) -> None:
        """As `Hub.load`. Where another node has the log, and nobody is connected there, it is brought here.

        Raises:
          OwnedElsewhere: it has to stay there.
        """
        if user in self._boxes:
            return
        elsewhere = await self.place(user, to_connect=True)
        if elsewhere is not None:
            raise OwnedElsewhere(user, elsewhere.node)

    async def ask_for(self, user: str, node: str) -> bool:
        """Ask a node for the log of `user`; returns whether it is worth another look who has it."""
        try:
            gone = await self.calls.call(node, "hand_over", user.encode()) == b"gone"
        except (NodeGone, CallFailed) as error:
            self.ownership.forget(user, node, gone=isinstance(error, NodeGone))
            return True
        if gone:
            self.ownership.forget(user, node)
        return gone

    async def _hand_over_asked(self, sender: str, body: bytes) -> bytes:
        user = body.decode()
        if self.ownership.is_changing(user):
            await self.ownership.unchanging(user)
            return b"gone"
        if user not in self.ownership.owned:  # though the store may say so: a claim whose answer was lost
            try:
                await self.have_here(user)
            except (OwnedElsewhere, StoreUnavailable):
                return b"gone"
        return b"gone" if await self.hand_over(user) else b"stays"

    async def hand_over(self, user: str) -> bool:
        """Give a log back, so that another node may have it; it stays where somebody here needs it. A checkpoint."""
        return await self.leaving.hand_over(user)

    def _claimed(self, user: str) -> None:
        self.engine.buffer.asleep[user] = UNREAD

    def suspend(self) -> None:
        """As `Hub.suspend`. Where that lasts, clients are sent away: other nodes may do better."""
        super().suspend()
        self.engine.nursery.start_soon(self._send_away_if_it_lasts, self.membership.suspensions)

    async def _send_away_if_it_lasts(self, suspension: int) -> None:
        await trio.sleep(ALONE)
        if self.engine.suspended and self.membership.suspensions == suspension:
            self.send_away("this node can't reach the store")

    def drop(self, user: str) -> None:
        """See `Hub.drop`."""
        self.ownership.lost(user)
        self.leaving.forget(user)
        super().drop(user)

    def fenced(self, fenced: Fenced) -> None:
        """See `Hub.fenced`."""
        self.fenced_off += len(fenced.users)
        if fenced.rolled_back:
            logger.error(
                "the store has lost commits: the logs begin anew", extra={"users": len(fenced.rolled_back)}
            )
        super().fenced(fenced)

    def _about(self) -> dict[str, object]:
        state = "draining" if self.draining else "suspended" if self.engine.suspended else "serving"
        return {**self._told_about(), "state": state}

    def _node_is_gone(self, record: NodeRecord) -> None:
        if record.left > 0:
            logger.info("a node has left", extra={"peer": record.node})
        else:
            logger.warning("a node is gone", extra={"peer": record.node})
        self.ownership.node_is_gone(record.node)

    # -- publishing

    async def publish(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """As `Hub.publish`, wherever the user's log is.

        Raises:
          StoreUnavailable: also where the node that has it can't be reached, for a while.
        """
        if user in self._boxes:
            try:
                return await super().publish(
                    user,
                    type,
                    payload,
                    id=id,
                    priority=priority,
                    key=key,
                    merge=merge,
                    ttl=ttl,
                    confirm=confirm,
                )
            except OwnedElsewhere:
                pass  # it moved while this waited, and the event was not accepted
        parcel = self.intake.check(type, id, priority, key, merge, ttl, confirm)
        self._check_open()
        check_name(user, "user")
        await self.intake.encode_any(parcel, payload)
        return await self.forwarding.publish(user, parcel)

    def is_durable(self, parcel: Parcel) -> bool:
        """Whether an event is durable before its publisher is told that it was accepted."""
        return self._durability.ledger.is_durable(parcel.retention)

    async def submit_here(self, user: str, parcel: Parcel, *, commit: bool = True) -> Receipt:
        """Have an event accepted in a log that is here.

        Raises:
          OwnedElsewhere: it is not, or not any more.
        """
        return await super().submit(user, parcel, commit=commit)

    async def submit(self, user: str, parcel: Parcel, *, commit: bool = True) -> Receipt:
        """See `Hub.submit`: for events of runs, whose user's log is here."""
        if user not in self._boxes:
            await self.load(user)
        return await super().submit(user, parcel, commit=commit)

    def submit_nowait(self, user: str, parcel: Parcel) -> Receipt:
        """See `Hub.submit_nowait`; of a user whose log is not here, it is sent for.

        Raises:
          trio.WouldBlock: it was not here.
          OwnedElsewhere: another node has it.
        """
        if user not in self._boxes:
            self._check_open()
            if (node := self.ownership.other(user)) is not None:
                raise OwnedElsewhere(user, node)
            if user not in self._sent_for:
                self._sent_for.add(user)
                self.engine.nursery.start_soon(self._send_for, user)
            raise trio.WouldBlock
        return super().submit_nowait(user, parcel)

    async def _send_for(self, user: str) -> None:
        try:
            await self.load(user)
        except (OwnedElsewhere, StoreUnavailable):
            pass  # whoever needs it asks again
        finally:
            self._sent_for.discard(user)

    async def _submit_to_all(self, names: list[str], parcel: Parcel) -> list[Receipt]:
        """See `Hub.broadcast`: wherever their logs are."""
        parcel.id = parcel.id or self.engine.fresh_id()
        receipts: dict[str, Receipt] = {}

        async def publish(user: str) -> None:
            receipts[user] = await self.forwarding.publish(user, copy(parcel))

        errors: list[BaseException] = []
        for at in range(0, len(names), AT_ONCE):
            try:
                async with trio.open_nursery() as nursery:
                    for name in names[at : at + AT_ONCE]:
                        nursery.start_soon(publish, name)
            except* (HubClosed, EventTooLarge, StoreUnavailable) as group:
                errors += group.exceptions
            if errors:
                raise errors[0]
        return [receipts[name] for name in names]

    def receipt_here(self, user: str, epoch: str, seq: int, id: str) -> Receipt | None:
        """The receipt of an event whose log is here; None where that is another log, or another event."""
        box = self._boxes.get(user)
        return None if box is None or box.epoch != epoch else receipt_of(self, box, seq, id)

    # -- runs

    async def runs(self, user: str) -> list[dict[str, Any]]:
        """As `Hub.runs`, wherever the user's log is.

        Raises:
          StoreUnavailable: it can't be read, or the node that has it can't be reached for a while.
        """
        return await self._runs_over_nodes.snapshots(user)

    async def runs_here(self, user: str) -> list[dict[str, Any]]:
        """The runs of a user whose log is here; as `Hub.runs`."""
        return await super().runs(user)

    async def cancel_run(self, user: str, run_id: str, reason: str | None = None) -> None:
        """As `Hub.cancel_run`, wherever the user's log is.

        Raises:
          StoreUnavailable: as `runs`; the run may have been told to stop.
        """
        await self._runs_over_nodes.cancel(user, run_id, reason)

    async def cancel_run_here(self, user: str, run_id: str, reason: str | None) -> None:
        """Have a run stop of a user whose log is here; as `Hub.cancel_run`."""
        await super().cancel_run(user, run_id, reason)

    # -- calls of the admin API

    async def ask_http(self, node: str, user: str | None, call: HttpCall) -> HttpAnswer:
        """Have a node answer a call; one for the sake of a user only if it has that one's log.

        Raises:
          NoAnswer: none came in time, or it has not.
        """
        self.calls_forwarded += call.method == "POST" or user is not None
        body = msgspec.msgpack.encode((user, msgspec.to_builtins(call, builtin_types=(bytes,))))
        try:
            with trio.fail_after(call.timeout):
                answer = await self.calls.call(node, "http", body)
        except trio.TooSlowError:
            raise NoAnswer(f"node {node} did not answer in time") from None
        except (NodeGone, CallFailed) as error:
            if user is not None:
                self.ownership.forget(user, node, gone=isinstance(error, NodeGone))
            raise NoAnswer(str(error), in_doubt=isinstance(error, NodeGone)) from error
        return msgspec.msgpack.decode(answer, type=HttpAnswer)

    async def _http_asked(self, sender: str, body: bytes) -> bytes:
        user, call = msgspec.msgpack.decode(body, type=tuple[str | None, HttpCall])
        if user is not None:
            try:
                await self.have_here(user)
            except (OwnedElsewhere, StoreUnavailable) as error:
                raise CallFailed(str(error)) from None
        if self.on_call is None:
            return msgspec.msgpack.encode(msgspec.to_builtins(HttpAnswer(status=404)))
        answer = await self.on_call(call)
        return msgspec.msgpack.encode(msgspec.to_builtins(answer, builtin_types=(bytes,)))

    # -- coming back, and going

    async def _come_back(self) -> None:
        """This node was suspended, and lives again: drop what others have by now, and go on with the rest.

        Raises:
          StoreError: that can't be found out.
        """
        fenced = await self.ownership.look_at_all()
        if fenced is not None:
            self.fenced(fenced)
        self.resume()

    def end_now(self) -> None:
        """See `Hub.end_now`."""
        self.ownership.closed = True
        super().end_now()

    async def drain(self, timeout: float | None = None) -> None:
        """As `Hub.drain`; then all logs are given back, so that other nodes have them without a wait."""
        await super().drain(timeout)
        with trio.move_on_after(RELEASE_GRACE):
            await self.leaving.give_all_back()
            await self.membership.leave()
