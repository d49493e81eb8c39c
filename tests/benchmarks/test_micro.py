"""The benchmarks of parts go on working when the parts change. What they find is not looked at."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks read CPU clocks as Linux has them", allow_module_level=True)

import trio
from benchmarks import __main__ as command
from benchmarks import growth, inprocess, micro

from trio_ws.server.lane import FrameScanner


@pytest.mark.parametrize("part", [micro.append, micro.evict, micro.take, micro.ack, micro.event])
def test_each_part(part: Callable[[int], float]) -> None:
    assert part(3) > 0


def test_the_ack_that_is_scanned_is_one_that_takes_the_lane() -> None:
    taken: list[bytes] = []
    scanner = FrameScanner(max_message_bytes=1000, max_fragments=1)
    scanner.lane = taken.append
    assert scanner.feed(micro.masked(b'{"t":"ack","seq":1}')) == b""
    assert taken == [b'{"t":"ack","seq":1}']


async def test_events_in_process_are_flushed_and_settled_by_acks() -> None:
    async with inprocess.hub_of() as hub:
        client = inprocess.Client(hub, "ada")
        inprocess.publish(hub, "ada", 5)
        assert hub.statistics().events_held == 5
        await inprocess.taken(client)
        client.ack()
        assert hub.statistics().events_settled == 5


@pytest.mark.parametrize("there", [True, False])
def test_the_curve_of_a_mailbox_goes_over_all_stages(there: bool) -> None:
    costs = trio.run(growth.by_mailbox, 5 * growth.BATCH, there)
    assert list(costs)[-1] == "full"
    assert len(costs) == growth.STAGES + 1
    assert all(cost > 0 for cost in costs.values())


def test_a_curve_is_judged_by_its_worst_point() -> None:
    assert "**missed** (1.50)" in growth.curve("n", "cost", {"1": [2.0], "2": [3.0], "3": [2.0]})
    assert "met (1.10)" in growth.curve("n", "cost", {"1": [2.0], "2": [2.2]})


def test_wrong_arguments_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--scenarios", "AX"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "no scenario X; there are A, B" in capsys.readouterr().err
