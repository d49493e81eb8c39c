"""Checkers by themselves: silent about what is right, and red about each way in which it can be wrong."""

from __future__ import annotations

import pytest

from trio_ws import Event, Gap, Priority
from trio_ws.core import wire
from trio_ws.testing.checkers.record import Record, Watcher
from trio_ws.testing.checkers.sight import Line, Published
from trio_ws.testing.checkers.traffic import Accounting, AckedIsDone, Content, Fencing, TabOrder


def frame(seq: int, *, text: str = "", **options: int) -> bytes:
    text = text or f"{seq}.;"
    payload = f'{{"n":{text.split(";")[-2].split(".")[0]},"text":"{text}"}}'.encode()
    return wire.event_frame(seq, wire.event_tail(f"id{seq}", "note", payload, 0.0), **options)


def welcome(seq: int = 0, head: int = 9) -> bytes:
    return wire.welcome(
        session="s",
        epoch="e",
        seq=seq,
        head=head,
        resumed=False,
        heartbeat_active=2,
        heartbeat_idle=25,
        heartbeat_grace=2,
        ack_events=32,
        ack_delay=0.05,
        expires=None,
    )


def gap(first: int, last: int, count: int | None = None) -> bytes:
    return wire.gap(first, last, "evicted", {"note": last - first + 1 if count is None else count}, 0)


def seen_by(watcher: Watcher) -> Record:
    record = Record(lambda: 0.0, [watcher])
    for token in range(1, 10):
        record.publish(
            Published(
                token=token,
                user="ada" if token < 9 else "bob",
                type="note",
                text=f"{token}.;",
                life=0,
                priority=Priority.NORMAL,
                tracked=False,
                delta=token in (5, 6),
                key=None,
                mortal=False,
            )
        )
    return record


def line(number: int = 1) -> Line:
    return Line(
        number=number, user="ada", client="ada/tab0.1", honest=True, plain=False, life=0, opened_at=0.0
    )


RIGHT = [
    welcome(),
    frame(1),
    gap(2, 4),
    frame(6, text="5.;6.;", merged_from=5),
    frame(1, retry=1),
    wire.live(6),
]


@pytest.mark.parametrize("watcher", [Accounting, AckedIsDone, Content, Fencing])
def test_nothing_is_said_about_what_is_right(watcher: Watcher) -> None:
    record = seen_by(watcher)
    record.sent(line(), RIGHT)
    assert record.violations == []


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([frame(1)], id="before welcome"),
        pytest.param([welcome(), frame(2)], id="a hole"),
        pytest.param([welcome(), frame(1), frame(1)], id="repeated without retry"),
        pytest.param([welcome(), frame(1, retry=1)], id="a retry that runs ahead"),
        pytest.param([welcome(), gap(2, 3)], id="a gap after a hole"),
        pytest.param([welcome(), gap(1, 3, 2)], id="a gap that miscounts"),
        pytest.param([welcome(), frame(3, merged_from=2)], id="merged after a hole"),
        pytest.param([welcome(), frame(1), wire.live(2)], id="live too early"),
        pytest.param([welcome(seq=9, head=3)], id="welcome above the head"),
    ],
)
def test_each_breach_of_the_accounting_rule_is_seen(frames: list[bytes]) -> None:
    record = seen_by(Accounting)
    record.sent(line(), frames)
    assert record.violations


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([welcome(), frame(1, text="9.;")], id="another user's"),
        pytest.param([welcome(), frame(1), frame(2, text="1.;")], id="one event at two places"),
        pytest.param([welcome(), frame(1, text="1.x;")], id="another text"),
        pytest.param([welcome(), frame(2, text="1.;2.;", merged_from=1)], id="merged, and no deltas"),
        pytest.param([welcome(), frame(2, text="2.;", merged_from=1)], id="merged, and a part missing"),
        pytest.param([welcome(), frame(1, critical=True)], id="critical all at once"),
    ],
)
def test_each_change_of_what_was_published_is_seen(frames: list[bytes]) -> None:
    record = seen_by(Content)
    record.sent(line(), frames)
    assert record.violations


def test_what_was_acked_and_comes_again_is_seen() -> None:
    record, connection = seen_by(AckedIsDone), line()
    record.sent(connection, [welcome(), frame(1), frame(2)])
    record.heard(connection, [wire.Ack(seq=1)])
    record.sent(connection, [frame(2, retry=1)])
    assert not record.violations
    record.sent(connection, [frame(1, retry=1)])
    assert record.violations


def test_a_connection_that_goes_on_after_it_was_fenced_off_is_seen() -> None:
    record, old, new = seen_by(Fencing), line(1), line(2)
    record.sent(old, [welcome()])
    record.sent(new, [welcome(), frame(1)])
    assert not record.violations
    record.sent(old, [frame(1)])
    assert record.violations


def given(seq: int) -> Event:
    return Event(seq=seq, id="", type="note", payload={"n": seq, "text": f"{seq}.;"}, ts=0.0)


def test_what_a_tab_is_given_twice_or_not_at_all_is_seen() -> None:
    for seqs, right in (((1, 2, 3), True), ((1, 3), False), ((1, 2, 1), False), ((2, 2), False)):
        record = seen_by(TabOrder)
        for seq in seqs:
            record.processed("ada/tab0.1", given(seq))
        assert bool(record.violations) is not right
    record = seen_by(TabOrder)
    record.processed("ada/tab0.1", given(1))
    record.told("ada/tab0.1", Gap(first=2, last=3, reason="evicted", lost={"note": 2}))
    record.processed("ada/tab0.1", given(4))
    assert not record.violations
