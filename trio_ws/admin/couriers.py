"""How the lines of one batch come to the nodes that have their users' logs, in order and once.

What goes to one node has a *courier*: while a group of lines is under way, the next one gathers. All lines of a user go
the same *way*, one behind the other; where the log has moved, or its node has died, those that were not answered turn
round together and are sent anew, behind nobody and before all that came later.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import attrs
import msgspec
import trio

from ..hub import Hub
from ..hub.elsewhere import Cluster, HttpAnswer, HttpCall, NoAnswer
from ..hub.intake import check_name
from .answers import ApiError, internal_error, is_for_another, moved
from .batch import LINES
from .events import refusals
from .forwarding import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, answer_here, unanswered

logger = logging.getLogger(__name__)

MOST_LINES: Final = 500
"""Lines that go together."""

MOST_BYTES: Final = 256 * 1024
"""About how many bytes go together."""

MOST_WAITING: Final = 2 * 1024 * 1024
"""Bytes of lines that wait for one node, before no more of the batch is read."""


@attrs.define(eq=False)
class Sent:
    """A line on its way.

    Attributes:
      user: whom it is for; None where that is all whom the node has.
      id: of its event, by which it can be asked for again; None where it can't be.
      gives_up: when it is answered in any case, in seconds on Trio's clock.
      in_doubt: a node has taken it, and did not answer.
      answer: as JSON; empty where a line for all was not answered.
    """

    user: str | None
    id: str | None
    data: bytes
    gives_up: float
    in_doubt: bool = False
    answer: bytes = b""
    done: trio.Event = attrs.field(factory=trio.Event)

    async def answered(self) -> bytes:
        """The answer, once it is there. Cancelled, it can be waited for again."""
        await self.done.wait()
        return self.answer

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again, and is one event all the same."""
        return self.id is not None or not self.in_doubt

    def gone_wrong(self, error: ApiError) -> ApiError:
        """Why it is not known to be accepted: for `error`, unless a node may have done it."""
        if not self.in_doubt:
            return error
        return unanswered(id=self.id) if self.id else unanswered()

    def settle(self, answer: bytes) -> None:
        """This is its answer."""
        self.answer = answer
        self.done.set()


@attrs.define(eq=False)
class Way:
    """Where the lines of a user go.

    Attributes:
      node: which node that is.
      turning: that is being found out anew.
      lines: those that are not answered, in order.
    """

    user: str
    node: str
    turning: bool = False
    lines: deque[Sent] = attrs.field(factory=deque)


class Couriers:
    """All couriers of one batch.

    Args:
      hub: of the node that the batch has come to.
      nursery: where they run, for as long as there are lines to carry.
      target: the path that lines are posted to.
      in_line: behind a line that is refused for now, all are.
    """

    def __init__(self, hub: Hub, nursery: trio.Nursery, target: str, *, in_line: bool = False) -> None:
        assert hub.cluster is not None
        self.hub = hub
        self.cluster: Cluster = hub.cluster
        self.target = target
        self.refusal = b""
        self._nursery = nursery
        self._in_line = in_line
        self._ways: dict[str, Way] = {}
        self._couriers: dict[str, _Courier] = {}

    async def way_to(self, user: str) -> Way | None:
        """Where lines for `user` go; None where that is here, and nothing for them is under way. A checkpoint where the
        log is not here.

        Raises:
          ApiError: `user` is no name, or the log can't be had.
        """
        way = self._ways.get(user)
        if way is None:
            with refusals(self.hub):
                check_name(user, "user")
                there = await self.hub.place(user)
            if there is None:
                return None
            way = Way(user, there.node)
        return way

    async def send(self, way: Way, id: str | None, data: bytes) -> Sent:
        """Send one more line. A checkpoint where much waits for that node. Cancelled, the line may go all the same."""
        sent = Sent(way.user, id, data, trio.current_time() + 2 * PATIENCE)
        if self.refusal:
            sent.settle(self.refusal)
            return sent
        self._ways[way.user] = way
        way.lines.append(sent)
        if not way.turning:
            await self._to(way.node).put(sent)
        return sent

    async def send_to_node(self, node: str, id: str, data: bytes) -> Sent:
        """As `send`, a line for all whose logs a node has; its answer is empty where that node does not give one."""
        sent = Sent(None, id, data, trio.current_time() + PATIENCE)
        await self._to(node).put(sent)
        return sent

    def settle(self, sent: Sent, answer: bytes) -> None:
        """A line was answered."""
        sent.settle(answer)
        if sent.user is not None:
            way = self._ways[sent.user]
            way.lines.remove(sent)
            if not way.lines:
                del self._ways[sent.user]
        if self._in_line and not self.refusal and _is_for_now(answer):
            self.refusal = answer

    async def turn(self, user: str) -> None:
        """Have the lines of a user go where the log is now. A checkpoint."""
        way = self._ways[user]
        self._give_up(way)
        try:
            with refusals(self.hub):
                there = await self.hub.place(user)
        except ApiError as error:
            for sent in list(way.lines):
                self.settle(sent, encoded(sent.gone_wrong(error)))
        else:
            way.node = self.cluster.node if there is None else there.node
        way.turning = False
        for sent in way.lines:
            self._to(way.node).put_nowait(sent)

    def _give_up(self, way: Way) -> None:
        """Answer lines that can't be sent again, or were for too long; and where all behind one are refused, those."""
        now = trio.current_time()
        for sent in [sent for sent in way.lines if sent.gives_up <= now or not sent.repeatable]:
            self.settle(sent, encoded(sent.gone_wrong(moved())))
        if self.refusal:
            for sent in list(way.lines):
                self.settle(sent, self.refusal)

    def turning(self, user: str) -> None:
        """The lines of a user wait, until it is clear where they go."""
        self._ways[user].turning = True

    def _to(self, node: str) -> _Courier:
        courier = self._couriers.get(node)
        if courier is None:
            courier = self._couriers[node] = _Courier(self, node, self._nursery)
        return courier


