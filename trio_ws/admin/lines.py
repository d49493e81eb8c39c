"""The lines of a batch on a node of a cluster: each is published where the log of its user is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import attrs
import msgspec
import trio
from starlette.requests import Request
from starlette.types import ASGIApp

from ..hub import Hub
from ..hub.elsewhere import Elsewhere, HttpCall
from .answers import ApiError, moved
from .batch import LINES, BatchAnswer, Takes, has_lines, publish_batch
from .couriers import Couriers, Way
from .events import (
    EventLine,
    Events,
    Line,
    Turn,
    as_line,
    is_of_one,
    priority_of,
    read_line,
    refusals,
    several,
)
from .forwarding import PATIENCE, Forwarded, as_response, ask, named_event, new_name, target_of, unanswered
from .requests import HOP, ROOM_FOR_NAMES

PAGE: Final = 1000
"""Names that are read from the store at a time."""

_encode = msgspec.json.encode
_decode = msgspec.json.decode


async def publish(hub: Hub, events: Events, request: Request) -> BatchAnswer:
    """The call: ``POST /v1/events``; see `publish_batch`."""

    def begin(nursery: trio.Nursery) -> Takes:
        if hub.cluster is None:
            return events
        return LinesOfOthers(hub, events) if HOP in request.scope else LinesOfCluster(hub, events, nursery)

    return await publish_batch(begin, request)


class LinesOfCluster:
    """Takes the lines of a batch that has come to this node."""

    def __init__(self, hub: Hub, events: Events, nursery: trio.Nursery) -> None:
        self.max_body = events.max_body
        self._hub = hub
        self._events = events
        self._couriers = Couriers(hub, nursery, "/v1/events")

    async def publish_line(self, line: bytes) -> Line:
        """See `Takes`."""
        return await as_line(self._publish_line(line))

    async def durable(self, line: Line) -> dict[str, Any]:
        """See `Takes`."""
        return await self._events.durable(line)

    async def _publish_line(self, line: bytes) -> Line:
        body = read_line(line)
        if body.user is not None:
            return await self._publish_to(body.user, body)
        if body.users == "*":
            return await self._publish_to_all(body)
        turn = Turn()
        each = []
        for user in several(body):
            each.append((user, await as_line(self._publish_to(user, body))))
            await turn.spend(len(body.payload))
        return Line(later=partial(self._results, body.id, each))

    async def _publish_to(self, user: str, body: EventLine) -> Line:
        """Publish to a user who is here, or send the line to the node that has the log."""
        way = await self._couriers.way_to(user)
        if way is None:
            try:
                return await self._events.publish_to(user, body)
            except ApiError as error:
                if error.code != "moved":
                    raise
            way = Way(user, self._couriers.cluster.node)  # the courier finds out where it is now
        id = body.id
        with refusals(self._hub):
            if id is None and self._hub.commits(body.type, priority_of(body.priority)):
                id = new_name()
        data = _encode(msgspec.structs.replace(body, user=user, users=None, id=id))
        return Line(later=(await self._couriers.send(way, id, data)).answered)

    async def _results(self, id: str | None, each: Sequence[tuple[str, Line]]) -> bytes:
        """The answer to a line for several users, once there is one for each."""
        results = []
        for user, line in each:
            told = await self._told(line)
            if "error" in told and not is_of_one(_error(told)):
                return _encode(told)
            results.append({"user": user, **told})
        return _encode({"id": id, "results": results})

    async def _told(self, line: Line) -> dict[str, Any]:
        told: dict[str, Any] = await self.durable(line) if line.later is None else _decode(await line.later())
        return told

    # -- a line for everybody

    async def _publish_to_all(self, body: EventLine) -> Line:
        """Each node has those whose logs it has, and this one those whose logs are in the store only.

        Raises:
          ApiError: 503, where a node that lives did not answer.
        """
        body.id = body.id or new_name()
        cluster = self._hub.cluster
        assert cluster is not None
        others = [record.node for record in cluster.nodes() if record.node != cluster.node]
        asked = [(node, await self._couriers.send_to_node(node, body.id, _encode(body))) for node in others]
        here = self._hub.users()
        counts = Counts()
        counts.add(await self.durable(await self._events.publish_to_all(here, body)))
        reached = set(here)
        missing = set()
        for node, sent in asked:
            if answer := await sent.answered():
                told = _decode(answer)
                counts.add(told)
                counts.forget(len(reached.intersection(told["names"])))  # who has moved meanwhile
                reached.update(told["names"])
            else:
                missing.add(node)
        with refusals(self._hub):
            each = await self._publish_to_rest(body, reached)
        if missing.intersection(record.node for record in cluster.nodes()):
            raise unanswered(id=body.id)
        return Line(later=partial(self._counted, body.id, counts, each))

    async def _publish_to_rest(self, body: EventLine, reached: set[str]) -> list[Line]:
        """Publish to all of whom the store knows, but those who were reached."""
        assert self._hub.cluster is not None
        each, turn, after = [], Turn(), ""
        while names := await self._hub.cluster.store.users("", PAGE, after):
            for user in names:
                if user not in reached:
                    each.append(await as_line(self._publish_to(user, body)))
                    await turn.spend(len(body.payload))
            after = names[-1]
        return each

    async def _counted(self, id: str, counts: Counts, each: Iterable[Line]) -> bytes:
        total = attrs.evolve(counts)
        for line in each:
            told = await self._told(line)
            total.users += 1
            total.refused += "error" in told
            total.accepted += "error" not in told
        return _encode({"id": id, **attrs.asdict(total)})


@attrs.define
class Counts:
    """How many users there are, how many have the event, and how many can't have it."""

    users: int = 0
    accepted: int = 0
    refused: int = 0

    def add(self, told: dict[str, Any]) -> None:
        """Those of a node.

        Raises:
          ApiError: it has refused the line.
        """
        if "error" in told:
            raise _error(told)
        self.users += told["users"]
        self.accepted += told["accepted"]
        self.refused += told["refused"]

    def forget(self, n: int) -> None:
        """So many of those who have it were counted twice."""
        self.users -= n
        self.accepted -= n


