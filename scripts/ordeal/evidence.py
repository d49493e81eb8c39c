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
      floor: the highest seq of its user that its publisher had been promised before it first tried.
      promised: what it is told may not be lost in a crash; of other events, an answer says nothing of what comes.
    """

    id: str
    user: str
    critical: bool
    payload: str
    how: str
    floor: int
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
      connected: when it was welcomed, in seconds since the Unix epoch. What it got has `since`, its last welcome.
    """

    name: str
    user: str
    whole: bool
    lives: list[Life] = attrs.Factory(list)
    connected: list[float] = attrs.Factory(list)

    @property
    def got(self) -> Iterator[Line]:
        """All the events that it was given."""
        return (item for life in self.lives for item in life.items if item["do"] == "got")

    @property
    def gaps(self) -> Iterator[Line]:
        """All the gaps."""
        return (item for life in self.lives for item in life.items if item["do"] == "gap")


@attrs.define
class Evidence:
    """All of it.

    Attributes:
      published: by id.
      refused: answers that say that an event was not accepted.
      seats: the tabs and the visitors.
      run: the lines of the run itself.
    """

    published: dict[str, Published] = attrs.Factory(dict)
    refused: list[Line] = attrs.Factory(list)
    seats: list[Seat] = attrs.Factory(list)
    run: list[Line] = attrs.Factory(list)

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
    all_durable = any(line.get("durability") == "all" for line in found.run)
    for path in sorted(directory.glob("publisher-*.jsonl")):
        _read_publisher(lines(path), found, all_durable)
    for path in sorted([*directory.glob("tab-*.jsonl"), *directory.glob("visit-*.jsonl")]):
        found.seats.append(_seat(path.stem, lines(path)))
    return found


def _read_publisher(lines: list[Line], found: Evidence, all_durable: bool) -> None:
    told: dict[tuple[str, str], int] = {}
    for line in lines:
        match line["do"]:
            case "try":
                floor = told.get((line["by"], line["user"]), 0)
                kept = {name: line[name] for name in ("id", "user", "critical", "payload", "how")}
                promised = all_durable or line["critical"]
                found.published[line["id"]] = Published(**kept, floor=floor, promised=promised)
            case "answer":
                event = found.published[line["id"]]
                event.answers.append(line)
                if event.promised:
                    at = (line["by"], line["user"])
                    told[at] = max(told.get(at, 0), line["seq"])
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
                line["since"] = seat.connected[-1] if seat.connected else 0.0
                seat.lives[-1].items.append(line)
            case "left":
                seat.lives[-1].left = line
    return seat
