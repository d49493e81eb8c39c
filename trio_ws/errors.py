"""What can go wrong, under two roots: `LocalError` (a call was wrong) and `RemoteError` (the other side failed)."""

from __future__ import annotations


class TrioWSError(Exception):
    """Root of all that this package raises of its own."""


class LocalError(TrioWSError):
    """The caller did something that can't be done: mend the call."""


class InvalidEvent(LocalError, ValueError):
    """An event that can't be accepted: it has no JSON form, or a field is out of its bounds.

    Attributes:
      field: which field is at fault, as it is called in the HTTP body (``payload``, ``type``, …).
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class EventTooLarge(InvalidEvent):
    """An event over `max_event_bytes` that can't be truncated: it is critical, or holds no text to cut."""


class InvalidConfig(LocalError, ValueError):
    """A setting that is unknown, ill-typed or out of its bounds; the message names it."""


class HubClosed(LocalError):
    """The hub has ended or is draining: it accepts nothing any more."""


class OwnedElsewhere(LocalError):
    """Another node of the cluster has the user's log, and this can be done only where that is.

    Attributes:
      user: whose log it is.
      node: the id of the node that has it; empty where that is not known.
    """

    def __init__(self, user: str, node: str = "") -> None:
        super().__init__(f"the log of {user!r} is another node's" + (f": {node}" if node else ""))
        self.user = user
        self.node = node


class UnknownRun(LocalError):
    """There is no such run of this user: it was never opened, or has ended and is forgotten.

    Attributes:
      run: its id.
    """

    def __init__(self, run: str) -> None:
        super().__init__(f"no run {run!r} of this user is known")
        self.run = run


class TooManyRuns(LocalError):
    """As many runs are open as may be: of this user (`max_runs_per_user`), or in all (`max_runs`)."""


class IllegalTransition(LocalError):
    """An event that has no place in its run as that stands (docs/runs.md has the grammar). Nothing has changed.

    Attributes:
      run: the run's id.
      type: the event's type.
      why: what is in its way.
    """

    def __init__(self, run: str, type: str, why: str) -> None:
        super().__init__(f"{type} has no place in run {run!r} now: {why}")
        self.run = run
        self.type = type
        self.why = why


class RunEnded(IllegalTransition):
    """The run has had its terminal event: nothing comes after that."""


class RunFailed(Exception):
    """Raised by an application in a run to have it fail in these words, which its user gets to see."""


class QuestionClosed(TrioWSError):
    """A question was closed without an answer.

    Attributes:
      question: its id.
      outcome: ``withdrawn`` or ``expired``.
    """

    def __init__(self, question: str, outcome: str) -> None:
        super().__init__(f"question {question!r} was {outcome}")
        self.question = question
        self.outcome = outcome


class QuestionExpired(QuestionClosed):
    """Nobody answered a question in time."""


class StoreUnavailable(LocalError):
    """What must be durable before it is accepted can't be made so now: the disk is full, slow or away. Try again later.

    The event was not accepted; or it was (`publish` waited for its commit already) and may yet become durable.
    Published again under the same `id`, it is one event in either case.
    """


class StoreError(TrioWSError):
    """A store could not be opened, read or written; the text says why.

    Attributes:
      passes: it may pass by itself: the store is away, full, or not ready yet. Else somebody has to mend something.
    """

    passes = False


class ConfirmationTimeout(TrioWSError):
    """No client confirmed an event in time, or none ever will.

    Attributes:
      state: what the event's state was then: ``held``, ``sent``, or how it went (``evicted``, ``expired``,
        ``superseded``). For ``held`` and ``sent`` a later confirmation is still possible.
    """

    def __init__(self, state: str) -> None:
        super().__init__(f"not confirmed: the event is {state}")
        self.state = state


class RemoteError(TrioWSError):
    """The other side, or the network between, failed."""


class ConnectionRefused(RemoteError):
    """The server answered, and said no before there was a session.

    Attributes:
      status: the HTTP status of the refusal.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class SessionEnded(RemoteError):
    """The server ended the session for good: a close code that a client does not retry.

    Attributes:
      code: the WebSocket close code.
      reason: the server's words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason


class MessageRejected(RemoteError):
    """The application refused a message; the text is its reason."""
