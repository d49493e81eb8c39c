"""For all tests: a worker of pytest-xdist is measured by coverage, what a test starts is not."""

from __future__ import annotations

import os

import pytest

from tests.redis.servers import (  # noqa: F401
    redis_directory,
    redis_server,
    redis_session,
    redis_tls_directory,
)


def pytest_configure(config: pytest.Config) -> None:
    starts_workers = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not starts_workers:
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
