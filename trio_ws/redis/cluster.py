"""A Redis Cluster: which of its servers has which key, and what becomes of calls when that changes.

A key is in one of 16384 slots, by what of it is in braces; a slot is one primary's. Another one answers who has it
(MOVED), or who is about to (ASK), and there the call goes next. The map of slots is what most servers tell; it is asked
for anew when a call was sent on, and as long as one of them can't be reached.
"""

from __future__ import annotations

import binascii
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import attrs
import hiredis
import trio

from ..errors import StoreError
from .connection import OnPush
from .line import Line, to
from .refusals import Unreachable, refused
from .script import Script, Word, packed
from .subscriber import Subscriber
from .url import Place, Target

SLOTS: Final = 16384

ROUNDS: Final = 8
"""How often a call is sent on."""

LOOK: Final = 1.0
"""Seconds between two looks whether all servers can be reached."""

PATIENCE: Final = 0.5
"""Seconds that servers have to tell the map, where less than half of them do."""

PAUSE: Final = 0.05
"""Seconds until a call is asked again whose keys are just being moved, and between two maps."""

_ASKING: Final = packed("ASKING")
_MAP: Final = packed("CLUSTER", "SLOTS")

_Range = tuple[int, int, Place]


def slot_of(key: Word) -> int:
    """The slot that a key is in."""
    name = key if isinstance(key, bytes) else str(key).encode()
    begin = name.find(b"{") + 1
    end = name.find(b"}", begin) if begin else -1
    return binascii.crc_hqx(name[begin:end] if end > begin else name, 0) % SLOTS


@attrs.frozen
class _Way:
    """Where a call goes, and whether it is to be done there although the map does not say so."""

    place: Place
    asking: bool = False


