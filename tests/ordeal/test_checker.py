"""The checker of scripts/chaos: an honest run passes, and each lie that is planted in its journals is found."""

from __future__ import annotations

import copy
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from ordeal import publishers, rounds
from ordeal.checker import Count, check, count
from ordeal.copies import Answered, Copies, backup, look_into, missing, plain
from ordeal.journal import Journal, Reader, digest, read
from ordeal.plan import FAULTS, draw
from ordeal.tabs import saved_in

from trio_ws import Config
from trio_ws.core.records import Kept, KeptRest, UserRecord
from trio_ws.store import SqliteStore

LIFECYCLE_TYPES = Config().critical_types

Lines = list[dict[str, Any]]
Journals = dict[str, Lines]


def tried(id: str, critical: bool = True, how: str = "one") -> dict[str, Any]:
    return {"do": "try", "by": "p", "user": "ada", "id": id, "critical": critical, "payload": id, "how": how}


def answer(id: str, seq: int, status: int = 202, state: str = "held", **more: Any) -> dict[str, Any]:
    told = {"seq": seq, "epoch": "E", "state": state, "duplicate": False}
    return {"do": "answer", "by": "p", "user": "ada", "id": id, "status": status, **told, **more}


def got(id: str, seq: int, **more: Any) -> dict[str, Any]:
    return {"do": "got", "seq": seq, "id": id, "done": seq - 1, "critical": True, "payload": id, **more}


def gap(first: int, last: int, reason: str, critical: int = 0) -> dict[str, Any]:
    return {"do": "gap", "from": first, "to": last, "reason": reason, "critical": critical, "lost": {}}


def left(**more: Any) -> dict[str, Any]:
    return {"do": "left", "resets": 0, "violations": 0, **more}


def honest() -> Journals:
    """Six events: a confirmed one, three deltas that were joined, one that was lost in a crash, and a last one; and
    two tabs, of which one was killed."""
    delivery = {"events_accepted": 5, "events_settled": 3, "events_held": 0, "events_evicted": 2}
    return {
        "publisher-p": [
            *(tried("a"), answer("a", 1, status=200, state="confirmed")),
            *(tried("d1", False, "batch"), tried("d2", False, "batch"), tried("d3", False, "batch")),
            *(answer("d1", 2), answer("d2", 3), answer("d3", 4)),
            *(tried("n", False), answer("n", 5)),
            *(tried("z"), {"do": "refused", "id": "z", "status": 503, "code": "draining"}, answer("z", 6)),
        ],
        "tab-ada-a": [
            {"do": "start", "user": "ada", "seq": None},
            got("a", 1, session="s", epoch="E"),
            got("d3", 4, deltas=["d1", "d2", "d3"], **{"from": 2}),
            gap(5, 5, "reset"),
            got("z", 6),
            left(),
        ],
        "tab-ada-b": [
            {"do": "start", "user": "ada", "seq": None},
            got("a", 1, session="t", epoch="E"),
            {"do": "start", "user": "ada", "seq": 0},
            got("a", 1, session="t", epoch="E"),
            gap(2, 4, "settled"),
            gap(5, 5, "reset"),
            got("z", 6),
            left(),
        ],
        # Two with one session: the first has got what was accepted before the second came, though later.
        "visit-ada-1": [
            {"do": "start", "user": "ada", "seq": None},
            {"do": "connected", "wall": 100.0},
            got("a", 1, session="v", epoch="E", ts=102.9),
            {"do": "ended", "why": "superseded"},
        ],
        "visit-ada-1-twin": [
            {"do": "start", "user": "ada", "seq": 5},
            {"do": "connected", "wall": 103.0},
            got("z", 6, session="v", epoch="E", ts=103.1),
            left(),
        ],
        "run": [
            {"do": "begin", "durability": "critical"},
            {"do": "heads", "heads": {"ada": 6}},
            {"do": "books", **delivery, "events_expired": 0, "events_superseded": 0},
            {"do": "kept", "user": "ada", "epoch": "E", "head": 6, "events": [[6, "z"]], "unconfirmed": []},
        ],
    }


