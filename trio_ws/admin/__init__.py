"""The admin listener: publishing over HTTP, figures, users and health, on an address of its own."""

from .app import create_app
from .server import serve_admin

__all__ = ["create_app", "serve_admin"]
