"""Sentinels, asked which server is the primary.

All are asked at once, and the answer of the newest configuration counts: a sentinel that is cut off from the others
tells of the primary that was. They are asked before each attempt to connect; and each second, for a primary that is cut
off from them stays one in its own eyes, and what it is told then is lost when it comes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import trio

from ..errors import StoreError
from .line import Line, to
from .refusals import Unreachable, is_refusal
from .script import packed
from .url import Place, Target

PATIENCE: Final = 0.5
"""Seconds that the sentinels have to answer, where less than half of them do."""

LOOK: Final = 1.0
"""Seconds between two looks whether the primary is still the same."""


@attrs.frozen
class _Answer:
    epoch: int
    place: Place


class Sentinels:
    """Those of `target`, over lines of their own.

    Args:
      timeout: seconds for a call, and for an attempt to connect.
      on_told: told each second where the primary is.
    """

    def __init__(self, target: Target, timeout: float, on_told: Callable[[Place], None]) -> None:
        self._target = target
        self._on_told = on_told
        login = attrs.evolve(target, login=target.sentinel_login, db=0)
        self._lines = [Line(to(place), login, timeout) for place in target.places]
        # Amid a failover, what is told of the primary has the new epoch already, and the address of the old one.
        self._questions = [
            packed("SENTINEL", "MASTER", target.name),
            packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.name),
        ]

    async def run(self) -> None:
        """Hold the lines, and look now and then, until cancelled."""
        async with trio.open_nursery() as nursery:
            for line in self._lines:
                nursery.start_soon(line.run)
            while True:
                await trio.sleep(LOOK)
                with suppress(StoreError):
                    self._on_told(await self.find())

    async def find(self) -> Place:
        """The primary.

        Raises:
          Unreachable: no sentinel can be asked, or none knows it.
          StoreError: all that were named are none, or let nobody in.
        """
        answers: list[_Answer] = []
        troubles: list[StoreError] = []

        async with trio.open_nursery() as nursery:

            async def ask(line: Line) -> None:
                try:
                    answers.append(await self._ask(line))
                except StoreError as error:
                    troubles.append(error)
                if 2 * len(answers) > len(self._lines):
                    nursery.cancel_scope.cancel()

            nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
            for line in self._lines:
                nursery.start_soon(ask, line)
        if not answers:
            # Who has not answered may be known not to be there.
            found = [*troubles, *(line.trouble for line in self._lines if line.trouble is not None)]
            why = found[0] if found else f"none has answered within {PATIENCE:g} s"
            message = f"where Redis {self._target} is, no sentinel tells: {why}"
            if len(troubles) == len(self._lines) and not any(error.passes for error in troubles):
                raise StoreError(message)
            raise Unreachable(message)
        votes = Counter(answers)
        return max(votes, key=lambda answer: (answer.epoch, votes[answer])).place

    async def _ask(self, line: Line) -> _Answer:
        connection = await line.connection()
        told, address = await connection.ask(self._questions)
        for reply in (told, address):
            if is_refusal(reply) and "unknown command" in str(reply):
                raise StoreError(f"Redis at {connection.place} is no sentinel: its URL begins with redis://")
            if reply is None or is_refusal(reply):
                raise Unreachable(f"sentinel {connection.place}: {reply}")
        about = dict(zip(told[::2], told[1::2], strict=True))
        host, port = address
        return _Answer(int(about[b"config-epoch"]), Place(host.decode(), int(port)))