async def a_database(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO users VALUES ('ada', 'E', 6, 6, 6, NULL, 0, NULL, 0)")
        db.execute(
            "INSERT INTO events VALUES ('ada', 6, 6, 'z', 'note', 3, '1', 1.0, NULL, NULL, 0, 0, 0, 1, 1, 0, NULL)"
        )


def write(directory: Path, journals: Journals) -> None:
    for name, lines in journals.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


async def findings(directory: Path, journals: Journals) -> list[str]:
    write(directory, journals)
    await a_database(directory / "it.db")
    return check(directory, directory / "it.db", over=True)


async def test_an_honest_run_passes(tmp_path: Path) -> None:
    assert await findings(tmp_path, honest()) == []


def an_event_is_lost(j: Journals) -> None:
    for tab in ("tab-ada-a", "tab-ada-b", "visit-ada-1-twin"):
        j[tab] = [line for line in j[tab] if line.get("id") != "z"]


def a_gap_covers_it(j: Journals) -> None:
    j["tab-ada-a"][4] = gap(6, 6, "evicted")


def a_gap_tells_of_a_loss(j: Journals) -> None:
    j["tab-ada-a"][3]["critical"] = 1


def a_confirmation_is_made_up(j: Journals) -> None:
    for tab in ("tab-ada-a", "tab-ada-b", "visit-ada-1"):
        for line in j[tab]:
            if line.get("id") == "a":
                line |= {"id": "n", "payload": "n"}


def a_hole(j: Journals) -> None:
    del j["tab-ada-a"][3]


def a_repeat_in_one_life(j: Journals) -> None:
    j["tab-ada-a"].insert(2, got("a", 1))


def a_repeat_of_what_was_saved(j: Journals) -> None:
    j["tab-ada-b"][2]["seq"] = 1


def an_end_too_early(j: Journals) -> None:
    j["run"][1]["heads"]["ada"] = 7


def a_seq_of_two_events(j: Journals) -> None:
    j["publisher-p"][-1]["seq"] = 1


def a_new_epoch(j: Journals) -> None:
    j["publisher-p"][-1]["epoch"] = "F"


def a_payload_of_another(j: Journals) -> None:
    j["tab-ada-a"][4]["payload"] = "n"


def a_delta_that_is_missing(j: Journals) -> None:
    j["tab-ada-a"][2]["deltas"].pop(0)


def a_key_of_two_events(j: Journals) -> None:
    j["publisher-p"] += [answer("z", 7)]


def a_connection_that_was_not_fenced(j: Journals) -> None:
    j["visit-ada-1"].insert(-1, got("z", 6, ts=103.1))


def another_event_in_redis(j: Journals) -> None:
    j["run"][3]["events"] = [[6, "y"]]


def a_head_that_was_lost_in_redis(j: Journals) -> None:
    j["run"][3]["head"] = 5


def a_new_epoch_in_redis(j: Journals) -> None:
    j["run"][3]["epoch"] = "F"


def an_event_that_is_still_held_in_redis(j: Journals) -> None:
    j["run"][3]["unconfirmed"] = [[6, "z"]]


def an_order_that_is_not_kept(j: Journals) -> None:
    j["publisher-p"] += [tried("y"), answer("y", 6)]
    j["publisher-p"][-3]["seq"] = 7


def a_refusal_for_good(j: Journals) -> None:
    j["publisher-p"] += [tried("y"), {"do": "refused", "id": "y", "status": 422, "code": "invalid"}]


def an_event_without_an_answer(j: Journals) -> None:
    j["publisher-p"] += [tried("y")]


def a_reset(j: Journals) -> None:
    j["tab-ada-a"][-1]["resets"] = 1


def a_broken_rule(j: Journals) -> None:
    j["tab-ada-a"][-1]["violations"] = 1


def an_event_of_nobody(j: Journals) -> None:
    j["tab-ada-a"][4] |= {"id": "made-up"}


def a_wrong_end(j: Journals) -> None:
    j["run"].append({"do": "wrong", "what": "18: a life ended with status 1 after a term"})


def books_that_do_not_balance(j: Journals) -> None:
    j["run"][2]["events_accepted"] = 6


def no_end(j: Journals) -> None:
    del j["run"][1]


@pytest.mark.parametrize(
    ("lie", "number"),
    [
        (an_event_is_lost, "1"),
        (a_gap_covers_it, "2"),
        (a_gap_tells_of_a_loss, "2"),
        (a_confirmation_is_made_up, "6"),
        (a_hole, "9"),
        (a_repeat_in_one_life, "5"),
        (a_repeat_of_what_was_saved, "5"),
        (an_end_too_early, "9"),
        (a_seq_of_two_events, "10"),
        (a_new_epoch, "10"),
        (a_payload_of_another, "10"),
        (a_delta_that_is_missing, "10"),
        (a_key_of_two_events, "13"),
        (a_connection_that_was_not_fenced, "12"),
        (another_event_in_redis, "10: seq 6"),
        (a_head_that_was_lost_in_redis, "10: the head of ada is 5"),
        (a_new_epoch_in_redis, "10"),
        (an_event_that_is_still_held_in_redis, "1"),
        (an_order_that_is_not_kept, "9"),
        (a_refusal_for_good, "y was refused with 422"),
        (an_event_without_an_answer, "14"),
        (a_reset, "10"),
        (a_broken_rule, "9"),
        (an_event_of_nobody, "10"),
        (a_wrong_end, "18"),
        (books_that_do_not_balance, "19"),
        (no_end, "14"),
    ],
    ids=lambda x: x.__name__ if callable(x) else x,
)
async def test_a_lie_is_found(tmp_path: Path, lie: Callable[[Journals], None], number: str) -> None:
    journals = copy.deepcopy(honest())
    lie(journals)
    found = await findings(tmp_path, journals)
    assert any(line.startswith(number) for line in found), found


@pytest.mark.parametrize(
    ("lie", "lost", "twice"),
    [
        (None, 0, 0),
        (an_event_is_lost, 1, 0),
        (a_repeat_in_one_life, 0, 1),
        (a_repeat_of_what_was_saved, 0, 1),
    ],
)
def test_what_it_comes_down_to_is_counted(
    tmp_path: Path, lie: Callable[[Journals], None] | None, lost: int, twice: int
) -> None:
    journals = copy.deepcopy(honest())
    promised = count_in(tmp_path / "honest", journals).promised
    if lie is not None:
        lie(journals)
    assert promised > 0
    assert count_in(tmp_path / "told", journals) == Count(promised, lost, twice)


def a_loss() -> Journals:
    """Redis has lost the end of a log, an event that nobody had processed among it, and clients were told. Of the log
    that began anew one of them passes over what it knows."""
    return {
        "publisher-p": [
            *(tried("a"), answer("a", 1), tried("b"), answer("b", 2), tried("c"), answer("c", 3)),
            *(tried("d"), answer("d", 2, epoch="F"), tried("e"), answer("e", 3, epoch="F")),
        ],
        "tab-ada-a": [
            {"do": "start", "user": "ada", "seq": None},
            *(got("a", 1, session="s", epoch="E"), got("b", 2)),
            gap(3, 3, "reset") | {"anew": True},
            *(got("d", 2, session="t", epoch="F"), got("e", 3)),
            left(resets=1),
        ],
        "tab-ada-b": [
            {"do": "start", "user": "ada", "seq": None},
            {"do": "start", "user": "ada", "seq": 2},
            gap(3, 2, "reset") | {"anew": True},
            *(got("a", 1, session="u", epoch="F"), got("d", 2), got("e", 3)),
            left(resets=1),
        ],
        "run": [
            {"do": "begin", "durability": "critical", "nodes": 3, "may_lose": True, "may_renew": True},
            {"do": "heads", "heads": {"ada": 3}},
            {"do": "kept", "user": "ada", "epoch": "F", "head": 3, "events": [[3, "e"]], "unconfirmed": []},
        ],
    }


def test_a_loss_that_was_noticed_is_none_in_silence(tmp_path: Path) -> None:
    write(tmp_path, a_loss())
    assert check(tmp_path, over=True) == []
    assert count(tmp_path) == Count(promised=5, lost=0, twice=0, noticed=1, anew=1)


def it_may_not_lose_anything(j: Journals) -> None:
    j["run"][0]["may_lose"] = False


def no_log_may_begin_anew(j: Journals) -> None:
    j["run"][0]["may_renew"] = False


def a_loss_in_an_epoch_that_goes_on(j: Journals) -> None:
    j["publisher-p"] += [tried("f"), answer("f", 4, epoch="F")]


def a_client_that_was_not_told(j: Journals) -> None:
    j["tab-ada-b"][2:] = [got("b", 3, session="s", epoch="E")]


def a_hole_where_nothing_was_known(j: Journals) -> None:
    j["publisher-p"] += [tried("f"), answer("f", 4, epoch="F")]
    j["tab-ada-a"][4:6] = [got("d", 2, session="t", epoch="F"), got("f", 4)]


def a_seq_that_two_have_in_one_epoch(j: Journals) -> None:
    j["tab-ada-b"][3]["epoch"] = "E"
    j["tab-ada-b"][4]["epoch"] = "E"


def what_comes_twice_in_one_epoch(j: Journals) -> None:
    j["tab-ada-a"].insert(-1, got("d", 2))


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (it_may_not_lose_anything, "1: c "),
        (no_log_may_begin_anew, "10: tab-ada-a could not resume"),
        (a_loss_in_an_epoch_that_goes_on, "1: f "),
        (a_client_that_was_not_told, "10: tab-ada-b was not told that its log has begun anew"),
        (a_hole_where_nothing_was_known, "9: tab-ada-a was never given 3 to 3"),
        (a_seq_that_two_have_in_one_epoch, "10: seq 2 of ada is b, and d in tab-ada-b"),
        (what_comes_twice_in_one_epoch, "5: tab-ada-a was given seq 2 (d) after 3"),
    ],
    ids=lambda x: x.__name__ if callable(x) else "",
)
def test_a_loss_in_silence_is_found(tmp_path: Path, lie: Callable[[Journals], None], found: str) -> None:
    journals = a_loss()
    lie(journals)
    write(tmp_path, journals)
    assert any(line.startswith(found) for line in check(tmp_path, over=True))


