"""How a bug is planted: a function that is handed a `pytest.MonkeyPatch`, and a first line that says what is broken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import pytest

Patch: TypeAlias = pytest.MonkeyPatch
Bug: TypeAlias = Callable[[Patch], None]


def around(patch: Patch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have `around(original, *args)` called in the place of `owner.name(*args)`."""
    original = getattr(owner, name)

    def stand_in(*args: Any, **options: Any) -> Any:
        return around(original, *args, **options)

    patch.setattr(owner, name, stand_in)


def bugs_in(module: ModuleType) -> list[Bug]:
    """The bugs of a module, in their order: its public functions."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def purpose(bug: Bug) -> str:
    """What a bug breaks, and which invariant should see it."""
    return inspect.getdoc(bug) or ""
