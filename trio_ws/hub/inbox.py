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
from ..errors import MessageRejected, StoreUnavailable
from ..event import Message
from ..identity import Identity
from .engine import Engine

logger = logging.getLogger(__name__)

OnMessage: TypeAlias = Callable[[str, Message], Awaitable[None]]
"""Called with the user and the message. What it raises rejects the message: the words of a `MessageRejected`
are sent on, those of any other exception are not."""

REMEMBERED: Final = 128
"""How many answers a session keeps, so that a message that is sent again is answered again."""


Verb: TypeAlias = Callable[[str, str, Message], None]
"""What the hub itself does with a message of a reserved type: called with user, session and message, it raises
`MessageRejected` or has done it."""


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
      verbs: what is done with messages of reserved types; the application never sees them.
    """

    def __init__(self, engine: Engine) -> None:
        self.accepted = self.rejected = self.rate_limited = 0
        self.verbs: dict[str, Verb] = {}
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
        verb = self.verbs.get(message.type)
        if context.on_message is None and verb is None:
            self._close(session, letters, message.id, wire.rejected(message.id, "no_handler"))
            return
        if not self._rates.take(session.box.user, self._engine.clock()):
            self.rejected += 1
            self.rate_limited += 1
            self._answer(session, wire.rejected(message.id, "rate_limited"))
            return
        pending = letters.waiting if verb is None else letters.taken
        if len(pending) >= self._engine.config.max_pending_messages:
            self.rejected += 1
            self._answer(session, wire.rejected(message.id, "too_many_pending"))
            return
        letters.taken[message.id] = None
        if verb is not None:
            self._obey(session, message, verb)
            return
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

    def _obey(self, session: Session, message: wire.Message, verb: Verb) -> None:
        """Do what a message of a reserved type asks for, at once: it does not wait for what the application is at."""
        letters = context_of(session).letters
        try:
            verb(
                session.box.user,
                session.id,
                Message(id=message.id, type=message.type, payload=payloads.decode(message.payload)),
            )
        except MessageRejected as error:
            self._close(session, letters, message.id, wire.rejected(message.id, str(error)))
        except Exception:
            logger.exception("a message of a reserved type failed")
            self._close(session, letters, message.id, wire.rejected(message.id, "handler_failed"))
        else:
            if self._engine.durability is None:
                self._close(session, letters, message.id, wire.accepted(message.id))
            else:
                head = session.box.head
                self._engine.nursery.start_soon(self._accept_when_durable, session, message.id, head)

    async def _accept_when_durable(self, session: Session, id: str, head: int) -> None:
        assert self._engine.durability is not None
        try:
            await self._engine.durability.wait(session.box, head)
        except StoreUnavailable:
            answer = wire.rejected(id, "store_unavailable")
        else:
            answer = wire.accepted(id)
        self._close(session, context_of(session).letters, id, answer)

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
            logger.exception("handling a message failed")
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
