"""Holds the journals of a run, and what is kept at its end, against the promises.

    PYTHONPATH=.:scripts .venv/bin/python -m ordeal.checker DIR [DATABASE]

judges what `scripts/chaos --keep DIR` has left, or while that goes on: then without the database. What Redis held at
the end is in the journal of a run of several nodes: `-` stands for it, in place of DATABASE.

Where Redis may lose what it has answered, it must be *noticed*: the log goes on in another epoch, and its clients are
told. What is said of seqs holds within an epoch then. A loss in an epoch that goes on is one in silence.

Each check is a function that yields what is wrong, in words; what it checks is numbered as in the list of invariants:

     1  no confirmed critical event is lost: it was processed, or is still held
     2  what a client never got was told to it as a gap; no gap tells of a critical event that is lost
     5  what a client has processed, and whose ack was saved, it is not given again; in one life, nothing twice
     6  settled is only what a client has processed
     9  events and gaps cover every seq, in order, without a hole, in the order in which they were answered
    10  (epoch, seq) names one event and one payload for ever; the epoch stays, where no log may begin anew
    12  one connection drains a session: what was accepted after another has resumed it does not come to the one before
    13  a key that was promised makes one event
    14  after the last fault all is delivered within the bound
    18  SIGTERM ends the server with status 0, in time
    19  accepted = settled + held + evicted + expired + superseded + moved to another node
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs

from trio_ws.core.gaps import SETTLED

from .evidence import Evidence, Line, Published, gather

Check = Callable[[Evidence], Iterator[str]]
TWIN: Final = "-twin"
"""How the journal of a visitor ends who goes on with another's session."""
MOST: Final = 20
"""How many findings of one check are told."""


def check(directory: Path, database: Path | None = None, *, over: bool = False) -> list[str]:
    """What is wrong with a run.

    Args:
      directory: where its journals are.
      database: its file, where it has one and is over.
      over: it is; else nothing is missed that may yet come.
    """
    evidence = gather(directory)
    found = []
    for one in (*ALWAYS, *(AT_THE_END if over else ())):
        found += _most(one(evidence))
    if database is not None:
        found += _most(damage(database))
        found += _most(kept(evidence, in_database(database)))
    for path in sorted(directory.glob("*.log")):
        found += log(path)
    return found


def _most(findings: Iterator[str]) -> list[str]:
    """As many as anybody reads."""
    found = list(findings)
    more = [f"… and {len(found) - MOST} more like that"] if len(found) > MOST else []
    return found[:MOST] + more


@attrs.frozen
class Count:
    """What a run comes down to.

    Attributes:
      promised: critical events that publishers were answered.
      lost: those of them that no client has processed, and nobody was told.
      twice: how often a client was given again what it had.
      noticed: those that no client has processed, though the log has begun anew since, and its clients know.
      anew: how often a log has begun anew.
    """

    promised: int
    lost: int
    twice: int
    noticed: int = 0
    anew: int = 0


def count(directory: Path) -> Count:
    """What the journals of a run that is over come down to."""
    evidence = gather(directory)
    promised = sum(event.durable and event.critical for event in evidence.published.values())
    twice = sum(finding.startswith("5:") for finding in accounting(evidence))
    gone = len(list(_unprocessed(evidence)))
    silent = len(list(lost(evidence)))
    epochs = {(user, epoch) for user, _, _, epoch, _ in _sightings(evidence) if epoch is not None}
    anew = len(epochs) - len({user for user, _ in epochs})
    return Count(promised, silent, twice, gone - silent, anew)


def lost(evidence: Evidence) -> Iterator[str]:
    """1: at the end every critical event that was answered was processed by somebody, or is known to be lost."""
    epochs = evidence.epochs
    for event in _unprocessed(evidence):
        goes_on = any(answer["epoch"] == epochs.get(event.user) for answer in event.answers)
        if goes_on or not evidence.may_lose:
            yield f"1: {_told(event)} was lost: no client of {event.user} has processed it"


def _unprocessed(evidence: Evidence) -> Iterator[Published]:
    processed = _processed(evidence)
    for event in evidence.published.values():
        if event.durable and event.critical and (event.user, event.id) not in processed:
            yield event


def confirmed(evidence: Evidence) -> Iterator[str]:
    """6: what was answered as confirmed or settled was processed before.

    Not asked for where a client was told that the event is gone, as may happen to what is not critical: a crash that
    took that back has brought the event back, and the client's next ack is taken for it, too.
    """
    processed = _processed(evidence)
    told_gone = {
        (seat.user, seq)
        for seat in evidence.seats
        for gap in seat.gaps
        for seq in range(gap["from"], gap["to"] + 1)
    }
    for event in evidence.published.values():
        if not event.critical and any((event.user, answer["seq"]) in told_gone for answer in event.answers):
            continue
        said = [
            answer for answer in event.answers if answer["status"] == 200 or answer["state"] == "confirmed"
        ]
        if said and (event.user, event.id) not in processed:
            yield f"6: {_told(event)} was said to be confirmed, and nobody has processed it"


