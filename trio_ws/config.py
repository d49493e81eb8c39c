"""The limits and intervals of a hub, and their defaults: one frozen value that is handed to `open_hub`.

What a command line adds to it (addresses, keys, log format) is in `trio_ws/settings.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import attrs

from .errors import InvalidConfig
from .event import LIFECYCLE_TYPES

KIB = 1024
MIB = 1024 * KIB


def number(low: float, high: float = math.inf) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """A validator: a finite number (bool is none) from `low` to `high`; None too where that is the default."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and attribute.default is None:
            return
        ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if ok and isinstance(attribute.default, int) and not isinstance(value, int):
            ok = float(value).is_integer() and attribute.metadata.get("seconds", False)
        if not ok or not low <= value <= high:
            bounds = f"from {low:g}" + ("" if high == math.inf else f" to {high:g}")
            raise InvalidConfig(f"{attribute.name} must be a number {bounds}, not {value!r}")

    return check


def _count(default: int, low: int = 1, high: float = math.inf) -> Any:
    """A field that holds a whole number."""
    return attrs.field(default=default, validator=number(low, high))


def _seconds(default: float | None, low: float = 0.001, high: float = math.inf) -> Any:
    """A field that holds a time in seconds."""
    return attrs.field(
        default=None if default is None else float(default),
        validator=number(low, high),
        metadata={"seconds": True},
    )


def _rate(default: float | None) -> Any:
    """A field that holds how often something may happen a second."""
    return attrs.field(default=None if default is None else float(default), validator=number(0.01))


def _tuple(value: Any) -> Any:
    """A list as a tuple; what is none is left for the validator to refuse."""
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else value


def _as_written(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _types(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(t, str) and t for t in value):
        raise InvalidConfig(f"{attribute.name} must be a list of event types, not {value!r}")


def _intervals(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    ok = isinstance(value, tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < math.inf for x in value
    )
    if not ok or not value or list(value) != sorted(set(value)):
        raise InvalidConfig(
            f"{attribute.name} must be a list of rising times in seconds, not {_as_written(value)!r}"
        )


def one_of(choices: Iterable[str]) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """A validator: one of some words."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            raise InvalidConfig(f"{attribute.name} must be one of {', '.join(choices)}, not {value!r}")

    return check


@attrs.frozen(kw_only=True)
class Config:
    """The limits of a hub. Times are in seconds, sizes in bytes.

    A value out of its bounds raises `InvalidConfig`, whose message names the field and the bounds.
    """

    # Connections and sessions
    max_connections_per_user: int = _count(3)
    max_connections: int = _count(100)
    over_limit: Literal["replace", "reject"] = attrs.field(
        default="replace", validator=one_of(("replace", "reject"))
    )
    session_ttl: float = _seconds(180)
    hello_timeout: float = _seconds(5)
    max_loop_lag: float = _seconds(0.25)

    # The buffer
    max_events_per_user: int = _count(200)
    max_events: int = _count(1000)
    max_bytes_per_user: int = _count(1 * MIB, low=1 * KIB)
    max_bytes: int = _count(64 * MIB, low=1 * KIB)
    max_event_bytes: int = _count(256 * KIB, low=128)
    event_ttl: float = _seconds(180)
    critical_ttl: float | None = _seconds(None)
    critical_types: tuple[str, ...] = attrs.field(default=LIFECYCLE_TYPES, converter=_tuple, validator=_types)
    cleanup_interval: float = _seconds(30)

    # What is durable, where there is a store
    durability: Literal["critical", "all", "none"] = attrs.field(
        default="critical", validator=one_of(("critical", "all", "none"))
    )
    commit_interval: float = _seconds(0.005, low=0)
    max_stored_events_per_user: int = _count(10_000, low=0)

    # Delivery
    retry_intervals: tuple[float, ...] = attrs.field(
        default=(0.5, 1.0, 2.0, 5.0), converter=_tuple, validator=_intervals
    )
    confirm_timeout: float = _seconds(5)
    batch_interval: float = _seconds(0.05, low=0)
    serialize_timeout: float = _seconds(1)
    write_timeout: float = _seconds(5)
    stall_timeout: float = _seconds(30)
    ack_events: int = _count(32)
    ack_delay: float = _seconds(0.05)

    # What clients send
    max_message_bytes: int = _count(64 * KIB, low=256)
    max_fragments: int = _count(256)
    max_pending_messages: int = _count(32)

    # Runs of agents
    max_runs_per_user: int = _count(50)
    max_runs: int = _count(1000)
    max_run_text: int = _count(16 * KIB)

    # Liveness
    heartbeat_active: float = _seconds(2)
    heartbeat_idle: float = _seconds(25)
    heartbeat_grace: float = _seconds(2)

    # Alerts: over which window, from how many samples on, and beyond what
    alert_window: float = _seconds(300, low=1)
    alert_samples: int = _count(20)
    alert_response_time: float = _seconds(1.5)
    alert_recovery_time: float = _seconds(4)
    alert_confirmation_rate: float = attrs.field(default=0.95, validator=number(0, 1))

    # The end
    drain_timeout: float = _seconds(10, low=0)

    # Rate limits: how many a second, and how many at once
    connect_rate: float = _rate(100)
    connect_burst: int = _count(500)
    user_connect_rate: float = _rate(20)
    user_connect_burst: int = _count(100)
    receive_rate: float = _rate(2000)
    receive_burst: int = _count(4000)
    message_rate: float = _rate(100)
    message_burst: int = _count(200)
    publish_rate: float | None = _rate(None)
    publish_burst: int = _count(1000)


PRESETS = {
    "development": {"max_connections": 50},
    "staging": {"max_connections": 100},
    "production": {"max_connections": 100},
}
"""What each `--preset` sets beside the defaults."""
