"""The hub: users, their mailboxes and sessions, publishing and receipts, and the tasks that move events. No sockets."""

from ..identity import Identity
from .attachment import Attachment, Link
from .channel import PublishChannel
from .dead_letters import DeadLetter
from .hub import Hub, open_hub
from .inbox import OnMessage
from .receipt import Confirmation, Receipt
from .subscription import Subscription

__all__ = [
    "Attachment",
    "Confirmation",
    "DeadLetter",
    "Hub",
    "Identity",
    "Link",
    "OnMessage",
    "PublishChannel",
    "Receipt",
    "Subscription",
    "open_hub",
]
