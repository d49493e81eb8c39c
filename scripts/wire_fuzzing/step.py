"""The steps that one connection of a fuzzer consists of: bytes to send, something to wait for, a way to go."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

import attrs


class Going(Enum):
    """A way to go."""

    CLOSING = "closing"
    RESET = "reset"
    END_OF_INPUT = "end of input"


CLOSING, RESET, END_OF_INPUT = Going


@attrs.frozen
class Until:
    """Wait until this holds, or the server has ended the connection; that neither comes is a finding."""

    holds: Callable[[], bool]


def until(holds: Callable[[], bool]) -> Until:
    """A step that waits."""
    return Until(holds)


Step: TypeAlias = bytes | Until | Going
