"""What a line of the log may hold, and how many of one kind there are."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from trio_ws.log import MAX_VALUE, RateLimit, configure, escape

logger = logging.getLogger("trio_ws.test")


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    logging.captureWarnings(False)
    root.handlers[:], warnings.showwarning = handlers, show
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


EVIL = "a\r\n2026 [info] forged\x1b[31m\x00\x9b\u2028\u202e"


def test_json_lines(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    logger.warning("user %s", EVIL, extra={"path": EVIL, "n": 3})
    [line] = stream.getvalue().splitlines()
    value = json.loads(line)
    assert value["level"] == "warning"
    assert value["logger"] == "trio_ws.test"
    assert value["n"] == 3
    assert value["path"] == escape(EVIL)
    assert value["timestamp"].endswith("Z")
    assert value["event"] == "user " + escape(EVIL)


def test_console_lines(stream: io.StringIO) -> None:
    configure("console", stream=stream)
    logger.info("user %s", EVIL, extra={"path": EVIL})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.isprintable() or text[:-1].isprintable()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_line_of_a_traceback_can_pass_for_a_line_of_the_log(stream: io.StringIO, log_format: str) -> None:
    configure(log_format, stream=stream)
    secret = "hunter2"
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("failed")
    assert "\x1b" not in stream.getvalue()
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert all(line.startswith("    ") for line in rest)
    assert "ValueError" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_long_values_are_cut(stream: io.StringIO) -> None:
    configure("json", stream=stream)
    logger.info("x" * 10**6)
    assert len(stream.getvalue()) < 2 * MAX_VALUE
    assert "(1000000 characters)" in stream.getvalue()


def test_what_repeats_is_limited_and_counted(stream: io.StringIO) -> None:
    now = 0.0
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(RateLimit(3, clock=lambda: now))
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        for n in range(10):
            logger.warning("bad packet %d", n)
        logger.warning("another kind")
        now = 1.0
        logger.warning("bad packet %d", 10)
        now = 3.0
        logger.warning("bad packet %d", 11)
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == [
        *(f"bad packet {n}" for n in range(3)),
        "another kind",
        "bad packet 10",
        "bad packet 11",
    ]
    assert [getattr(record, "suppressed", None) for record in records] == [None] * 4 + [7, None]


def test_the_kinds_that_are_remembered_are_bounded() -> None:
    limit = RateLimit(kinds=10)
    for n in range(100):
        assert limit.filter(logging.makeLogRecord({"name": "x", "msg": f"kind {n}"}))
    assert len(limit._windows) == 10


def test_configuring_again_replaces(stream: io.StringIO) -> None:
    configure("json", stream=io.StringIO())
    configure("json", stream=stream)
    logger.info("once")
    assert stream.getvalue().count("once") == 1
    logging.getLogger("hypercorn.access").info("a request")
    assert "a request" not in stream.getvalue()