def gaps(evidence: Evidence) -> Iterator[str]:
    """2: a gap covers no critical event but those that another client has processed."""
    promised = {
        (event.user, answer["epoch"], answer["seq"]): event
        for event in evidence.published.values()
        if event.durable and event.critical
        for answer in event.answers
    }
    processed = _processed(evidence)
    for seat in evidence.seats:
        for gap in seat.gaps:
            if gap["critical"]:
                yield f"2: {seat.name} was told that {gap['critical']} critical events are lost: {_span(gap)}"
            for seq in range(gap["from"], gap["to"] + 1):
                event = promised.get((seat.user, gap["epoch"], seq))
                if event and (gap["reason"] != SETTLED or (event.user, event.id) not in processed):
                    yield f"2: {seat.name} was told that {_told(event)} is {gap['reason']}: {_span(gap)}"


def accounting(evidence: Evidence) -> Iterator[str]:
    """5 and 9: each tab, over all its lives. Of a log that has begun anew a client passes over what it has had."""
    ids = {
        (event.user, answer["epoch"], answer["seq"]): event.id
        for event in evidence.published.values()
        for answer in (event.answers if event.durable else ())
    }
    for seat in evidence.seats:
        covered = 0 if seat.whole else None
        before: set[str] = set()  # what it had in epochs that are over
        had: set[str] = set()
        for life in seat.lives:
            last, known = 0, life.seq or 0  # what this life itself was given, and the ones before
            for item in life.items:
                if item.get("anew"):
                    covered, last, known = None, 0, 0  # it goes on where what is held begins
                    before |= had
                    continue
                first, end = _first(item), _last(item)
                if covered is not None and first > covered + 1:
                    missed = {ids.get((seat.user, item["epoch"], seq)) for seq in range(covered + 1, first)}
                    if not before or missed - before - {None}:
                        yield f"9: {seat.name} was never given {covered + 1} to {first - 1}"
                if end <= last:
                    yield f"5: {seat.name} was given {_span(item)} after {last}, in one life"
                elif end <= known:
                    yield f"5: {seat.name} was given {_span(item)} again, having gone on from {known}"
                last = max(last, end)
                covered = max(covered or 0, end)
                had |= {item["id"]} if item["do"] == "got" else set()


def complete(evidence: Evidence) -> Iterator[str]:
    """9 and 10: at the end each tab has everything up to the head, and knows the epoch."""
    heads = next((line["heads"] for line in evidence.run if line["do"] == "heads"), {})
    for seat in evidence.seats:
        if seat.whole:
            last = 0
            for life in seat.lives:
                for item in life.items:
                    last = 0 if item.get("anew") else max(last, _last(item))
            if last < heads.get(seat.user, 0):
                yield f"9: {seat.name} was given nothing after {last}; the head is {heads[seat.user]}"
            if evidence.epochs.get(seat.user, seat.epoch) != seat.epoch:
                yield f"10: {seat.name} was not told that its log has begun anew"


def conduct(evidence: Evidence) -> Iterator[str]:
    """9 and 10, as the clients have seen for themselves: no break of the protocol, no reset."""
    for seat in evidence.seats:
        for life in seat.lives:
            if life.left and life.left["violations"]:
                yield f"9: {seat.name} saw the server break the protocol {life.left['violations']} times"
            if life.left and life.left["resets"] and not evidence.may_renew:
                yield f"10: {seat.name} could not resume: its log was begun anew"


def order(evidence: Evidence) -> Iterator[str]:
    """9: one order for a user: what a publisher tried after an answer comes after what was answered.

    Of several nodes, one that does not know yet that a log is another's may answer for it what need not be durable.
    """
    several = any(line.get("nodes", 1) > 1 for line in evidence.run)
    for event in evidence.published.values():
        for answer in event.answers[:1] if event.durable or not several else ():
            floor = event.floor.get(answer["epoch"], 0)
            if answer["seq"] <= floor:
                yield f"9: {_told(event)} came before what was answered before it was tried (seq {floor})"


