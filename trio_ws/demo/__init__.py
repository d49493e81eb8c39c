"""The demo: agents that do as if, and the calls that the page makes."""

from .agents import USERS, work
from .routes import Demo

__all__ = ["USERS", "Demo", "work"]
