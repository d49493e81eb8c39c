"""What users say to the application, and what it answers: each message handled once a session, and answered alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs
import trio

from ...client import Client
from ...errors import ConnectionRefused, MessageRejected, SessionEnded
from ...event import Message
from ..checkers.sight import Deliberate

if TYPE_CHECKING:
    from ..scenario import World

MOST_UNDERWAY: Final = 20
"""How many messages may wait for their answers in all."""

UNHANDLED: Final = ("too_many_pending", "no_handler")
"""Rejections that are not the application's."""

ONCE: Final = "a message is handled once a session"
ALIKE: Final = "a message is answered as it was handled"


@attrs.define(eq=False)
class Said:
    """A message.

    Attributes:
      sessions: those that its client had had when it was sent.
      handled: how often the application was given it.
      answers: what the application made of it, in words; the empty one accepts.
    """

    user: str
    client: str
    sessions: set[str]
    handled: int = 0
    answers: list[str] = attrs.field(factory=list)


class Talk:
    """Has tabs send messages; and is the application that takes them.

    Attributes:
      calm: the faults are over: the application is quick, and fails no more.
    """

    def __init__(self, world: World) -> None:
        self.calm = False
        self._world = world
        self._rng = world.sim.derive("talk")
        self._said: list[Said] = []
        self._underway = 0

    async def run(self) -> None:
        """Have a tab say something now and then, until cancelled."""
        world, rng = self._world, self._rng
        if not world.plan.talk:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(rng.expovariate(world.plan.talk * len(world.tabs)))
                tab = rng.choice(world.tabs)
                if tab.client is not None and self._underway < MOST_UNDERWAY:
                    said = Said(tab.user, tab.name, set(self._sessions(tab.name)))
                    self._said.append(said)
                    nursery.start_soon(self._say, tab.client, said, len(self._said))

    async def _say(self, client: Client, said: Said, number: int) -> None:
        self._underway += 1
        try:
            with self._world.cancels.scope("send"):
                own = f"say-{number}" if self._rng.random() < 0.5 else None
                await client.send("say", {"number": number}, id=own)
                self._answered(said, "")
        except MessageRejected as error:
            self._answered(said, str(error))
        except (SessionEnded, ConnectionRefused, trio.ClosedResourceError):
            self._world.sim.sometimes("message left unanswered")
        finally:
            self._underway -= 1

    def _answered(self, said: Said, answer: str) -> None:
        self._world.sim.sometimes(f"message {answer or 'accepted'}")
        if answer not in said.answers and answer not in UNHANDLED:
            self._world.record.fail(ALIKE, f"{said} was answered {answer!r}")

    def _sessions(self, client: str) -> Iterator[str]:
        """The sessions that a client has had; with a disk one is another in each life: what messages were handled is
        kept in memory only."""
        for line in self._world.record.lines:
            if line.client == client and line.welcome is not None:
                yield line.welcome.session + (f" of life {line.life}" if self._world.plan.durable else "")

    async def take(self, user: str, message: Message) -> None:
        """The application's handler; slow at times, and it rejects and raises at times. A checkpoint."""
        world, life = self._world, self._world.record.life
        number = message.payload.get("number", 0) if isinstance(message.payload, dict) else 0
        if not number:  # nobody's that anybody waits for
            await trio.lowlevel.checkpoint()
            return
        said = self._said[number - 1]
        said.handled += 1
        if user != said.user:
            world.record.fail("a message is its own user's", f"{said} came from {user}")
        if said.handled > 1 + len(set(self._sessions(said.client)) - said.sessions):
            world.record.fail(ONCE, f"{said}")
        await trio.sleep(0 if self.calm else self._rng.uniform(0, world.plan.slow))
        if world.record.is_dead(life):
            return
        roll = 1.0 if self.calm else self._rng.random()
        if roll < world.plan.rejecting / 2:
            said.answers.append("no")
            raise MessageRejected("no")
        if roll < world.plan.rejecting:
            said.answers.append("handler_failed")
            raise Deliberate
        said.answers.append("")
