"""Delivers the events of AI agents to the people who watch them: in order, confirmed, over networks that drop.

::

    async with trio_ws.open_hub() as hub:
        await nursery.start(trio_ws.serve, hub)
        receipt = await hub.publish("ada", "agent_started", {"run": 7})
        await receipt.confirmed()

    async with trio_ws.connect("ws://localhost:8765/ws", token=…) as client:
        async for event in client:
            ...
"""

from typing import TYPE_CHECKING, Any

from .client import Client, ClientState, ClientStatistics, SavedSession, connect
from .cluster import ClusteredHub, Node, open_node
from .config import Config
from .core import session as _session
from .core.run_fold import RunFold
from .core.run_view import RunView
from .errors import (
    ConfirmationTimeout,
    ConnectionRefused,
    EventTooLarge,
    HubClosed,
    IllegalTransition,
    InvalidConfig,
    InvalidEvent,
    LocalError,
    MessageRejected,
    OwnedElsewhere,
    QuestionClosed,
    QuestionExpired,
    RemoteError,
    RunEnded,
    RunFailed,
    SessionEnded,
    StoreError,
    StoreUnavailable,
    TooManyRuns,
    TrioWSError,
    UnknownRun,
)
from .event import LIFECYCLE_TYPES, Draft, Event, Gap, Merged, Message, Priority
from .hub import (
    Alert,
    ChannelStatistics,
    Confirmation,
    DeadLetter,
    Hub,
    HubStatistics,
    PublishChannel,
    Receipt,
    RunHandle,
    Subscription,
    ToolCall,
    open_hub,
)
from .identity import Identity
from .server import Credentials, serve
from .store import MemoryStore, SqliteStore

if TYPE_CHECKING:
    from .redis import RedisStore as RedisStore

__version__ = "0.1.0"

COMPILED = not str(_session.__file__).endswith(".py")
"""Whether this is the package whose hot path is compiled. It does the same."""

__all__ = [
    "COMPILED",
    "LIFECYCLE_TYPES",
    "Alert",
    "ChannelStatistics",
    "Client",
    "ClientState",
    "ClientStatistics",
    "ClusteredHub",
    "Config",
    "Confirmation",
    "ConfirmationTimeout",
    "ConnectionRefused",
    "Credentials",
    "DeadLetter",
    "Draft",
    "Event",
    "EventTooLarge",
    "Gap",
    "Hub",
    "HubClosed",
    "HubStatistics",
    "Identity",
    "IllegalTransition",
    "InvalidConfig",
    "InvalidEvent",
    "LocalError",
    "MemoryStore",
    "Merged",
    "Message",
    "MessageRejected",
    "Node",
    "OwnedElsewhere",
    "Priority",
    "PublishChannel",
    "QuestionClosed",
    "QuestionExpired",
    "Receipt",
    "RemoteError",
    "RunEnded",
    "RunFailed",
    "RunFold",
    "RunHandle",
    "RunView",
    "SavedSession",
    "SessionEnded",
    "SqliteStore",
    "StoreError",
    "StoreUnavailable",
    "Subscription",
    "TooManyRuns",
    "ToolCall",
    "TrioWSError",
    "UnknownRun",
    "connect",
    "open_hub",
    "open_node",
    "serve",
]


def __getattr__(name: str) -> Any:
    """`RedisStore`, whose parser is in the extra ``redis``, is imported when somebody asks for it."""
    if name == "RedisStore":
        from .redis import RedisStore

        return RedisStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
