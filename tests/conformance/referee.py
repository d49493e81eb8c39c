"""The judge: plays a vector's server against a client, step by step, and says where the client goes wrong.

It knows no sockets and no clock. A *world* has the client in it and gives what that does, in order; README.md says what
the steps mean. Beside the steps, each frame of the client is held against what the protocol forbids at any time.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

PATIENCE: Final = 30.0
"""Seconds that a step waits for, where it does not say."""
ACCURACY: Final = 0.002
"""Seconds."""
EARLY: Final = 0.25
"""The share of a time, and the seconds, by which it may be too short where time is real: the client began to count
before we saw it."""
ASIDE: Final = {"ping", "pong"}
"""What a client may say at any time, whatever a step waits for."""

KEYS: Final = {
    "hello": (),
    "ack": ("seq",),
    "nack": ("seq",),
    "message": ("id", "type", "payload"),
    "auth": ("token",),
    "ping": (),
    "pong": (),
    "bye": (),
}
"""The frames of a client, and what each must have."""

Json = Any


class Failure(Exception):
    """The client did what it must not, or did not what it must."""


@attrs.frozen
class Seen:
    """Something that the client did.

    Attributes:
      at: when, in seconds.
      what: ``connect`` (value: the subprotocols that it offers), ``message`` (text, or bytes), ``gone`` (the
        connection ended from its side; the code, if there was one), ``report`` (an object that it printed).
      connection: which one it was on, counted from 1; 0 for a report.
    """

    at: float
    what: str
    value: Any
    connection: int = 0


class World(Protocol):
    """Where a client runs: over sockets, in memory on a mock clock, on fake timers.

    Attributes:
      slack: seconds by which things may come later than they should.
    """

    slack: float

    def now(self) -> float: ...
    def calendar(self) -> float:
        """Seconds since the Unix epoch, as the client takes them to be."""

    async def next(self, deadline: float) -> Seen | None:
        """What the client does next, or None at `deadline`."""

    async def answer(self, how: str) -> None:
        """Answers the newest connection's upgrade: ``accept``, ``refuse``, or ``hang``: never."""

    async def send(self, message: str | bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    async def cut(self) -> None: ...
    async def command(self, command: Json) -> None: ...


def complete(frame: Json) -> Json:
    """A server's frame with what a vector leaves out; README.md lists it."""
    defaults: dict[str, Json] = {}
    match frame.get("t") if isinstance(frame, dict) else None:
        case "welcome":
            defaults = {
                "session": "s1",
                "epoch": "e1",
                "seq": 0,
                "head": frame.get("seq", 0),
                "resumed": False,
            }
            defaults["heartbeat"] = {"active": 1000, "idle": 1000, "grace": 1000}
            defaults["ack"] = {"events": 32, "delay": 0.05}
        case "event":
            seq = frame.get("seq")
            defaults = {"id": f"id-{seq}", "type": "note", "payload": {"n": seq}, "ts": 1700000000.5}
        case "gap":
            count = frame["to"] - frame["from"] + 1
            defaults = {"reason": "evicted", "lost": {"note": count}, "critical": 0}
        case "error":
            defaults = {"reason": "because", "fatal": True}
    return {**defaults, **frame} if defaults else frame


class Referee:
    """One vector, played once: `play`."""

    def __init__(self, vector: Json, world: World) -> None:
        self._vector = vector
        self._world = world
        self._mark = 0.0  # when the step before ended
        self._bound: dict[str, Json] = {}
        self._trace: list[str] = []
        # What the client did, and no step has asked for yet.
        self._connects: deque[Seen] = deque()
        self._frames: deque[tuple[float, Json]] = deque()
        self._acks: deque[tuple[float, Json]] = deque()  # they may stand anywhere among the others
        self._gone: Seen | None = None
        self._story: deque[Json] = deque()
        self._states: deque[Json] = deque()
        self._answers: deque[Json] = deque()
        # The connection, and the session on it.
        self._connection = 0
        self._greeted = False
        self._welcomed = False
        self._accepted = False
        self._acked = 0
        self._top = 0  # the highest seq that it may ack
        self._unprocessed: dict[int, str] = {}  # seq and id of what the client was sent
        self._processed: set[str] = set()
        self._doubtful: list[int] = []  # acks that come before the report

    async def play(self) -> None:
        """Plays it to the end.

        Raises:
          Failure: with the step and all that went before.
        """
        self._mark = self._world.now()
        number, step = 0, {}
        try:
            for number, step in enumerate(self._vector["steps"], 1):
                self._note(f"step {number}: {json.dumps(step)}")
                await self._play(step)
            await self._finish()
        except Failure as failure:
            trace = "\n  ".join(self._trace[-40:])
            raise Failure(f"{self._vector['name']}: step {number}: {failure}\n  {trace}") from None

    async def _play(self, step: Json) -> None:
        verb = next(iter(step))
        at = await getattr(self, f"_step_{verb}")(step)
        self._mark = self._world.now() if at is None else at

    async def _finish(self) -> None:
        if self._doubtful:
            await self._until(lambda: not self._doubtful, "a report that what it acked was processed", 5.0)
        rest = [frame for _, frame in self._frames if frame["t"] not in ASIDE]
        if rest:
            raise Failure(f"the client also said {rest}")
        if self._story:
            raise Failure(f"the client also handled {list(self._story)}")

    # --- What the server does ---

    async def _step_connect(self, step: Json) -> float:
        seen = await self._until(
            lambda: self._connects and self._connects.popleft(), "a connection", self._latest(step)
        )
        self._check_time(step, seen.at)
        if "trio-ws.v1" not in seen.value:
            raise Failure(f"it offered the subprotocols {seen.value}")
        self._connection = seen.connection
        self._frames.clear()
        self._acks.clear()
        self._gone = None
        self._greeted = self._welcomed = False
        self._acked = 0
        self._accepted = step["connect"] == "accept"
        await self._world.answer(step["connect"])
        return float(seen.at)

    async def _step_send(self, step: Json) -> None:
        given = step["send"]
        frames = [self._fill(complete(frame)) for frame in (given if isinstance(given, list) else [given])]
        for frame in frames:
            self._sent(frame)
        await self._say(json.dumps(frames if isinstance(given, list) else frames[0], ensure_ascii=False))

    async def _step_raw(self, step: Json) -> None:
        await self._say(step["raw"])

    async def _step_binary(self, step: Json) -> None:
        await self._say(bytes.fromhex(step["binary"]))

    async def _say(self, message: str | bytes) -> None:
        self._note(f"server: {message!r:.300}")
        await self._world.send(message)

    async def _step_close(self, step: Json) -> None:
        self._accepted = False
        await self._world.close(step["close"], step.get("reason", "because"))

    async def _step_cut(self, step: Json) -> None:
        self._accepted = False
        await self._world.cut()

    async def _step_do(self, step: Json) -> None:
        await self._world.command(step["do"])

    async def _step_wait(self, step: Json) -> None:
        await self._quiet(step["wait"], lambda: None)

    def _sent(self, frame: Json) -> None:
        """Keeps what the client may ack after this frame."""
        match frame:
            case {"t": "welcome", "seq": int(seq)}:
                self._welcomed = True
                if not frame["resumed"]:
                    self._unprocessed.clear()
                    self._top = 0
                self._top = max(self._top, seq) if frame["session"] == self._bound.get(" session") else seq
                self._bound[" session"] = frame["session"]
            case {"t": "event", "seq": int(seq), "id": id}:
                self._top = max(self._top, seq)
                if id not in self._processed:
                    self._unprocessed[seq] = id
            case {"t": "gap", "to": int(seq)}:
                self._top = max(self._top, seq)

    # --- What the client must do ---

    async def _step_receive(self, step: Json) -> float:
        pattern = self._fill(step["receive"])
        at, frame = await self._until(lambda: self._take(pattern), f"the frame {pattern}", self._latest(step))
        self._check_time(step, at)
        self._compare(pattern, frame)
        there = [key for key in step.get("absent", ()) if frame.get(key) is not None]
        if there:
            raise Failure(f"{frame} has {there}")
        return float(at)

    def _take(self, pattern: Json) -> tuple[float, Json] | None:
        """The next frame that `pattern` can mean; what stands before it must be such as a client may always say."""
        kind = pattern["t"]
        if kind == "ack":
            while self._acks:
                at, frame = self._acks.popleft()
                if frame["seq"] >= pattern["seq"]:  # acks are cumulative: more of them are fine
                    return at, frame
            return None
        while self._frames:
            at, frame = self._frames.popleft()
            if frame["t"] == kind:
                return at, frame
            if frame["t"] not in ASIDE:
                raise Failure(f"the client said {frame}")
        return None

    async def _step_handled(self, step: Json) -> None:
        wanted = step["handled"]
        await self._until(lambda: len(self._story) >= len(wanted), f"{wanted} handled", self._latest(step))
        for item in wanted:
            got = self._story.popleft()
            pattern = {"event": {"seq": item}} if isinstance(item, int) else item
            self._compare(pattern if "event" in pattern or "gap" in pattern else {"event": item}, got)

    async def _step_state(self, step: Json) -> float:
        def reached() -> Seen | None:
            while self._states:
                seen: Seen = self._states.popleft()
                if seen.value["state"] == step["state"]:
                    return seen
                if seen.value["state"] == "ended":
                    raise Failure(f"the client has ended: {seen.value}")
            return None

        seen = await self._until(reached, f"the state {step['state']}", self._latest(step))
        self._check_time(step, seen.at)
        if "code" in step and seen.value.get("code") != step["code"]:
            raise Failure(f"it ended with {seen.value}")
        return float(seen.at)

    async def _step_answer(self, step: Json) -> None:
        got = await self._until(
            lambda: self._answers and self._answers.popleft(), "an answer told", self._latest(step)
        )
        self._compare({"answer": step["answer"], "error": step.get("error")}, got)

    async def _step_gone(self, step: Json) -> float:
        seen = await self._until(
            lambda: self._gone, "the end of the connection, by the client", self._latest(step)
        )
        self._check_time(step, seen.at)
        if step["gone"] not in (True, seen.value):
            raise Failure(f"it closed with {seen.value}")
        return float(seen.at)

    async def _step_quiet(self, step: Json) -> None:
        kinds = step["of"]

        def heard() -> str | None:
            for _, frame in (*self._frames, *self._acks):
                if frame["t"] in kinds:
                    return f"the client said {frame}"
            if "connect" in kinds and self._connects:
                return "the client connected"
            if "gone" in kinds and self._gone:
                return "the client hung up"
            if "handled" in kinds and self._story:
                return f"the client handled {self._story[0]}"
            return None

        await self._quiet(step["quiet"], heard)

    # --- Waiting ---

    def _latest(self, step: Json) -> float:
        """How many seconds the step waits."""
        return step["after"][1] if "after" in step else PATIENCE

    def _check_time(self, step: Json, at: float) -> None:
        if "after" not in step:
            return
        took, least = max(0.0, at - self._mark), step["after"][0]
        if took < least - ACCURACY - (EARLY * max(1.0, least) if self._world.slack else 0):
            raise Failure(f"that came after {took:.3f} s")

    async def _until(self, found: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = self._mark + seconds + max(ACCURACY, self._world.slack)
        while not (value := found()):
            seen = await self._world.next(deadline)
            if seen is None:
                raise Failure(f"no sign of {what} in {seconds} s")
            self._see(seen)
        return value

    async def _quiet(self, seconds: float, heard: Callable[[], str | None]) -> None:
        deadline = self._mark + seconds
        while not (broken := heard()):
            seen = await self._world.next(deadline)
            if seen is None:
                return
            self._see(seen)
        raise Failure(broken)

    # --- What the client did ---

    def _note(self, text: str) -> None:
        self._trace.append(f"{self._world.now():8.3f} {text}")

    def _see(self, seen: Seen) -> None:
        self._note(f"client: {seen.what} {seen.value!r:.300}")
        if seen.what == "report":
            self._report(seen)
        elif seen.what == "connect":
            self._connects.append(seen)
        elif seen.connection == self._connection and self._accepted:
            if seen.what == "gone":
                self._gone = seen
            else:
                self._message(seen)

    def _report(self, seen: Seen) -> None:
        match seen.value:
            case {"event": _} | {"gap": _}:
                self._story.append(seen.value)
            case {"state": _}:
                self._states.append(seen)
            case {"answer": _}:
                self._answers.append({"error": None, **seen.value})
            case {"processed": seq, "id": id}:
                self._processed.add(id)
                if self._unprocessed.get(seq) == id:
                    del self._unprocessed[seq]
                self._doubtful = [ack for ack in self._doubtful if self._premature(ack)]
            case _:
                raise Failure(f"the client reports {seen.value}, which means nothing")

    def _premature(self, ack: int) -> bool:
        return any(seq <= ack for seq in self._unprocessed)

    def _message(self, seen: Seen) -> None:
        if not isinstance(seen.value, str):
            raise Failure("the client sent a binary message")
        try:
            value = json.loads(seen.value)
        except ValueError:
            raise Failure(f"the client sent what is no JSON: {seen.value!r:.200}") from None
        frames = value if isinstance(value, list) else [value]
        if not frames or not all(
            isinstance(frame, dict) and isinstance(frame.get("t"), str) for frame in frames
        ):
            raise Failure(f"the client sent what is no frame: {seen.value!r:.200}")
        for frame in frames:
            self._check_frame(frame)
            (self._acks if frame["t"] == "ack" else self._frames).append((seen.at, frame))

    def _check_frame(self, frame: Json) -> None:
        """What a client must never do, whatever the step."""
        kind = frame["t"]
        if (kind == "hello") == self._greeted:
            raise Failure("a second hello" if self._greeted else f"{kind} before hello")
        self._greeted = True
        if kind != "hello" and not self._welcomed:
            raise Failure(f"{kind} before the welcome")
        needed = KEYS.get(kind)
        if needed is None or any(key not in frame for key in needed):
            raise Failure(f"no frame of this protocol: {frame}")
        if kind in ("ack", "nack"):
            seq = frame["seq"]
            if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq <= self._top:
                raise Failure(f"{frame}, and {self._top} is the highest that it was sent")
        if kind == "ack":
            if self._premature(frame["seq"]):
                if not math.isclose(self._world.slack, 0):
                    self._doubtful.append(frame["seq"])  # its report may come by another way
                else:
                    raise Failure(f"{frame}, before {min(self._unprocessed)} was processed")
            if frame["seq"] < self._acked:
                raise Failure(f"{frame} after ack {self._acked}")
            self._acked = frame["seq"]

    # --- Patterns ---

    def _fill(self, value: Json) -> Json:
        """`value` with what the names in it are bound to; ``$now`` is a time on the client's calendar."""
        match value:
            case {"$now": seconds}:
                return self._world.calendar() + seconds
            case {"$repeat": [text, times]}:
                return text * times
        if isinstance(value, dict):
            return {key: self._fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item) for item in value]
        return self._bound.get(value, value) if isinstance(value, str) and value.startswith("$") else value

    def _compare(self, pattern: Json, got: Json) -> None:
        """`got` may have more keys than `pattern`; ``$name`` binds what is there."""
        if isinstance(pattern, str) and pattern.startswith("$"):
            self._bound[pattern] = got
        elif isinstance(pattern, dict) and isinstance(got, dict):
            for key, item in pattern.items():
                if item is not None and key not in got:
                    raise Failure(f"{got} lacks {key}")
                self._compare(item, got.get(key))
        elif pattern != got or isinstance(pattern, bool) != isinstance(got, bool):
            raise Failure(f"{got!r} instead of {pattern!r}")
