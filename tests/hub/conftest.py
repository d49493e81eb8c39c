"""Every test of the hub runs on a clock of its own that jumps ahead when nothing else is left to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def run_jumping(test: Callable[[], Awaitable[Any]], *, clock: object = None, instruments: Any = ()) -> Any:
    """As `trio.run`, on a clock that jumps."""
    assert clock is None
    return trio.run(test, clock=MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of this folder run so."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.trio(run=run_jumping), append=False)
