"""Several nodes on one store: who owns a user's log, and how others reach it."""

from __future__ import annotations

from .hub import ClusteredHub
from .opening import Node, open_node

__all__ = ["ClusteredHub", "Node", "open_node"]
