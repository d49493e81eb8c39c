"""Lua scripts: what Redis does all of or nothing of, in one call."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files

import attrs


@attrs.frozen
class Script:
    """A Lua script.

    Attributes:
      name: what it is called in messages.
      text: its source.
      sha1: what Redis calls it.
    """

    name: str
    text: str
    sha1: str = attrs.field(init=False)

    @sha1.default
    def _(self) -> str:
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def load(cls, name: str) -> Script:
        """That of the file scripts/`name`.lua."""
        return cls(name, (files(__package__) / "scripts" / f"{name}.lua").read_text("utf-8"))
