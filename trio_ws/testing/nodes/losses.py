"""What a store that was set back has lost, and whether those who knew of it notice: the log has to begin anew.

A log is lost in part where the older copy has less of it. Those nodes know of that which have made a change that there
is not any more: while one of them lives and reaches the store, it has `NOTICED_WITHIN` seconds. Where all of them have
died, it is noticed by whoever takes the log over, if it was one of theirs in the older copy. Of all else nobody knows,
as docs/redis.md has it: seqs may be given again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final

import attrs
import trio

from ...store import Place
from ..counters import Sometimes
from .weather import Exposed

NOTICED_WITHIN: Final = 5.0
"""Seconds: a lease, and two sweeps."""


@attrs.define(eq=False)
class Loss:
    """What is lost of one log.

    Attributes:
      epochs: that the log has had; it must not go on in one of them.
      witnesses: the nodes that have made what is lost.
      is_theirs: one of them owns the log in the older copy.
      since: when one of the witnesses could not do anything about it last.
    """

    user: str
    epochs: Collection[str]
    witnesses: list[Exposed]
    is_theirs: bool
    since: float


class Losses:
    """All of a run.

    Args:
      place: where the store is.
      fail: is told of what was not noticed.
      epochs: in which a user's log was seen, by user.

    Attributes:
      happened: the store was set back, once at least.
    """

    def __init__(
        self,
        place: Place,
        fail: Callable[[str, str], None],
        epochs: dict[str, dict[str, None]],
        sometimes: Sometimes,
    ) -> None:
        self.happened = False
        self._place = place
        self._fail = fail
        self._epochs = epochs
        self._sometimes = sometimes
        self._open: list[Loss] = []
        self._void: dict[str, set[str]] = {}  # epochs in which a seq may have two meanings, by user
        self._windows: dict[str, list[tuple[float, float]]] = {}

    def set_back(self, before: Any, at: float, stores: list[Exposed]) -> None:
        """The place goes back to what it was `at` that time; this is to be called first.

        Args:
          before: what it was.
          stores: of all nodes that live.
        """
        now, self.happened = trio.current_time(), True
        then, data = before.logs, self._place.data
        # That a loss was noticed may be lost in its turn; and then nobody knows of it any more.
        self._open = [loss for loss in self._open if not self._is_noticed(loss)]
        for user in {**data.histories, **before.histories}:
            if then.kept(user) == data.logs.kept(user):
                continue
            history, owner = before.histories.get(user), before.owners.get(user)
            witnesses = [
                store
                for store in stores
                if (made := store.made(user)) and (history is None or history.has_lost(made))
            ]
            kept = [log.kept(user) for log in (then, data.logs)]
            epochs = {*self._epochs.get(user, ()), *(k.user.epoch for k in kept if k is not None)}
            is_theirs = owner is not None and any(store.node == owner.node for store in witnesses)
            self._void.setdefault(user, set()).update(epochs)
            self._windows.setdefault(user, []).append((at, now))
            self._sometimes("a log lost changes")
            if witnesses:
                self._open.append(Loss(user, epochs, witnesses, is_theirs, now))
            else:
                self._sometimes("nobody knows that a log lost changes")

    def is_void(self, user: str, epoch: str) -> bool:
        """Whether a seq of this epoch may have two meanings."""
        return epoch in self._void.get(user, ())

    def may_have_cost(self, user: str, asked_at: float, promised_at: float) -> bool:
        """Whether what was accepted for a user, between these two times, may be lost."""
        return any(asked_at <= until and promised_at >= since for since, until in self._windows.get(user, ()))

    def look(self, is_held_up: Callable[[Exposed], bool]) -> None:
        """See which of them are noticed, and which should be.

        Args:
          is_held_up: whether a node can't do anything now.
        """
        self._open = [loss for loss in self._open if self._is_open(loss, is_held_up)]

    def _is_open(self, loss: Loss, is_held_up: Callable[[Exposed], bool]) -> bool:
        data, now, user = self._place.data, trio.current_time(), loss.user
        owner = data.owners.get(user)
        if self._is_noticed(loss):
            self._sometimes("a log that lost changes begins anew")
            return False
        living = [store for store in loss.witnesses if not store.over]
        if not living and not loss.is_theirs:
            self._sometimes("nobody knows that a log lost changes")
            return False
        # The log of one that has died waits for somebody to take it over.
        waits = owner is not None and any(store.node == owner.node for store in loss.witnesses)
        if any(map(is_held_up, living)) or (waits and not living):
            loss.since = now
        if now > loss.since + NOTICED_WITHIN:
            self._fail(
                "a log of which changes are lost begins anew",
                f"{user} goes on as before, {now - loss.since:.2f} s later",
            )
            loss.since = math.inf
        return True

    def _is_noticed(self, loss: Loss) -> bool:
        """Whether a log begins anew, or has gone."""
        data = self._place.data
        history, kept = data.histories.get(loss.user), data.logs.kept(loss.user)
        return history is None or kept is None or history.void or kept.user.epoch not in loss.epochs