@pytest.mark.parametrize(("session", "is_found"), [("v", True), ("one of its own", False)])
def test_two_whose_session_was_lost_may_both_be_given_events(
    tmp_path: Path, session: str, *, is_found: bool
) -> None:
    journals = honest()
    a_connection_that_was_not_fenced(journals)
    journals["run"][0]["may_renew"] = True
    journals["visit-ada-1-twin"][2]["session"] = session
    write(tmp_path, journals)
    assert any(line.startswith("12:") for line in check(tmp_path, over=True)) is is_found


def test_each_redis_has_the_faults_that_there_are_of_it() -> None:
    faults = {
        (topology, durability): rounds.possible(topology, durability)
        for topology in rounds.TOPOLOGIES
        for durability in rounds.DURABILITIES
    }
    assert all({"kill", "redis-kill", "redis-stop", "redis-full"} < those for those in faults.values())
    having = {fault: [form for form, those in faults.items() if fault in those] for fault in rounds.FAULTS}
    assert {durability for _, durability in having["redis-power"]} == {"everysec"}
    assert {topology for topology, _ in having["redis-slot"]} == {"cluster"}
    assert {topology for topology, _ in having["link-cut"]} == {"server"}
    assert not having["link-lost"]
    assert rounds.possible(namespaced=True) - rounds.possible() == {"link-lost"}


