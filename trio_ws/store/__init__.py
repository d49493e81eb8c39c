"""Where a hub keeps what must outlive its process: one interface, and what is behind it."""

from __future__ import annotations

from .interface import Opened, Store
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = ["MemoryStore", "Opened", "SqliteStore", "Store"]
