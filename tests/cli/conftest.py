"""The small admin API as a fixture; and no process outlives its test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import fake_admin


@pytest.fixture(autouse=True)
def _reaped() -> Iterator[None]:
    yield
    while fake_admin.started:
        process = fake_admin.started.pop()
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        process.wait()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRIO_WS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def admin() -> Iterator[fake_admin.FakeAdmin]:
    fake = fake_admin.FakeAdmin()
    fake.start()
    yield fake
    fake.stop()
