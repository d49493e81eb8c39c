"""Messages from users to the application: each is handled once a session, in order, and answered each time it comes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from ..core import payload as payloads
from ..core import wire
from ..core.limits import MAX_USERS, KeyedBuckets
from ..core.session import Session
from ..errors import MessageRejected
from ..event import Message
from ..identity import Identity
from .engine import Engine

logger = logging.getLogger(__name__)

OnMessage: TypeAlias = Callable[[str, Message], Awaitable[None]]
"""Called with the user and the message. What it raises rejects the message: the words of a `MessageRejected`
are sent on, those of any other exception are not."""

REMEMBERED: Final = 128
"""How many answers a session keeps, so that a message that is sent again is answered again."""


class Letters:
    """One session's messages: those that wait for the handler, and the answers that were given.

    Attributes:
      answers: the newest of them, by message id.
      taken: the ids of messages that have no answer yet.
      waiting: the messages that the handler was not given yet.
      busy: a task hands them on.
      count: how many a plain client has sent.
    """

    __slots__ = ("answers", "busy", "count", "taken", "waiting")

    def __init__(self) -> None:
        # Small while they are empty, as most are: there is one of each for every session.
        self.answers: dict[str, bytes] = {}
        self.taken: dict[str, None] = {}
        self.waiting: list[wire.Message] = []
        self.busy = False
        self.count = 0


class Context:
    """What is kept with a session: who it is, and its messages."""

    __slots__ = ("identity", "letters", "on_message")

    def __init__(self, identity: Identity, on_message: OnMessage | None) -> None:
        self.identity = identity
        self.on_message = on_message
        self.letters = Letters()


def has_letters(session: Session) -> bool:
    """Whether messages came in `session` that must not be handled once more; that is kept in memory only."""
    context: Context | None = session.context
    return context is not None and bool(context.letters.taken or context.letters.answers)


def context_of(session: Session) -> Context:
    """What is kept with `session`."""
    context: Context = session.context
    return context


class Inbox:
    """Hands messages to the application. One task a session that has any; none otherwise.

    Attributes:
      accepted, rejected: how many were, since the start.
      rate_limited: how many of those rejected were too many of one user.
    """

    def __init__(self, engine: Engine) -> None:
        self.accepted = self.rejected = self.rate_limited = 0
        self._engine = engine
        self._rates = KeyedBuckets[str](engine.config.message_rate, engine.config.message_burst, MAX_USERS)

    def put(self, session: Session, message: wire.Message) -> None:
        """Take a message of a v1 session, or answer one that was sent before as it was answered then."""
        context = context_of(session)
        letters = context.letters
        if message.id in letters.taken:
            return
        if (answer := letters.answers.get(message.id)) is not None:
            self._answer(session, answer)
            return
        if context.on_message is None:
            self._close(session, letters, message.id, wire.rejected(message.id, "no_handler"))
            return
        if not self._rates.take(session.box.user, self._engine.clock()):
            self.rejected += 1
            self.rate_limited += 1
            self._answer(session, wire.rejected(message.id, "rate_limited"))
            return
        if len(letters.waiting) >= self._engine.config.max_pending_messages:
            self.rejected += 1
            self._answer(session, wire.rejected(message.id, "too_many_pending"))
            return
        letters.taken[message.id] = None
        letters.waiting.append(message)
        if not letters.busy:
            letters.busy = True
            self._engine.nursery.start_soon(self._work, session)

    def put_plain(self, session: Session, id: object, type: str, payload: object) -> None:
        """Take a plain client's message, which is not answered; without an `id` of its own it is given one."""
        letters = context_of(session).letters
        letters.count += 1
        name = id if isinstance(id, str) and 0 < len(id) <= 128 else f"plain-{letters.count}"
        self.put(session, wire.Message(id=name, type=type, payload=msgspec.Raw(payloads.encode(payload))))

    async def _work(self, session: Session) -> None:
        """Hand on what waits, one after the other. It outlives the connection: a message that was taken is handled."""
        context = context_of(session)
        letters = context.letters
        try:
            while letters.waiting:
                message = letters.waiting.pop(0)
                answer = await self._handle(session.box.user, message, context.on_message)
                self._close(session, letters, message.id, answer)
        finally:
            letters.busy = False

    async def _handle(self, user: str, message: wire.Message, handler: OnMessage | None) -> bytes:
        if handler is None:  # the session was taken up again where there is none
            return wire.rejected(message.id, "no_handler")
        try:
            await handler(
                user, Message(id=message.id, type=message.type, payload=payloads.decode(message.payload))
            )
        except MessageRejected as error:
            return wire.rejected(message.id, str(error) or "rejected")
        except Exception:
            logger.exception("on_message failed")
            return wire.rejected(message.id, "handler_failed")
        return wire.accepted(message.id)

    def _close(self, session: Session, letters: Letters, id: str, answer: bytes) -> None:
        """Keep the answer, and give it to whatever connection the session has now."""
        letters.taken.pop(id, None)
        letters.answers[id] = answer
        if len(letters.answers) > REMEMBERED:
            del letters.answers[next(iter(letters.answers))]
        if answer.startswith(b'{"t":"accepted"'):
            self.accepted += 1
        else:
            self.rejected += 1
        self._answer(session, answer)

    def _answer(self, session: Session, answer: bytes) -> None:
        if session.link is not None and not session.plain:
            session.link.answer(answer)