def count_in(directory: Path, journals: Journals) -> Count:
    directory.mkdir()
    write(directory, journals)
    return count(directory)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ("UPDATE users SET head = 5", "10: the head of ada is 5"),
        ("UPDATE events SET id = 'y'", "10: seq 6 of ada was z"),
        ("UPDATE events SET confirmed = 0, first = 7, seq = 7", "1: z of ada, seq 7, is still held"),
        ("INSERT INTO quarantine VALUES (1.0, 'events', 'its checksum is another', '[]')", "a row of events"),
    ],
)
async def test_what_is_wrong_in_the_database_is_found(tmp_path: Path, change: str, number: str) -> None:
    write(tmp_path, honest())
    await a_database(tmp_path / "it.db")
    with closing(sqlite3.connect(tmp_path / "it.db")) as db, db:
        db.execute(change)
    found = check(tmp_path, tmp_path / "it.db", over=True)
    assert any(line.startswith(number) for line in found), found


async def test_while_a_run_goes_on_nothing_is_missed_that_may_yet_come(tmp_path: Path) -> None:
    journals = honest()
    journals["publisher-p"] += [tried("y")]
    del journals["tab-ada-a"][4:], journals["tab-ada-b"][6:], journals["run"][1], journals["visit-ada-1-twin"]
    write(tmp_path, journals)
    assert check(tmp_path) == []


