"""Publishing from any Python program to a server over HTTP: events, and runs that always come to an end.

::

    publisher = Publisher("http://127.0.0.1:8766")            # blocks; for threads
    publisher = AsyncPublisher("http://127.0.0.1:8766")       # for asyncio and Trio: await, async with

    with publisher.run("ada", name="researcher") as run:
        run.delta("Hel")
        run.result = {"pages": 7}

Both come with the extra ``publisher``.
"""

from ..errors import (
    ConfirmationTimeout,
    EventTooLarge,
    IllegalTransition,
    InvalidEvent,
    QuestionClosed,
    QuestionExpired,
    RunFailed,
    TooManyRuns,
)
from .blocking import Publisher, Run, Tool
from .concurrent import AsyncPublisher, AsyncRun, AsyncTool
from .errors import BatchRefused, Refused, RunCancelled, RunLost, Unreachable
from .events import Accepted

__all__ = [
    "Accepted",
    "AsyncPublisher",
    "AsyncRun",
    "AsyncTool",
    "BatchRefused",
    "ConfirmationTimeout",
    "EventTooLarge",
    "IllegalTransition",
    "InvalidEvent",
    "Publisher",
    "QuestionClosed",
    "QuestionExpired",
    "Refused",
    "Run",
    "RunCancelled",
    "RunFailed",
    "RunLost",
    "TooManyRuns",
    "Tool",
    "Unreachable",
]
