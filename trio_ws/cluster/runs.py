"""Runs of users whose log another node has: looked at there, and told there to stop.

Both can be asked for again: what a node that died did of it changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..core.run_grammar import CANCELLING_EVENT
from ..errors import InvalidEvent, OwnedElsewhere, RunEnded, StoreUnavailable, UnknownRun
from .calls import CallFailed, Calls, NodeGone
from .forwarding import Forwarding, Patience

if TYPE_CHECKING:
    from .hub import ClusteredHub

T = TypeVar("T")


class Cancel(msgspec.Struct, array_like=True):
    """Which run is to stop, and why."""

    user: str
    run: str
    reason: str | None


class Cancelled(msgspec.Struct, array_like=True, tag=True):
    """It was told so."""


class Refused(msgspec.Struct, array_like=True, tag=True):
    """Why not: ``unknown``, ``ended`` or ``invalid``; in words, where the kind does not say it all."""

    kind: str
    why: str = ""


_encode = msgspec.msgpack.encode
_cancel = msgspec.msgpack.Decoder(Cancel)
_outcome = msgspec.msgpack.Decoder(Cancelled | Refused)
_snapshots = msgspec.json.Decoder(list[dict[str, Any]])


class RunsOverNodes:
    """What `Hub.runs` and `Hub.cancel_run` do for any user, of one node."""

    def __init__(self, hub: ClusteredHub, forwarding: Forwarding, calls: Calls) -> None:
        self._hub = hub
        self._forwarding = forwarding
        calls.handle("runs", self._runs_asked)
        calls.handle("cancel_run", self._cancel_asked)

    async def snapshots(self, user: str) -> list[dict[str, Any]]:
        """As `Hub.runs`, wherever the log of `user` is."""

        async def here() -> list[dict[str, Any]]:
            return await self._hub.runs_here(user)

        return await self._do(user, here, "runs", user.encode(), _snapshots.decode)

    async def cancel(self, user: str, run: str, reason: str | None) -> None:
        """As `Hub.cancel_run`, wherever the log of `user` is."""

        async def here() -> Cancelled | Refused:
            await self._hub.cancel_run_here(user, run, reason)
            return Cancelled()

        body = _encode(Cancel(user, run, reason))
        outcome = await self._do(user, here, "cancel_run", body, _outcome.decode)
        if isinstance(outcome, Refused):
            raise _error(run, outcome)

    async def _do(
        self,
        user: str,
        here: Callable[[], Awaitable[T]],
        verb: str,
        body: bytes,
        decode: Callable[[bytes], T],
    ) -> T:
        """Do it here, where the log is, or have the node asked that has it; where it moves meanwhile, again.

        Raises:
          StoreUnavailable: no node can be asked.
        """
        patience = Patience()
        while True:
            elsewhere = await self._hub.place(user)
            try:
                if elsewhere is None:
                    return await here()
                return decode(await self._forwarding.ask(elsewhere.node, user, verb, body))
            except (NodeGone, OwnedElsewhere) as error:
                await patience.pause(str(error))

    async def _runs_asked(self, sender: str, body: bytes) -> bytes:
        user = body.decode()
        try:
            await self._hub.have_here(user)
            return msgspec.json.encode(await self._hub.runs_here(user))
        except (OwnedElsewhere, StoreUnavailable) as error:
            raise CallFailed(str(error)) from None

    async def _cancel_asked(self, sender: str, body: bytes) -> bytes:
        asked = _cancel.decode(body)
        try:
            await self._hub.have_here(asked.user)
            await self._hub.cancel_run_here(asked.user, asked.run, asked.reason)
        except (OwnedElsewhere, StoreUnavailable) as error:
            raise CallFailed(str(error)) from None
        except (UnknownRun, RunEnded, InvalidEvent) as error:
            return _encode(_refused(error))
        return _encode(Cancelled())


def _refused(error: UnknownRun | RunEnded | InvalidEvent) -> Refused:
    match error:
        case UnknownRun():
            return Refused("unknown")
        case RunEnded():
            return Refused("ended", error.why)
    return Refused("invalid", str(error))


def _error(run: str, refused: Refused) -> UnknownRun | RunEnded | InvalidEvent:
    match refused.kind:
        case "unknown":
            return UnknownRun(run)
        case "ended":
            return RunEnded(run, CANCELLING_EVENT, refused.why)
    return InvalidEvent(refused.why, field="reason")
