"""The demo: agents that do as if, a network that can be broken on purpose, and the calls that the page makes."""

from .agents import USERS, work
from .network import FaultyNetwork
from .routes import Demo

__all__ = ["USERS", "Demo", "FaultyNetwork", "work"]
