"""Plans drawn by Hypothesis, so that what fails shrinks: to one user, few faults, and a short run.

    from hypothesis import given, settings
    from trio_ws.testing import simulate
    from trio_ws.testing.strategies import plans

    @settings(deadline=None, max_examples=50)
    @given(plan=plans())
    def test_nothing_breaks(plan):
        assert not simulate(1, plan, level="message").violations

Each example is one `trio.run`. A `Plan` that is drawn from a seed covers more in the same time; what Hypothesis adds is
that it looks for the smallest plan that still fails. It is imported with the first call only: merely importing it has
Trio order its tasks by a generator that Hypothesis seeds, in the whole process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .plan import CHARACTERS, FAULTS, Plan

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "users": (1, 2, 3, 5),
    "tabs": (1, 2, 3),
    "late": (0.0, 8.0),
    "duration": (5.0, 10.0, 20.0, 40.0),
    "rate": (2.0, 0.2, 1.0, 10.0),
    "burst": (1, 3, 10, 40),
    "critical": (0.3, 0.0, 0.6, 1.0),
    "deltas": (0.0, 0.3, 0.8),
    "keyed": (0.0, 0.2, 0.6),
    "confirmed": (0.0, 0.1),
    "mortal": (0.0, 0.2),
    "repeated": (0.0, 0.1, 0.3),
    "text": (40, 0, 400, 4000, 16000),
    "latency": (0.0, 0.01, 0.15),
    "jitter": (0.0, 0.01, 0.05),
    "segment": (0, 100, 7, 1),
    "window": (65536, 262144, 16384, 4096),
    "chunk": (65536, 300, 1),
    "handler": (0.0, 0.01, 0.3, 3.0),
    "failing": (0.0, 0.05, 0.3),
    "lookers": (0.0, 0.3),
    "talk": (0.0, 0.2, 2.0),
    "rejecting": (0.0, 0.3),
    "slow": (0.0, 0.1, 2.0),
    "expires": (0.0, 3.0, 15.0),
    "shared": (0.0, 0.2),
    "awaited": (0.0, 0.2),
    "hot": (1, 10),
    "odd": (False, True),
    "dies_at": (0, 50, 200, 1000),
    "durable": (False, True),
}
"""What each field of a plan may be, the simplest first: towards that it shrinks."""

RATES: Final = (0.03, 0.1, 0.3)
"""How often a fault may happen, a second."""

RARE: Final = {"restart": 0.04, "kill": 0.04, "die": 0.04, "in_replay": 0.1, "pause": 0.05}
"""What ends a server, or jumps over all deadlines, must leave something to happen in between."""

LIMITS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "room": (
        {},
        {"max_events_per_user": 50, "max_events": 100},
        {"max_events_per_user": 8, "max_events": 16},
        {"max_events_per_user": 3, "max_events": 3},
    ),
    "bytes": ({}, {"max_bytes_per_user": 16384, "max_event_bytes": 16384, "max_bytes": 16384}),
    "times to live": ({}, {"session_ttl": 10.0, "event_ttl": 20.0, "cleanup_interval": 5.0}),
    "of what is critical": ({}, {"critical_ttl": 10.0}),
    "policy": ({}, {"over_limit": "reject"}),
    "connections": ({}, {"max_connections_per_user": 2}, {"max_connections_per_user": 1}),
    "batches": ({}, {"batch_interval": 0.5}, {"batch_interval": 0.0}),
    "acks": ({}, {"ack_events": 1, "ack_delay": 0.001}, {"ack_events": 1000, "ack_delay": 1.0}),
}
"""Limits of the hub that go together."""


def plans(**fixed: Any) -> SearchStrategy[Plan]:
    """A Hypothesis strategy for `Plan`: every field, and every kind of fault and of character.

    It shrinks towards one user with one tab for 5 s on a network that is kind to them.

    Args:
      fixed: values of fields that are not to be drawn: ``plans(users=1, faults={"reset": 0.2})``.

    Raises:
      ValueError: a field is not known.
      ImportError: Hypothesis is not installed.
    """
    from hypothesis import strategies as st

    if unknown := set(fixed) - {*CHOICES, "faults", "characters", "limits"}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no field of a plan")

    @st.composite
    def drawn(draw: DrawFn) -> Plan:
        fields: dict[str, Any] = {name: draw(st.sampled_from(values)) for name, values in CHOICES.items()}
        rates = draw(st.dictionaries(st.sampled_from(list(FAULTS)), st.sampled_from(RATES), max_size=8))
        fields["faults"] = {kind: min(rate, RARE.get(kind, rate)) for kind, rate in rates.items()}
        fields["characters"] = draw(
            st.dictionaries(st.sampled_from(list(CHARACTERS)), st.integers(1, 2), max_size=3)
        )
        fields["limits"] = {}
        for choices in LIMITS.values():
            fields["limits"] |= draw(st.sampled_from(choices))
        return Plan(**_bearable(fields) | fixed)

    return drawn()


def _bearable(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with as much load as can be simulated in reasonable time, on a network on which one can say hello."""
    if 0 < fields["segment"] < 10:
        least = {
            "users": 2,
            "tabs": 1,
            "duration": 20.0,
            "rate": 1.0,
            "burst": 3,
            "text": 400,
            "jitter": 0.0005,
        }
    elif fields["users"] * fields["rate"] * fields["hot"] > 10:
        least = {"duration": 20.0, "hot": 1}
    else:
        least = {}
    return fields | {name: min(fields[name], value) for name, value in least.items()}
