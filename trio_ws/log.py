"""The logging of a `trio-ws` process: structlog on standard error, for people (console) or machines (json).

The modules of this package log through the standard library; `configure` decides once, for the process, what
a line looks like. Three things hold for every line, whoever wrote it: control characters are escaped (a user
id can't forge a line or drive a terminal), long values are cut, and what repeats is limited: each packet of
an attacker may cause a line.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import attrs
import structlog

MAX_VALUE = 2000
"""Characters of one value that a line holds at most; a traceback may have ten times as many."""

# C0 and C1 controls and DEL, the line separators, and what turns the direction of text around.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROLS_IN_TRACEBACK = re.compile(_CONTROLS.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def escape(text: str) -> str:
    """`text` with each control character written as an escape, cut to `MAX_VALUE` characters."""
    if len(text) > MAX_VALUE:
        text = f"{text[:MAX_VALUE]}… ({len(text)} characters)"
    return _CONTROLS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def _escape_all(_: Any, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: escapes every text of a line; a traceback keeps its line ends."""
    for key, value in line.items():
        if key == "exception":
            line[key] = _CONTROLS_IN_TRACEBACK.sub(_escaped, str(value)[: 10 * MAX_VALUE])
        elif not isinstance(value, int | float | None):
            line[key] = escape(value if isinstance(value, str) else repr(value))
    return line


def _indent_traceback(_: Any, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor for the console: no line of a traceback can pass for a line of the log."""
    if "exception" in line:
        line["exception"] = "    " + line["exception"].replace("\n", "\n    ")
    return line


@attrs.define
class _Window:
    """What one kind of line did in the current second."""

    start: float
    written: int = 0
    suppressed: int = 0


class RateLimit(logging.Filter):
    """Lets `per_second` lines of one kind through in a second; the next one says how many were left out.

    A kind is a logger and a message before its arguments are put in. At most `kinds` of them are remembered.
    """

    def __init__(
        self, per_second: int = 5, *, kinds: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._per_second = per_second
        self._kinds = kinds
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        kind = (record.name, str(record.msg))
        window = self._windows.pop(kind, None)
        if window is None or now - window.start >= 1:
            if window is not None and window.suppressed:
                record.suppressed = window.suppressed
            window = _Window(now)
        self._windows[kind] = window
        if len(self._windows) > self._kinds:
            self._windows.popitem(last=False)
        if window.written >= self._per_second:
            window.suppressed += 1
            return False
        window.written += 1
        return True


def configure(
    log_format: Literal["console", "json"] = "console",
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    node: str | None = None,
) -> None:
    """Sends all logging of the process to `stream` (standard error) in one format, in place of any before.

    Each line carries `node`, where that is given: which of several processes it is from.
    """
    stream = stream or sys.stderr
    render: list[Any]
    if log_format == "json":
        render = [structlog.processors.JSONRenderer()]
    else:
        # No rich tracebacks: they show local variables, and a token may be one.
        render = [
            _indent_traceback,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ]
    own: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if node is None else [lambda _, __, line: {**line, "node": node}]),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=own,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _escape_all,
            *render,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    # One line a request says nothing that the figures don't; httpx would log each URL.
    for name in ("hypercorn.access", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
