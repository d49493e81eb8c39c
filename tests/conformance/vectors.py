"""The vectors, as they are in `vectors/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
FILES: Final = sorted((HERE / "vectors").glob("*.json"))


def load() -> dict[str, Any]:
    """Each vector by its name, which is ``topic: name``."""
    found = {}
    for file in FILES:
        for vector in json.loads(file.read_text())["vectors"]:
            name = f"{file.stem}: {vector['name']}"
            assert name not in found, f"two vectors are called {name}"
            found[name] = {**vector, "name": name}
    return found
