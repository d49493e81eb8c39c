"""The calculation of what many users need: its figures are those of docs/sizing.md, and go where they have to."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from measuring import sizing
from measuring.sizing import Load, Measured, Policy, need

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sizing.md"


def test_the_tables_of_the_page_are_its_own() -> None:
    text = PAGE.read_text()
    for table in sizing.tables():
        assert table in text


def test_what_was_measured_is_all_told() -> None:
    text = PAGE.read_text()
    for name in (
        "heartbeat_us",
        "event_us",
        "connect_us",
        "redis_event_us",
        "redis_in_bytes",
        "redis_look_us",
    ):
        assert f"{getattr(sizing.MEASURED, name):g}" in text, name


@pytest.mark.parametrize(
    "field", [f.name for f in attrs.fields(Load) if f.name not in ("payload", "most_held")]
)
def test_more_of_anything_never_takes_less(field: str) -> None:
    less = Load()
    more = attrs.evolve(less, **{field: 2 * getattr(less, field)})
    for name in ("nodes", "redis_bytes", "client_bits", "shards"):
        assert getattr(need(more), name) >= getattr(need(less), name)


def test_what_costs_nothing_needs_two_nodes_and_one_to_spare() -> None:
    free = Measured(**{field.name: 0.0 for field in attrs.fields(Measured)})
    found = need(Load(users=1000), Policy(), free)
    assert (found.nodes, found.shards, found.redis_cores) == (3, 1, 0)


def test_a_core_is_as_busy_as_it_may_be() -> None:
    found = need(Load(runs=60), Policy(busy=0.5))
    busy = found.event_cores + found.relay_cores + found.heartbeat_cores + found.look_cores
    assert 0.49 < busy / (found.nodes - 1) <= 0.5
