"""What Redis is asked: commands, as bytes, and Lua scripts, which it does all of or nothing of in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files

import attrs
import hiredis

Word = str | bytes | int | float


def packed(*words: Word) -> bytes:
    """A command as Redis reads it."""
    return hiredis.pack_command(words)  # type: ignore[arg-type, no-any-return]


@attrs.frozen
class Script:
    """A Lua script.

    Attributes:
      name: what it is called in messages.
      text: its source.
      sha1: what Redis calls it.
      load_call: the command that makes it known to a server.
    """

    name: str
    text: str = attrs.field(repr=False)
    sha1: str = attrs.field(init=False)
    load_call: bytes = attrs.field(init=False, repr=False)

    @sha1.default
    def _(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @load_call.default
    def _(self) -> bytes:
        return packed("SCRIPT", "LOAD", self.text)

    def call(self, keys: Sequence[Word], args: Sequence[Word]) -> bytes:
        """The command that calls it, where it is known."""
        return packed("EVALSHA", self.sha1, len(keys), *keys, *args)

    @classmethod
    def load(cls, *names: str) -> Script:
        """That of the file scripts/NAME.lua, or of several of them, one after the other; it is called as the last."""
        folder = files(__package__) / "scripts"
        return cls(names[-1], "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names))
