"""What the journals of a run say, put in order: which event was promised as what, and who was given what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import attrs

from .journal import read

Line: TypeAlias = dict[str, Any]


@attrs.define
class Published:
    """One event, as its publisher knows it.

    Attributes:
      answers: what it was told, in order.
      floor: the highest seq of its user that its publisher had been promised before it first tried, by epoch.
      promised: what it is told may not be lost in a crash; of other events, an answer says nothing of what comes.
    """

    id: str
    user: str
    critical: bool
    payload: str
    how: str
    floor: dict[str, int]
    promised: bool
    answers: list[Line] = attrs.Factory(list)

    @property
    def durable(self) -> bool:
        """Whether it can't be lost in a crash any more."""
        return self.promised and bool(self.answers)


@attrs.define
class Life:
    """One client of a tab: what it was given, in order.

    Attributes:
      seq: the seq that it was told to go on from; None for a new session.
      items: the lines `got` and `gap`.
      left: its last line, if it had the time.
    """

    seq: int | None
    items: list[Line] = attrs.Factory(list)
    left: Line | None = None


@attrs.define
class Seat:
    """One tab, over all its lives.

    Attributes:
      whole: it was there before the first event.
      connected: when it was welcomed, in seconds since the Unix epoch. What it got has `since`, its last welcome, and
        `epoch`, where that is known.
      epoch: the last that it was told of.
    """

    name: str
    user: str
    whole: bool
    lives: list[Life] = attrs.Factory(list)
    connected: list[float] = attrs.Factory(list)
    epoch: str | None = None

    @property
    def got(self) -> Iterator[Line]:
        """All the events that it was given."""
        return (item for life in self.lives for item in life.items if item["do"] == "got")

    @property
    def gaps(self) -> Iterator[Line]:
        """All the gaps, but those that say that a log has begun anew."""
        return (
            item for life in self.lives for item in life.items if item["do"] == "gap" and not item.get("anew")
        )


@attrs.define
class Evidence:
    """All of it.

    Attributes:
      published: by id.
      refused: answers that say that an event was not accepted.
      seats: the tabs and the visitors.
      run: the lines of the run itself.
      may_lose: Redis may lose what it has answered, where clients are told that the epoch is over.
      may_renew: logs may begin anew.
    """

    published: dict[str, Published] = attrs.Factory(dict)
    refused: list[Line] = attrs.Factory(list)
    seats: list[Seat] = attrs.Factory(list)
    run: list[Line] = attrs.Factory(list)
    may_lose: bool = False
    may_renew: bool = False

    @property
    def epochs(self) -> dict[str, str]:
        """What each user's is at the end, as it is kept."""
        return {line["user"]: line["epoch"] for line in self.run if line["do"] == "kept"}

    @property
    def users(self) -> set[str]:
        """Everybody who was published to."""
        return {event.user for event in self.published.values()}


def gather(directory: Path) -> Evidence:
    """Read the journals of a run. All as of one moment, before the first is read: the run may go on."""
    now = time.monotonic()

    def lines(path: Path) -> list[Line]:
        return [line for line in read(path) if line.get("at", 0) <= now]

    found = Evidence(run=lines(directory / "run.jsonl"))
    found.may_lose = any(line.get("may_lose") for line in found.run)
    found.may_renew = any(line.get("may_renew") for line in found.run)
    all_durable = any(line.get("durability") == "all" for line in found.run)
    for path in sorted(directory.glob("publisher-*.jsonl")):
        _read_publisher(lines(path), found, all_durable)
    for path in sorted([*directory.glob("tab-*.jsonl"), *directory.glob("visit-*.jsonl")]):
        found.seats.append(_seat(path.stem, lines(path)))
    return found


def _read_publisher(lines: list[Line], found: Evidence, all_durable: bool) -> None:
    told: dict[tuple[str, str], dict[str, int]] = {}
    for line in lines:
        match line["do"]:
            case "try":
                floor = dict(told.get((line["by"], line["user"]), {}))
                kept = {name: line[name] for name in ("id", "user", "critical", "payload", "how")}
                promised = all_durable or line["critical"]
                found.published[line["id"]] = Published(**kept, floor=floor, promised=promised)
            case "answer":
                event = found.published[line["id"]]
                event.answers.append(line)
                if event.promised:
                    floor = told.setdefault((line["by"], line["user"]), {})
                    floor[line["epoch"]] = max(floor.get(line["epoch"], 0), line["seq"])
            case "refused":
                found.refused.append(line)


def _seat(name: str, lines: list[Line]) -> Seat:
    seat = Seat(name, "", name.startswith("tab-"))
    for line in lines:
        match line["do"]:
            case "start":
                seat.user = line["user"]
                seat.lives.append(Life(line["seq"]))
            case "connected":
                seat.connected.append(line["wall"])
            case "got" | "gap":
                seat.epoch = None if line.get("anew") else line.setdefault("epoch", seat.epoch)
                line["since"] = seat.connected[-1] if seat.connected else 0.0
                seat.lives[-1].items.append(line)
            case "left":
                seat.lives[-1].left = line
                seat.epoch = line.get("epoch", seat.epoch)
    _date_gaps(seat)
    return seat


def _date_gaps(seat: Seat) -> None:
    """A gap at the start of an epoch is of the one that the next event is of, which says so."""
    epoch = seat.epoch
    for life in reversed(seat.lives):
        for item in reversed(life.items):
            epoch = None if item.get("anew") else item["epoch"] or epoch
            item["epoch"] = epoch
