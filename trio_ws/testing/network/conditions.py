"""How good a connection of a simulated network is."""

from __future__ import annotations

import math
from typing import Any

import attrs


def _number(low: float, *, open_below: bool = False, finite: bool = True) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
        if (
            math.isnan(value)
            or value < low
            or (open_below and value == low)
            or (finite and math.isinf(value))
        ):
            bound = "above" if open_below else "at least"
            raise ValueError(f"{attribute.name} must be {bound} {low:g}, not {value!r}")

    return check


def _segment(_: Any, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{attribute.name} must be at least 1, or None, not {value!r}")


@attrs.frozen(kw_only=True)
class Conditions:
    """What one direction of a connection is like. Times are in seconds, sizes in bytes.

    Attributes:
      latency: from the sender to the receiver.
      jitter: up to so much is added to the latency of each piece; the order stays.
      segment: the receiver is given pieces of 1 to `segment` bytes, with up to `jitter` between them; None gives it all
        that has arrived.
      rate: bytes per second; how fast the receiver can be served. A slow reader is a low rate.
      capacity: what the connection holds at most: all that was sent and not yet read. Who sends more waits.

    Raises:
      ValueError: one is out of its bounds.
    """

    latency: float = attrs.field(default=0.001, validator=_number(0))
    jitter: float = attrs.field(default=0.0, validator=_number(0))
    segment: int | None = attrs.field(default=None, validator=_segment)
    rate: float = attrs.field(default=math.inf, validator=_number(0, open_below=True, finite=False))
    capacity: int = attrs.field(default=64 * 1024, validator=_number(1))
