"""scripts/measure durability, with as little as there can be of everything."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from measuring import durability

pytestmark = pytest.mark.integration


async def test_a_server_that_holds_much_is_started_and_gives_it_back(tmp_path: Path) -> None:
    with trio.fail_after(120):
        await durability.fill(tmp_path / "it.db", 2 * durability.OF_EACH)
        ready, first, last, used = await durability.start(tmp_path / "it.db", "user1")
    assert used > 0
    assert 0 < ready < first <= last


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_cost_of_an_event_is_measured(tmp_path: Path, store: str) -> None:
    with trio.fail_after(120):
        cost = await durability.cost("memory" if store == "memory" else f"sqlite:{tmp_path}/it.db", 40, 2)
    assert len(cost.took) == 40
    assert 0 < cost.at(0.5) <= cost.at(0.99)
    assert cost.cpu > 10
