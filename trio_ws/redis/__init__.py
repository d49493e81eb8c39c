"""Redis: the link to it, and the store that several nodes share. It needs the extra ``redis``."""

from .store import RedisStore

__all__ = ["RedisStore"]