def names(evidence: Evidence) -> Iterator[str]:
    """10: one event for each seq, one payload for each event, one epoch for each user where none may end."""
    ids: dict[tuple[str, str | None, int], str] = {}
    epochs: dict[str, str] = {}
    for user, seq, id, epoch, where in _sightings(evidence):
        if ids.setdefault((user, epoch, seq), id) != id:
            yield f"10: seq {seq} of {user} is {ids[user, epoch, seq]}, and {id} in {where}"
        if epoch is None or evidence.may_renew:
            continue
        if epochs.setdefault(user, epoch) != epoch:
            yield f"10: the epoch of {user} was {epochs[user]}, and is {epoch} in {where}"
    for seat in evidence.seats:
        for item in seat.got:
            event = evidence.published.get(item["id"])
            if event is None:
                if not item["id"].startswith("last-"):
                    yield f"10: {seat.name} was given {item['id']}, which nobody has published"
            elif event.user != seat.user:
                yield f"11: {seat.name} was given {item['id']} of {event.user}"
            elif "payload" in item and item["payload"] != event.payload:
                yield f"10: {seat.name} was given {item['id']} with another payload"
            elif "deltas" in item and not _joined_well(item):
                yield f"10: {seat.name} was given {_span(item)} joined of {len(item['deltas'])} deltas"


def once(evidence: Evidence) -> Iterator[str]:
    """13: a key that was promised is one event, to all who were told and to all who were given it."""
    places: dict[tuple[str, str, str | None], set[int]] = {}
    for user, seq, id, epoch, _ in _sightings(evidence):
        event = evidence.published.get(id)
        if event is not None and event.durable:
            places.setdefault((user, id, epoch), set()).add(seq)
    for (user, id, _), seqs in places.items():
        if len(seqs) > 1:
            yield f"13: {id} of {user} is at {', '.join(map(str, sorted(seqs)))}"


def fenced(evidence: Evidence) -> Iterator[str]:
    """12: of two visitors with one session, who was there before is given nothing that is newer than the other's
    welcome. (What is older may be under way yet.)"""
    seats = {seat.name: seat for seat in evidence.seats}
    for name, twin in seats.items():
        if not name.endswith(TWIN):
            continue
        pair = seats[name.removesuffix(TWIN)], twin
        sessions = {item["session"] for seat in pair for item in seat.got if "session" in item}
        if evidence.may_renew and len(sessions) > 1:
            continue  # theirs was lost, and each has one of its own
        welcomes = sorted((at, seat.name) for seat in pair for at in seat.connected)
        for seat in pair:
            for item in seat.got:
                later = [at for at, whose in welcomes if at > item["since"] and whose != seat.name]
                if later and item["ts"] > later[0]:
                    late = item["ts"] - later[0]
                    yield f"12: {seat.name} was given {_span(item)}, {late:.3f} s newer than who took over from it"


def answers(evidence: Evidence) -> Iterator[str]:
    """What publishers were answered is what the interface says, and every event of theirs was taken at last."""
    for line in evidence.refused:
        if line["status"] not in (429, 503, 504):
            yield f"{line['id']} was refused with {line['status']} {line.get('code')}"
    for event in evidence.published.values():
        states = {answer["state"] for answer in event.answers}
        if event.critical and states & {"evicted", "expired", "superseded"}:
            yield f"1: {_told(event)} is {', '.join(states)}"


def unanswered(evidence: Evidence) -> Iterator[str]:
    """14: at the end nobody waits for an answer."""
    for event in evidence.published.values():
        if not event.answers:
            yield f"14: {event.id} of {event.user} was never answered"


def run(evidence: Evidence) -> Iterator[str]:
    """14 and 18, and what the run itself has seen."""
    for line in evidence.run:
        if line["do"] == "wrong":
            yield str(line["what"])


def healed(evidence: Evidence) -> Iterator[str]:
    """14: it came to its end."""
    if not any(line["do"] == "heads" for line in evidence.run):
        yield "14: the run has not come to its end"


def books(evidence: Evidence) -> Iterator[str]:
    """19: whenever a process was asked, its books balance."""
    parts = ("settled", "held", "evicted", "expired", "superseded", "moved")
    for line in evidence.run:
        if line["do"] == "books":
            total = sum(line.get(f"events_{part}", 0) for part in parts)
            if line["events_accepted"] != total:
                yield f"19: {line['events_accepted']} events were accepted, and {total} accounted for"


def kept_at_the_end(evidence: Evidence) -> Iterator[str]:
    """1 and 10, in what the run itself has written down of what Redis holds."""
    return kept(evidence, [line for line in evidence.run if line["do"] == "kept"])