class LinesOfOthers:
    """Takes the lines that another node sends: those for users who are here. What is behind a line of a user who has
    moved is refused like it, so that the order of the lines holds wherever they go."""

    def __init__(self, hub: Hub, events: Events) -> None:
        self.max_body = events.max_body + ROOM_FOR_NAMES
        self._hub = hub
        self._events = events
        self._moved: set[str] = set()

    async def publish_line(self, line: bytes) -> Line:
        """See `Takes`."""
        return await as_line(self._publish_line(line))

    async def durable(self, line: Line) -> dict[str, Any]:
        """See `Takes`."""
        return await self._events.durable(line)

    async def _publish_line(self, line: bytes) -> Line:
        body = read_line(line)
        if body.user is None:
            users = self._hub.users()
            told = await self._events.publish_to_all(users, body)
            return attrs.evolve(told, body={**told.body, "names": users})
        if body.user in self._moved:
            raise moved()
        try:
            return await self._events.publish_to(body.user, body)
        except ApiError as error:
            if error.code == "moved":
                self._moved.add(body.user)
            raise


class LinesOfRun:
    """Takes the lines of a run whose user is elsewhere; behind one that is refused for now, all are."""

    def __init__(self, hub: Hub, way: Way, target: str, max_body: int, nursery: trio.Nursery) -> None:
        self.max_body = max_body
        self._hub = hub
        self._way = way
        self._couriers = Couriers(hub, nursery, target, in_line=True)

    async def publish_line(self, line: bytes) -> Line:
        """See `Takes`."""
        return await as_line(self._publish_line(line))

    async def durable(self, line: Line) -> dict[str, Any]:
        """See `Takes`."""
        return line.body

    async def _publish_line(self, line: bytes) -> Line:
        data, repeatable = named_event(self._hub, line.strip())
        return Line(later=(await self._couriers.send(self._way, "" if repeatable else None, data)).answered)


async def run_lines(hub: Hub, max_body: int, request: Request, user: str, there: Elsewhere) -> ASGIApp | None:
    """The answer to lines of a run whose user is elsewhere; None where a call is no such thing. A checkpoint.

    Raises:
      ApiError: nobody answers there.
    """
    path = request.scope["path"]
    if (
        request.method != "POST"
        or "/runs/" not in path
        or not path.endswith("/events")
        or not has_lines(request)
    ):
        return None
    # Without lines first: what is wrong with the call as a whole is its answer.
    headers = [("content-type", LINES)]
    call = HttpCall(method="POST", target=target_of(request), headers=headers, timeout=PATIENCE)
    answer = await ask(hub, user, there, Forwarded(call, repeatable=True))
    if answer.status != 200:
        return as_response(answer)
    way = Way(user, there.node)
    return await publish_batch(lambda nursery: LinesOfRun(hub, way, path, max_body, nursery), request)


def _error(told: dict[str, Any]) -> ApiError:
    """An error as another node has told it."""
    error = dict(told["error"])
    return ApiError(error.pop("status"), error.pop("code"), error.pop("message"), **error)
