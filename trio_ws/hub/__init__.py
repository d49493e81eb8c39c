"""The hub: users, their mailboxes and sessions, publishing and receipts, and the tasks that move events. No sockets."""

from ..identity import Identity
from .alerts import Alert
from .attachment import Attachment, Link
from .channel import ChannelStatistics, PublishChannel
from .dead_letters import DeadLetter
from .figures import HubStatistics
from .hub import Hub, open_hub
from .inbox import OnMessage
from .receipt import Confirmation, Receipt
from .run import RunHandle, ToolCall
from .subscription import Subscription

__all__ = [
    "Alert",
    "Attachment",
    "ChannelStatistics",
    "Confirmation",
    "DeadLetter",
    "Hub",
    "HubStatistics",
    "Identity",
    "Link",
    "OnMessage",
    "PublishChannel",
    "Receipt",
    "RunHandle",
    "Subscription",
    "ToolCall",
    "open_hub",
]
