"""A process that publishes over HTTP as backends do: each event under a key of its own, until it is answered.

    python -m ordeal.publishers DIR URL NAME SEED RATE USER…

Each of its tasks publishes one thing after the other. The end of standard input says that what is under way is to be
finished, and no more begun.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from .journal import Journal, digest

TASKS: Final = 3
LIFECYCLE: Final = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")
SIZES: Final = (0, 0, 20, 200, 2000)
PAUSE: Final = 0.1
"""Seconds at most between two tries."""
LAST_WORD: Final = 80.0
"""Seconds in which what is under way must have been answered, once nothing more is begun."""
WAIT: Final = 2
"""Seconds that a publisher waits for a confirmation."""


def draw(rng: random.Random, user: str, id: str) -> dict[str, Any]:
    """An event of any kind, more than half of them critical; what is critical carries its own id in its payload."""
    kind = rng.choices(("lifecycle", "critical", "delta", "keyed", "note", "tracked"), (50, 8, 20, 8, 8, 6))[
        0
    ]
    payload: dict[str, Any] = {"id": id, "pad": "x" * rng.choice(SIZES)}
    event: dict[str, Any] = {"user": user, "id": id, "type": kind, "payload": payload}
    if kind == "lifecycle":
        event["type"] = rng.choice(LIFECYCLE)
    elif kind == "critical":
        event["priority"] = "critical"
    elif kind == "delta":
        event |= {"merge": "append", "payload": {"text": f"{id};"}}
    elif kind == "keyed":
        event["key"] = f"k{rng.randrange(3)}"
    elif kind == "tracked":
        event["confirm"] = True
    elif rng.random() < 0.5:
        event |= {"ttl": rng.uniform(0.1, 3)}
    else:
        event |= {"priority": rng.choice(("low", "normal", "high"))}
    return event


def is_critical(event: dict[str, Any]) -> bool:
    """Whether it must never be lost."""
    return event["type"] in LIFECYCLE or event.get("priority") == "critical"


class Publisher:
    """One task's work."""

    def __init__(
        self, http: httpx.AsyncClient, journal: Journal, name: str, users: list[str], seed: str
    ) -> None:
        self._http = http
        self._journal = journal
        self._name = name
        self._users = users
        self._rng = random.Random(f"{seed}/{name}")
        self._count = 0
        self.stopping = False

    async def run(self, rate: float) -> None:
        """Publish so many events a second, as far as they are taken, until it is to stop."""
        rng = self._rng
        while not self.stopping:
            how = rng.choices(("one", "wait", "batch"), (70, 8, 22))[0]
            events = [self._draw() for _ in range(rng.randint(2, 12) if how == "batch" else 1)]
            if how == "wait" and not is_critical(events[0]):
                how = "one"
            for event in events:
                self._tried(event, how)
            if how == "batch":
                await self._all_of(events)
            else:
                await self._until_answered(events[0], wait=how == "wait")
            if rng.random() < 0.05 and is_critical(events[0]):
                self._journal.write("repeat", user=events[0]["user"], id=events[0]["id"])
                await self._until_answered(events[0], wait=False)
            await trio.sleep(rng.expovariate(rate / len(events)))

    def _draw(self) -> dict[str, Any]:
        self._count += 1
        return draw(self._rng, self._rng.choice(self._users), f"{self._name}-{self._count}")

    def _tried(self, event: dict[str, Any], how: str) -> None:
        self._journal.write(
            "try",
            by=self._name,
            user=event["user"],
            id=event["id"],
            type=event["type"],
            critical=is_critical(event),
            payload=digest(event["payload"]),
            how=how,
        )

    async def _until_answered(self, event: dict[str, Any], *, wait: bool) -> None:
        body = {name: value for name, value in event.items() if name != "user"}
        query = f"?wait=confirmed&timeout={WAIT}" if wait else ""
        while True:
            try:
                answer = await self._http.post(f"/v1/users/{event['user']}/events{query}", json=body)
                found = answer.json()
            except (httpx.TransportError, ValueError) as error:
                self._journal.write("unanswered", id=event["id"], why=type(error).__name__)
            else:
                if self._answered(event, answer.status_code, found):
                    return
            await self._pause()

    async def _all_of(self, events: list[dict[str, Any]]) -> None:
        """Publish a batch; what was not answered is sent again, in its order."""
        left = events
        while left:
            body = "".join(json.dumps(event) + "\n" for event in left)
            again: list[dict[str, Any]] = []
            unanswered = list(left)
            try:
                async with self._http.stream("POST", "/v1/events", content=body) as answer:
                    if answer.status_code != 200:
                        self._journal.write("refused", id=left[0]["id"], status=answer.status_code)
                    else:
                        async for line in answer.aiter_lines():
                            event = unanswered.pop(0)
                            found = json.loads(line)
                            if not self._answered(event, found.get("error", {}).get("status", 202), found):
                                again.append(event)
            except (httpx.TransportError, ValueError) as error:
                self._journal.write("unanswered", id=left[0]["id"], why=type(error).__name__)
            left = again + unanswered
            if left:
                await self._pause()

    def _answered(self, event: dict[str, Any], status: int, found: dict[str, Any]) -> bool:
        """Write an answer down; whether it says that the event was accepted."""
        told = found.get("error", found)
        if status not in (200, 202) and not (status == 504 and "seq" in told):
            self._journal.write("refused", id=event["id"], status=status, code=told.get("code"))
            return status not in (429, 500, 503, 504)  # what is refused for good is the checker's to judge
        answer = {name: told.get(name) for name in ("seq", "epoch", "state", "duplicate")}
        self._journal.write(
            "answer", by=self._name, user=event["user"], id=event["id"], status=status, **answer
        )
        return True

    async def _pause(self) -> None:
        await trio.sleep(self._rng.uniform(0.01, PAUSE))


async def main(directory: Path, url: str, name: str, seed: str, rate: float, users: Iterable[str]) -> None:
    """Publish until standard input ends."""
    journal = Journal(directory / f"publisher-{name}.jsonl")
    limits = httpx.Limits(max_connections=2 * TASKS)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=4, limits=limits) as http:
        publishers = [Publisher(http, journal, f"{name}.{n}", list(users), seed) for n in range(TASKS)]
        async with trio.open_nursery() as nursery:
            for publisher in publishers:
                nursery.start_soon(publisher.run, rate / TASKS)
            async with trio.lowlevel.FdStream(0) as stdin:
                while await stdin.receive_some():
                    pass
            for publisher in publishers:
                publisher.stopping = True
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORD


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), *sys.argv[2:5], float(sys.argv[5]), sys.argv[6:])
