"""The handshakes that are under way: how many there may be, and who makes way when one more comes.

Who comes is always let in, and where that is one too many another is cut, whichever it may be. To refuse who comes
would let a few hundred silent sockets lock everybody out; to cut the oldest would, under a flood, cut everyone whose
network is slow. Cut at random, each gets through with the chance that its own speed gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .handshake import Handshake

_STEP: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


class Handshakes:
    """All that are under way.

    Args:
      limit: how many there may be.
      address_limit: how many of one address.
    """

    def __init__(self, limit: int, address_limit: int) -> None:
        self._limit = limit
        self._address_limit = address_limit
        self._all = _Crowd()
        self._of: dict[str, _Crowd] = {}
        self._drawn = 0

    def __iter__(self) -> Iterator[Handshake]:
        return iter(list(self._all.members))

    def __len__(self) -> int:
        return len(self._all.members)

    def add(self, handshake: Handshake) -> Handshake | None:
        """One more; returns the one that has to make way, if one has to."""
        victim = None
        address = handshake.address
        own = None if address is None else self._of.get(address)
        if own is not None and len(own.members) >= self._address_limit:
            victim = self._draw(own)
        elif len(self._all.members) >= self._limit:
            victim = self._draw(self._all)
        if victim is not None:
            self.discard(victim)
        self._all.add(handshake)
        if address is not None:
            self._of.setdefault(address, _Crowd()).add(handshake)
        return victim

    def discard(self, handshake: Handshake) -> None:
        """It is over; idempotent."""
        self._all.discard(handshake)
        address = handshake.address
        if address is not None and (own := self._of.get(address)) is not None:
            own.discard(handshake)
            if not own.members:
                del self._of[address]

    def _draw(self, crowd: _Crowd) -> Handshake:
        """Any of them. Without chance, so that a simulation is repeated by its seed (splitmix64)."""
        self._drawn += 1
        z = self._drawn * _STEP & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return crowd.members[(z ^ z >> 31) % len(crowd.members)]


class _Crowd:
    """A set that any of its members can be drawn from in O(1)."""

    def __init__(self) -> None:
        self.members: list[Handshake] = []
        self._places: dict[Handshake, int] = {}

    def add(self, handshake: Handshake) -> None:
        self._places[handshake] = len(self.members)
        self.members.append(handshake)

    def discard(self, handshake: Handshake) -> None:
        place = self._places.pop(handshake, None)
        if place is not None:
            last = self.members.pop()
            if last is not handshake:
                self.members[place] = last
                self._places[last] = place
