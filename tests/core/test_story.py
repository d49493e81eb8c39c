"""Stories of events: each case once, as somebody reads it; `test_machine.py` has the rest against a diary."""

from __future__ import annotations

from trio_ws.core import journal, story
from trio_ws.core.entry import CLASS_LOW
from trio_ws.core.journal import Journal, Journals, Line

from .model import make_entry
from .world import World


def told(world: World, id: str) -> list[str]:
    """The steps of an event, as words."""
    found = story.tell(world.ada, id, world.config.confirm_timeout)
    assert found is not None
    words = []
    for s in found.steps:
        extra = [f"retry {s.retry}"] * bool(s.retry) + [f"into {s.into}"] * bool(s.into)
        extra += [s.reason] if s.reason else []
        words.append(" ".join([f"{s.at - 100:g}", s.step, *extra]))
    return words


def test_the_life_of_a_critical_event() -> None:
    world = World()
    session = world.connect()
    entry = world.critical()
    world.now += 1
    world.take(session)
    world.now += 0.5
    session.redeliver(world.now)
    session.nack(1, world.now)
    world.now += 0.5
    session.redeliver(world.now)
    world.now += 4.5
    world.confirmations.expire(world.now)
    session.ack(1, world.now)
    world.now += 200
    world.ada.sweep(world.now)
    assert told(world, entry.id) == [
        "0 accepted",
        "1 sent",
        "1.5 nacked",
        "1.5 redelivered retry 1",
        "2 redelivered retry 2",
        "6 timed_out",
        "6.5 acked",
        "6.5 confirmed",
        "6.5 settled",
        "206.5 forgotten",
    ]


def test_two_sessions_and_a_resume() -> None:
    world = World()
    one, two = world.connect(), world.connect()
    entry = world.publish()
    world.take(one)
    world.process(two)
    world.now += 1
    world.pool.park(one, world.now)
    world.now += 1
    world.process(world.come_back(one, 0))
    found = story.tell(world.ada, entry.id, 5.0)
    assert found is not None
    assert [(s.at - 100, s.step, s.session) for s in found.steps] == [
        (0, "accepted", None),
        (0, "sent", one.id),
        (0, "sent", two.id),
        (0, "acked", two.id),
        (0, "confirmed", two.id),
        (2, "redelivered", one.id),
        (2, "acked", one.id),
        (2, "settled", None),
    ]


def test_joined_for_a_session_and_in_the_log() -> None:
    world = World(max_events_per_user=3)
    first, second = world.delta("a"), world.delta("b")
    session = world.connect()
    world.process(session)
    world.now += 1
    third, fourth, _ = world.delta("c"), world.delta("d"), world.critical()
    world.publish()  # it makes room: the oldest history goes first, and then c and d become one
    world.publish()
    assert told(world, first.id) == [
        "0 accepted",
        "0 merged into 2",
        "0 sent",
        "0 acked",
        "0 confirmed",
        "0 settled",
        "1 forgotten",
    ]
    assert told(world, second.id)[:2] == ["0 accepted", "0 sent"]
    assert told(world, third.id) == ["1 accepted", "1 merged into 4", "1 evicted"]
    assert told(world, fourth.id) == ["1 accepted", "1 evicted"]


def test_superseded_evicted_and_told_of_it() -> None:
    world = World(max_events_per_user=2)
    old = world.publish(key="k", type="status")
    world.now += 1
    new = world.publish(key="k", type="status", retention=CLASS_LOW)
    world.now += 1
    world.critical()
    world.critical()
    world.take(world.connect(epoch=world.ada.epoch, seq=0))
    assert told(world, old.id) == ["0 accepted", "1 superseded into 2", "2 gap superseded"]
    assert told(world, new.id) == ["1 accepted", "2 gap evicted", "2 evicted"]


def test_nothing_is_known_of_others() -> None:
    world = World()
    assert story.tell(world.ada, "e1", 5.0) is None
    world.publish()
    assert story.tell(world.ada, "e2", 5.0) is None
    assert world.ada.journal is None  # nothing was sent to anybody


def test_the_newest_come_first_also_when_they_are_gone() -> None:
    world = World(max_events_per_user=2)
    for _ in range(5):
        world.publish()
    assert [e.seq for e in story.newest(world.ada, 3)] == [5, 4, 3]
    assert [(e.seq, e.state) for e in story.newest(world.ada, 2, 4)] == [(3, "evicted"), (2, "evicted")]
    assert story.newest(world.ada, 5, 1) == []


def test_what_the_journal_has_lost_is_told_by_the_entry() -> None:
    world = World()
    session = world.connect()
    entry = world.critical()
    world.process(session)
    assert world.ada.journal is not None
    world.ada.journal.lines.clear()
    assert told(world, entry.id) == ["0 accepted", "0 sent", "0 confirmed", "0 settled"]


def test_a_journal_is_bounded() -> None:
    journals = Journals(1 << 30)
    one = Journal(journals)
    for n in range(2 * journal.MAX_LINES):
        one.note(Line(float(n), journal.SENT, "s", n, n))
        one.bury(make_entry())
    assert (len(one.lines), len(one.past)) == (journal.MAX_LINES, journal.MAX_PAST)
    assert one.lines[0].at == journal.MAX_LINES
    assert journals.count == len(one)
    journals.close(one)
    assert journals.count == 0


def test_all_journals_are_bounded_together_and_take_turns() -> None:
    journals = Journals(100)
    all_of_them = [Journal(journals) for _ in range(10)]
    for n in range(200):
        for one in all_of_them:
            one.note(Line(float(n), journal.SENT, "s", n, n))
            assert journals.count <= 100
    assert journals.count == sum(map(len, all_of_them))
    assert min(map(len, all_of_them)) > 2
    assert all(one.lines[-1].at == 199.0 for one in all_of_them[-5:])


def test_a_closed_mailbox_gives_its_journal_up() -> None:
    world = World(event_ttl=1)
    session = world.connect()
    world.publish()
    world.process(session)
    world.now += 2
    world.ada.sweep(world.now)
    world.pool.end(session, world.now)
    assert world.buffer.journals.count == 3
    world.buffer.close(world.ada)
    assert world.buffer.journals.count == 0
