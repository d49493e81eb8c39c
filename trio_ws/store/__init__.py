"""Where a hub keeps what must outlive its process: one interface, and what is behind it."""

from __future__ import annotations

from .interface import Opened, Store
from .memory import MemoryStore
from .shared import Fenced, NodeRecord, Owner, SharedStore, divided, without
from .shared_memory import Place, SharedMemory
from .sqlite import SqliteStore

__all__ = [
    "Fenced",
    "MemoryStore",
    "NodeRecord",
    "Opened",
    "Owner",
    "Place",
    "SharedMemory",
    "SharedStore",
    "SqliteStore",
    "Store",
    "divided",
    "without",
]
