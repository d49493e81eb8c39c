from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_admin import FakeAdmin


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    fake = FakeAdmin()
    fake.start()
    yield fake
    fake.stop()
