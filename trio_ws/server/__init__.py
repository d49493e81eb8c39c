"""The server: everything between a listening socket and the hub's sessions."""

from .auth import Authenticate, Credentials, SharedTickets, Tickets, first_of
from .jwks import RemoteKeys
from .listener import serve
from .tokens import PublicKeyFile, jwt_authenticator, public_keys

__all__ = [
    "Authenticate",
    "Credentials",
    "PublicKeyFile",
    "RemoteKeys",
    "SharedTickets",
    "Tickets",
    "first_of",
    "jwt_authenticator",
    "public_keys",
    "serve",
]
