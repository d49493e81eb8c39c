"""Append-only journals: one JSON object a line, handed to the kernel before the next thing is done.

So what a process has written outlives it, whenever it is killed; only the last line may be torn.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """Appends to the file at `path`, which is made where there is none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if torn(path):
            os.write(self._file, b"\n")

    def write(self, do: str, **what: Any) -> None:
        """One line: what was done, when (on the clock that all processes of a machine share), and the rest."""
        line = json.dumps({"do": do, "at": round(time.monotonic(), 4), **what}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def torn(path: Path) -> bool:
    """Whether the last line has no end: its writer was killed."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


class Reader:
    """Reads a journal on from where it stopped. A line that is no JSON was torn, and is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def more(self) -> Iterator[dict[str, Any]]:
        """The whole lines that were written since the last time."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a journal; none where there is no such file."""
    return list(Reader(path).more()) if path.exists() else []


def digest(payload: Any) -> str:
    """What stands for a payload in a journal: the same at both ends."""
    return f"{zlib.crc32(json.dumps(payload, sort_keys=True).encode()):08x}"
