"""What may be cancelled in a run, from a call to all that serves a connection; and one of it, cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio

from ..counters import Sometimes

T = TypeVar("T")


class Cancels:
    """The calls and blocks that are under way, and would be cancelled by an application now and then.

    Args:
      sometimes: counts what was cancelled.
    """

    def __init__(self, sometimes: Sometimes) -> None:
        self._sometimes = sometimes
        self._scopes: dict[trio.CancelScope, str] = {}

    @contextmanager
    def scope(self, kind: str) -> Iterator[trio.CancelScope]:
        """A cancel scope that may be cancelled from outside while the block lasts."""
        with trio.CancelScope() as scope:
            self._scopes[scope] = kind
            try:
                yield scope
            finally:
                del self._scopes[scope]

    def cancel_any(self, at: float) -> None:
        """Cancel one of them: that which stands at this share of the way, from 0 to below 1. Not a checkpoint."""
        if self._scopes:
            scope = pick(list(self._scopes), at)
            self._sometimes(f"cancelled: {self._scopes[scope]}")
            scope.cancel()


def pick(candidates: Sequence[T], at: float) -> T:
    """The one that stands at this share of the way."""
    return candidates[int(at * len(candidates))]
