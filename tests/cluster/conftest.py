"""Every test of nodes runs on a clock of its own that jumps ahead when nothing else is left to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub.conftest import run_jumping


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of this folder run so."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.trio(run=run_jumping), append=False)
