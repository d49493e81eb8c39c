"""The admin listener: publishing over HTTP, figures, users and health, on an address of its own."""

from .app import create_app
from .keys import KeyFile
from .server import serve_admin

__all__ = ["KeyFile", "create_app", "serve_admin"]