class _Courier:
    """What of one batch goes to one node."""

    def __init__(self, couriers: Couriers, node: str, nursery: trio.Nursery) -> None:
        self._couriers = couriers
        self._node = node
        self._nursery = nursery
        self._waiting: deque[Sent] = deque()
        self._bytes = 0
        self._running = False
        self._pause = FIRST_PAUSE
        self._room = trio.lowlevel.ParkingLot()

    async def put(self, sent: Sent) -> None:
        """Have a line carried. A checkpoint while too much waits."""
        self.put_nowait(sent)
        while self._bytes > MOST_WAITING:
            await self._room.park()

    def put_nowait(self, sent: Sent) -> None:
        """As `put`, however much waits."""
        self._waiting.append(sent)
        self._bytes += len(sent.data)
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Carry what waits, until nothing does."""
        while self._waiting:
            group = self._take()
            answers = await self._ask(group)
            turned: dict[str, None] = {}
            for sent, answer in zip(group, answers, strict=True):
                if answer is not None:
                    self._couriers.settle(sent, answer)
                elif sent.user is not None:
                    turned[sent.user] = None
            if self._couriers.refusal:
                self._refuse()
            if None in answers:
                await trio.sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                self._ask_again([sent for sent in group if sent.user is None and not sent.done.is_set()])
                await self._turn(turned)
            else:
                self._pause = FIRST_PAUSE
        self._running = False

    def _take(self) -> list[Sent]:
        """The next group."""
        group: list[Sent] = []
        size = 0
        while self._waiting and len(group) < MOST_LINES and size < MOST_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1].data)
        self._bytes -= size
        self._room.unpark_all()
        return group

    async def _ask(self, group: list[Sent]) -> list[bytes | None]:
        """The answers to a group; None for lines that go elsewhere, or again."""
        call = HttpCall(
            method="POST",
            target=self._couriers.target,
            headers=[("content-type", LINES)],
            body=b"\n".join([sent.data for sent in group]),
            timeout=PATIENCE,
        )
        answer = None
        with trio.move_on_after(PATIENCE):
            try:
                answer = await self._make(call)
            except NoAnswer:
                pass
        if answer is None:
            for sent in group:
                sent.in_doubt = True
            return [None] * len(group)
        if answer.status != 200:
            return [None if self._is_for_another(answer.body) else _as_line(answer)] * len(group)
        lines = answer.body.split(b"\n")[:-1]
        if len(lines) != len(group):
            logger.error("a node has answered %d of %d lines", len(lines), len(group))
            return [encoded(internal_error())] * len(group)
        return [None if self._is_for_another(line) else line for line in lines]

    def _is_for_another(self, answer: bytes) -> bool:
        return is_for_another(answer) and not self._couriers.hub.draining

    async def _make(self, call: HttpCall) -> HttpAnswer:
        if self._node == self._couriers.cluster.node:
            return await answer_here(self._couriers.hub, call)
        return await self._couriers.cluster.ask(self._node, call)

    def _ask_again(self, group: list[Sent]) -> None:
        """Have lines for all whom the node has answered by it, as long as it lives."""
        lives = any(record.node == self._node for record in self._couriers.cluster.nodes())
        for sent in reversed(group):
            if lives and trio.current_time() < sent.gives_up:
                self._waiting.appendleft(sent)
                self._bytes += len(sent.data)
            else:
                self._couriers.settle(sent, b"")

    async def _turn(self, users: dict[str, None]) -> None:
        """Let all lines of these users turn round."""
        self._drop(users)
        for user in users:
            self._couriers.cluster.moved(user, self._node)
            self._couriers.turning(user)
        for user in users:
            await self._couriers.turn(user)

    def _drop(self, users: dict[str, None]) -> None:
        """Lines of these users don't wait here any more."""
        self._waiting = deque(sent for sent in self._waiting if sent.user not in users)
        self._bytes = sum(len(sent.data) for sent in self._waiting)
        self._room.unpark_all()

    def _refuse(self) -> None:
        """Answer all that waits as the line before it was."""
        waiting, self._waiting, self._bytes = self._waiting, deque(), 0
        for sent in waiting:
            self._couriers.settle(sent, self._couriers.refusal)
        self._room.unpark_all()


def encoded(error: ApiError) -> bytes:
    """An error as the answer to a line."""
    return msgspec.json.encode(error.body(status=error.status))


def _as_line(answer: HttpAnswer) -> bytes:
    """The refusal of a call as the answer to each of its lines."""
    try:
        told = msgspec.json.decode(answer.body)
        told["error"]["status"] = answer.status
    except (msgspec.DecodeError, KeyError, TypeError):
        return encoded(internal_error())
    return msgspec.json.encode(told)


def _is_for_now(answer: bytes) -> bool:
    """Whether a line was refused, and may be accepted when it comes again."""
    return answer.startswith(b'{"error"') and "retry_after" in msgspec.json.decode(answer)["error"]