async def test_a_traceback_in_the_servers_log_is_found(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("admin on http://…\nTraceback (most recent call last):\n")
    assert any("log" in line for line in await findings(tmp_path, honest()))


def test_a_line_that_was_torn_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    path.write_bytes(b'{"do":"got"}\n{"do":"go')
    assert [line["do"] for line in read(path)] == ["got"]
    journal = Journal(path)
    reader = Reader(path)
    assert [line["do"] for line in reader.more()] == ["got"]
    journal.write("gap")
    assert [line["do"] for line in reader.more()] == ["gap"]
    journal.write("left")
    assert [line["do"] for line in reader.more()] == ["left"]
    journal.close()


def test_a_digest_is_of_the_value() -> None:
    assert digest({"a": 1, "b": [2.5]}) == digest({"b": [2.5], "a": 1}) != digest({"a": 1, "b": [2]})


def test_a_tab_goes_on_with_what_its_journal_says(tmp_path: Path) -> None:
    path = tmp_path / "tab.jsonl"
    write(tmp_path, {"tab": [got("a", 1, session="s", epoch="E"), got("b", 2)]})
    saved = saved_in(path)
    assert saved is not None
    assert (saved.session, saved.epoch, saved.seq) == ("s", "E", 1)
    assert saved_in(tmp_path / "none") is None


def test_publishers_publish_all_kinds_and_know_which_are_critical() -> None:
    rng = random.Random(1)
    events = [publishers.draw(rng, "ada", f"e{n}") for n in range(500)]
    assert {event["type"] for event in events} == {
        *LIFECYCLE_TYPES,
        "critical",
        "delta",
        "keyed",
        "note",
        "tracked",
    }
    for event in events:
        assert publishers.is_critical(event) == (event["type"] in {*LIFECYCLE_TYPES, "critical"})


def test_a_plan_follows_from_seed_and_number() -> None:
    faults = frozenset(FAULTS)
    plans = [draw("seed", number, faults, 0.5) for number in range(2000)]
    assert plans == [draw("seed", number, faults, 0.5) for number in range(2000)]
    assert {(plan.end, plan.moment) for plan in plans} == {
        ("kill", "start"),
        ("kill", "work"),
        ("kill", "drain"),
        ("term", "work"),
    }
    assert {incident.fault for plan in plans for incident in plan.incidents} == faults - {"kill", "term"}
    only = [draw("seed", number, frozenset({"kill"}), 0.5) for number in range(200)]
    assert {plan.end for plan in only} == {"kill"}
    assert not any(plan.incidents or plan.moment == "drain" for plan in only)


def test_a_seed_draws_every_fault_of_several_nodes_and_always_the_same() -> None:
    faults = frozenset(rounds.FAULTS)
    drawn = [rounds.draw("seed", number, faults, 3, 2.0) for number in range(2000)]
    assert drawn == [rounds.draw("seed", number, faults, 3, 2.0) for number in range(2000)]
    incidents = [incident for one in drawn for incident in one.incidents]
    assert {incident.fault for incident in incidents} == faults
    assert {incident.node for incident in incidents} == {-1, 0, 1, 2}
    assert sum(incident.fault == "kill" for incident in incidents) > 1000
    assert sum(incident.fault in rounds.OF_REDIS for incident in incidents) > 1500
    assert all(incident.seconds <= rounds.LONGEST.get(incident.fault, 3.0) for incident in incidents)
    only = [rounds.draw("seed", number, frozenset({"kill"}), 3, 2.0) for number in range(200)]
    assert {incident.fault for one in only for incident in one.incidents} == {"kill"}


@pytest.mark.parametrize("way", [backup, plain])
async def test_a_copy_that_lacks_what_was_promised_is_found(
    tmp_path: Path, way: Callable[[Path, Path], bool]
) -> None:
    source = tmp_path / "it.db"
    await a_database(source)
    with closing(sqlite3.connect(source)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("UPDATE events SET crc = crc")
        db.execute("INSERT INTO keys VALUES ('ada', 1, 'a', 'settled')")
        db.commit()
        copied = [tmp_path / f"copy{n}.db" for n in range(2)]
        assert all(way(source, target) for target in copied)
    lacking = await look_into(copied[0], {"ada": [("a", 1, "E"), ("b", 2, "E")], "bob": [("c", 1, "E")]})
    assert "b of ada, seq 2, is missing" in lacking
    assert "nothing is known of bob" in lacking
    assert not any("a of ada" in line for line in lacking)
    # The row of the event was not made by a store, and has no checksum.
    assert "it holds rows that make no sense" in lacking


def test_what_waits_in_the_store_only_is_in_a_copy() -> None:
    user = UserRecord("ada", "E", 2, 2, 0, due=None, partial=False, gone=(), rest=2)
    kept = Kept(user, rest=KeptRest(0, None, {"b": 2}))
    assert missing("ada", kept, [("b", 2, "E"), ("c", 3, "an epoch that is over")]) == []
    assert missing("ada", kept, [("b", 3, "E")]) == ["b of ada is at 2, not at 3"]
    assert missing("ada", kept, [("c", 3, "E")]) == ["c of ada, seq 3, is missing"]


async def test_a_copy_that_is_damaged_is_found_and_kept(tmp_path: Path) -> None:
    write(tmp_path, {"publisher-p": [tried("a"), answer("a", 1)]})
    (tmp_path / "it.db").write_bytes(b"this is no database" * 1000)
    (tmp_path / "it.db-wal").write_bytes(bytes(100))
    copies = Copies(tmp_path / "it.db", tmp_path, Answered(tmp_path))
    with trio.fail_after(60):
        await copies.take("plain")
    assert copies.answered.critical == copies.answered.count == 1
    assert any("integrity_check" in line for line in copies.findings)
    assert list(tmp_path.glob("copy-*.db"))  # noqa: ASYNC240