class _Server:
    """One of the cluster's servers: lines to it, which are opened when they are first used."""

    def __init__(self, place: Place, target: Target, timeout: float, replicas: int) -> None:
        self.scope = trio.CancelScope()
        self.line = Line(to(place), target, timeout)
        self.patient = Line(to(place), target, timeout, replicas=replicas) if replicas else self.line

    async def run(self) -> None:
        """Hold the lines until the scope is cancelled."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                for line in dict.fromkeys((self.line, self.patient)):
                    nursery.start_soon(line.run)


class Cluster:
    """The cluster of which `target` names some servers. Methods are as those of `Servers`."""

    def __init__(self, target: Target, timeout: float, replicas: int) -> None:
        self._target = target
        self._timeout = timeout
        self._replicas = replicas
        self._servers: dict[Place, _Server] = {}
        self._map: list[Place | None] = [None] * SLOTS
        self._primaries: dict[Place, None] = {}
        self._mapped = trio.Event()
        self._stale = trio.Event()
        self._trouble: StoreError | None = None
        self._sharded: bool | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as self._nursery:
            try:
                await self._look()
                task_status.started()
                while True:
                    with trio.move_on_after(LOOK):
                        await self._stale.wait()
                    whole = all(self._server(place).line.stands for place in self._primaries)
                    if self._stale.is_set() or not whole or not self._primaries:
                        self._stale = trio.Event()
                        await self._look()
                        await trio.sleep(PAUSE)
            finally:
                self._nursery = None

    # -- calls

    async def ask(
        self,
        calls: Sequence[bytes],
        keys: Sequence[Word | None],
        script: Script | None = None,
        *,
        replicated: bool = False,
    ) -> list[Any]:
        try:
            await self._wait_mapped()
        except StoreError as error:
            return [error] * len(calls)
        replies: list[Any] = [None] * len(calls)
        places = {n: _Way(self._place_of(key)) for n, key in enumerate(keys)}
        for sent_on in range(ROUNDS):
            if sent_on > 1:
                await trio.sleep(PAUSE)
            groups: dict[_Way, list[int]] = {}
            for n, way in places.items():
                groups.setdefault(way, []).append(n)
            places.clear()

            async def ask(way: _Way, numbers: list[int]) -> None:
                answers = await self._ask_at(way, [calls[n] for n in numbers], script, replicated)
                for n, answer in zip(numbers, answers, strict=True):
                    replies[n] = answer
                    if (onward := self._onward(answer, way.place)) is not None:
                        places[n] = onward

            if len(groups) == 1:  # at once: calls of one turn stay in their order
                await ask(*groups.popitem())
            else:
                async with trio.open_nursery() as nursery:
                    for way, numbers in groups.items():
                        nursery.start_soon(ask, way, numbers)
            if not places:
                break
        return replies

    async def _ask_at(
        self, way: _Way, calls: list[bytes], script: Script | None, replicated: bool
    ) -> list[Any]:
        server = self._server(way.place)
        line = server.patient if replicated else server.line
        if way.asking:
            return (await line.ask([part for call in calls for part in (_ASKING, call)], script))[1::2]
        return await line.ask(calls, script)

    def _onward(self, answer: Any, place: Place) -> _Way | None:
        """Where a call is to be asked next that `place` has answered so; None where that was it."""
        if isinstance(answer, Unreachable):
            self._stale.set()
        if not isinstance(answer, hiredis.ReplyError):
            return None
        match str(answer).split():
            case ["MOVED", slot, where]:
                there = _place(where, place)
                self._map[int(slot)] = there
                self._stale.set()
                return _Way(there)
            case ["ASK", _, where]:
                return _Way(_place(where, place), asking=True)
            case ["TRYAGAIN", *_]:
                return _Way(place)
            case ["CLUSTERDOWN", *_]:
                self._stale.set()
        return None

    # -- channels

    async def publish(self, channel: str, message: bytes) -> Any:
        try:
            sharded = await self._is_sharded()
        except StoreError as error:
            return error
        [count] = await self.ask([packed("SPUBLISH" if sharded else "PUBLISH", channel, message)], [channel])
        if isinstance(count, Exception):
            return count
        if not sharded:
            return None
        if count == 0 and any(self._server(place).line.is_settling for place in self._primaries):
            return Unreachable("nobody listens yet, after the connection was lost")
        return count

    async def subscribe(
        self,
        channels: Sequence[str],
        take: Callable[[bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        sharded = None
        while sharded is None:
            try:
                sharded = await self._is_sharded()
            except StoreError:
                await trio.sleep(LOOK)
        async with trio.open_nursery() as nursery:
            for channel in channels:  # each may be another server's
                find = partial(self._find, channel)
                open_line = partial(self._open_line, find)
                await nursery.start(Subscriber(open_line, [channel], take, sharded=sharded).run)
            task_status.started()

    async def _is_sharded(self) -> bool:
        """Whether channels are a shard's, as they are since Redis 7: only then can be told who listens."""
        if self._sharded is None:
            [told] = await self.ask([packed("COMMAND", "INFO", "SPUBLISH")], [None])
            if isinstance(told, hiredis.ReplyError):
                raise refused(told, self._target)
            if isinstance(told, StoreError):
                raise told
            self._sharded = told[0] is not None
        return self._sharded

    async def _find(self, channel: str) -> Place:
        await self._wait_mapped()
        return self._place_of(channel)

    def _open_line(self, find: Callable[[], Awaitable[Place]], on_push: OnPush) -> Line:
        return Line(find, self._target, self._timeout, on_push=on_push)

    # -- who has what

    async def _wait_mapped(self) -> None:
        if not self._mapped.is_set():
            with trio.move_on_after(self._timeout):
                await self._mapped.wait()
        if not self._mapped.is_set():
            troubles = (server.line.trouble for server in self._servers.values())
            none = Unreachable(f"no server of the Redis cluster {self._target} can be reached")
            raise self._trouble or next(filter(None, troubles), none)

    def _place_of(self, key: Word | None) -> Place:
        """The primary that has a key; one that stands, for what has no key."""
        if key is not None:
            return self._map[slot_of(key)] or next(iter(self._primaries))
        up = (place for place in self._primaries if self._server(place).line.stands)
        return next(up, next(iter(self._primaries)))

    def _server(self, place: Place) -> _Server:
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = _Server(place, self._target, self._timeout, self._replicas)
            if self._nursery is not None:  # else it has ended
                self._nursery.start_soon(server.run)
        return server

    async def _look(self) -> None:
        """Ask for the map; what most servers say counts. Those that have no slots any more are let go."""
        places = self._primaries | dict.fromkeys(self._target.places)
        told: Counter[tuple[_Range, ...]] = Counter()
        async with trio.open_nursery() as nursery:

            async def ask(place: Place) -> None:
                [answer] = await self._server(place).line.ask([_MAP])
                if ranges := _ranges(answer, place):
                    told[ranges] += 1
                elif isinstance(answer, hiredis.ReplyError):
                    self._trouble = refused(answer, place)
                elif isinstance(answer, StoreError):
                    self._trouble = answer
                else:
                    self._trouble = Unreachable(
                        f"in the Redis cluster {self._target} nobody has any slots yet"
                    )
                if 2 * told.total() > len(places):
                    nursery.cancel_scope.cancel()

            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
            for place in places:
                nursery.start_soon(ask, place)
        if told:
            self._take_map(told.most_common(1)[0][0])
            for place in self._servers.keys() - self._primaries.keys():
                self._servers.pop(place).scope.cancel()

    def _take_map(self, ranges: tuple[_Range, ...]) -> None:
        self._map = [None] * SLOTS
        for first, last, place in ranges:
            self._map[first : last + 1] = [place] * (last + 1 - first)
        self._primaries = dict.fromkeys(place for _, _, place in ranges)
        self._mapped.set()


def _ranges(answer: Any, place: Place) -> tuple[_Range, ...]:
    """What CLUSTER SLOTS tells, asked at `place`."""
    if not isinstance(answer, list):
        return ()
    # An empty host is that of who was asked.
    told = [
        (first, last, Place((primary[0] or b"").decode() or place.host, primary[1]))
        for first, last, primary, *_ in answer
    ]
    return tuple(sorted(told, key=lambda one: one[0]))


def _place(text: str, asked: Place) -> Place:
    """What HOST:PORT means when `asked` says it."""
    host, _, port = text.rpartition(":")
    return Place(host or asked.host, int(port))
