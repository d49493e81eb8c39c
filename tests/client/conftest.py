"""The fixtures of the client's tests. A test that takes `server` takes `clock` too: pytest-trio looks for it there."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from .scripted import Server


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to the next deadline when everybody waits."""
    return MockClock(autojump_threshold=0)


@pytest.fixture
def server() -> Server:
    """A scripted server."""
    return Server()
