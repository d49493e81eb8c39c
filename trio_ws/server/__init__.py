"""The server: everything between a listening socket and the hub's sessions."""

from .auth import Authenticate, Credentials
from .listener import serve

__all__ = ["Authenticate", "Credentials", "serve"]
