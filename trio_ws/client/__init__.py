"""The Trio client: `connect` and what belongs to it. It speaks the protocol to any server of it; see `client.py`."""

from .client import Client, connect
from .credentials import Token
from .session import SavedSession
from .state import ClientState, ClientStatistics

__all__ = ["Client", "ClientState", "ClientStatistics", "SavedSession", "Token", "connect"]
