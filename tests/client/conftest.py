"""The fixture of the client's tests."""

from __future__ import annotations

import pytest
import trio
from scripted import Server


@pytest.fixture
def server(autojump_clock: trio.testing.MockClock) -> Server:
    """A scripted server, on a clock that jumps."""
    return Server()