def kept(evidence: Evidence, logs: list[Line]) -> Iterator[str]:
    """1 and 10, in what is kept: of each user epoch, head, events, and which critical ones nobody has confirmed."""
    seen = {(user, epoch, seq): id for user, seq, id, epoch, _ in _sightings(evidence)}
    epochs = {user: epoch for user, epoch, _ in seen if epoch is not None}
    highest: dict[tuple[str, str | None], int] = {}
    for user, epoch, seq in seen:
        highest[user, epoch] = max(highest.get((user, epoch), 0), seq)
    for log in logs:
        user, epoch = log["user"], log["epoch"]
        if epoch != epochs.get(user, epoch) and not evidence.may_renew:
            yield f"10: the epoch of {user} was {epochs[user]}, and {log['epoch']} is kept there"
        for seq, id in log["unconfirmed"]:
            yield f"1: {id} of {user}, seq {seq}, is still held, and not confirmed"
        for seq, id in log["events"]:
            if seen.get((user, epoch, seq), id) != id:
                yield f"10: seq {seq} of {user} was {seen[user, epoch, seq]}, and {id} is kept there"
        if log["head"] < highest.get((user, epoch), 0):
            yield f"10: the head of {user} is {log['head']}, but seq {highest[user, epoch]} was seen"


def damage(database: Path) -> Iterator[str]:
    """What of a file can't be read."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        for (line,) in db.execute("PRAGMA integrity_check"):
            if line != "ok":
                yield f"the database is damaged: {line}"
        for place, why, content in db.execute("SELECT place, why, content FROM quarantine"):
            yield f"a row of {place} made no sense: {why}: {content}"


def in_database(database: Path) -> list[Line]:
    """What a file holds, as `kept` has it."""
    logs: dict[str, Line] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        for user, epoch, head in db.execute("SELECT user, epoch, head FROM users"):
            logs[user] = {"user": user, "epoch": epoch, "head": head, "events": [], "unconfirmed": []}
        for user, seq, id in db.execute("SELECT user, seq, id FROM events"):
            logs[user]["events"].append((seq, id))
        for user, seq, id in db.execute(
            "SELECT user, seq, id FROM events JOIN users USING (user) "
            "WHERE priority = 3 AND NOT events.confirmed AND seq > users.confirmed"
        ):
            logs[user]["unconfirmed"].append((seq, id))
    return list(logs.values())


def log(path: Path) -> Iterator[str]:
    """17: nothing went wrong in a process that it did not foresee."""
    for line in path.read_text(errors="replace").splitlines():
        if "Traceback" in line or '"level":"critical"' in line:
            yield f"{path.name}: {line[:300]}"
            return


ALWAYS: Final[tuple[Check, ...]] = (
    *(confirmed, gaps, accounting, conduct, order, names, once, fenced, answers, run, books),
)
AT_THE_END: Final[tuple[Check, ...]] = (lost, complete, unanswered, healed, kept_at_the_end)


def _processed(evidence: Evidence) -> set[tuple[str, str]]:
    """(user, id) of all that somebody has processed, also as part of another event."""
    found = set()
    for seat in evidence.seats:
        for item in seat.got:
            found.add((seat.user, item["id"]))
            found.update((seat.user, id) for id in item.get("deltas", ()))
    return found


def _sightings(evidence: Evidence) -> Iterator[tuple[str, int, str, str | None, str]]:
    """Who was told that which event is where: user, seq, id, epoch if told, and by whom.

    Of an event that a crash may take, its publisher's answer promises nothing; that a client was given it does.
    """
    for event in evidence.published.values():
        for answer in event.answers if event.durable else ():
            yield event.user, answer["seq"], event.id, answer["epoch"], "an answer"
    for seat in evidence.seats:
        for item in seat.got:
            yield seat.user, item["seq"], item["id"], item.get("epoch"), seat.name


def _joined_well(item: Line) -> bool:
    """Deltas stand for one seq each, and the last is the event itself."""
    ids = item["deltas"]
    return len(ids) == item["seq"] - _first(item) + 1 and ids[-1] == item["id"]


def _first(item: Line) -> int:
    first: int = item.get("from", item.get("seq"))
    return first


def _last(item: Line) -> int:
    last: int = item["seq"] if item["do"] == "got" else item["to"]
    return last


def _span(item: Line) -> str:
    first, last = _first(item), _last(item)
    what = f"seq {last}" if first == last else f"seqs {first} to {last}"
    return f"{what} ({item['id']})" if item["do"] == "got" else what


def _told(event: Published) -> str:
    places = sorted({answer["seq"] for answer in event.answers})
    return f"{event.id} (answered {', '.join(str(a['status']) for a in event.answers)}; seq {places})"


if __name__ == "__main__":
    place, *end = sys.argv[1:]
    wrong = check(Path(place), None if end in ([], ["-"]) else Path(end[0]), over=bool(end))
    print("\n".join(wrong))
    sys.exit(bool(wrong))
