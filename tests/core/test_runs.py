"""The grammar of runs, the fold, and the bounds of what is remembered of them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from trio_ws.core.run_fold import RunFold
from trio_ws.core.run_grammar import MAX_CALLS, MAX_QUESTIONS, Happened, check_payload
from trio_ws.core.run_view import FOLDED, MAX_TOOL_TEXT, MAX_VALUE, RunView
from trio_ws.core.runs import BACKLOG, MAX_BACKLOG, NONSENSE, RunBooks, Runs
from trio_ws.errors import (
    IllegalTransition,
    InvalidEvent,
    RunEnded,
    StoreUnavailable,
    TooManyRuns,
    UnknownRun,
)
from trio_ws.event import Event, Gap


class World:
    """One user's runs, and a log that holds nothing else."""

    def __init__(self, most: int = 3, in_all: int = 10, max_text: int = 10) -> None:
        self.books = RunBooks(most, in_all, max_text)
        self.runs = Runs("ada", self.books)
        self.seq = 0
        self.history: list[tuple[str, str, dict[str, Any], int]] = []

    def event(self, type: str, run: str = "r", *, ready: int | None = None, **payload: Any) -> None:
        call, question = payload.get("call", 0), payload.get("question", "")
        self.runs.check(run, type, call, question)
        self.seq += 1
        self.history.append((run, type, payload, self.seq))
        happened = Happened(type, json.dumps(payload).encode(), self.seq, 1000.0 + self.seq, f"e{self.seq}")
        self.runs.accepted(run, happened, 30.0, float(self.seq), self.seq if ready is None else ready)

    def view(self, run: str = "r", upto: int | None = None) -> dict[str, Any]:
        view = self.runs.view(run, self.seq if upto is None else upto)
        assert view is not None
        return view.payload()

    def folded(self, run: str = "r", upto: int | None = None) -> dict[str, Any]:
        """The whole history, folded one by one."""
        view = RunView(run, self.books.max_text)
        for which, type, payload, seq in self.history:
            if which == run and (upto is None or seq <= upto):
                view.fold(type, payload, seq, 1000.0 + seq)
        return view.payload()


def test_a_life() -> None:
    world = World()
    world.event("agent_started", name="researcher")
    world.event("agent_thinking", text="hm")
    world.event("tool_executing", call=1, tool="search", input={"q": 1})
    world.event("tool_output", call=1, text="line")
    world.event("question_asked", question="q", prompt="Deploy?", choices=["yes", "no"])
    world.event("agent_progress", fraction=0.5, message="half")
    assert world.view() == {
        "status": "running",
        "started": 1001.0,
        "name": "researcher",
        "text": "",
        "text_from": 0,
        "thought": "hm",
        "progress": 0.5,
        "message": "half",
        "tools": [{"call": 1, "tool": "search", "since": 1003.0, "input": {"q": 1}, "text": "line"}],
        "calls": 1,
        "questions": [{"question": "q", "prompt": "Deploy?", "choices": ["yes", "no"], "ts": 1005.0}],
    }
    world.event("tool_completed", call=1, tool="search", outcome="completed", duration=2.0)
    world.event("question_closed", question="q", outcome="answered", answer="yes")
    world.event("agent_cancelling", by="user")
    assert world.view()["status"] == "cancelling"
    world.event("agent_completed", outcome="cancelled", duration=9.0)
    view = world.view()
    assert (view["status"], view["ended"], view["tools"], view["questions"]) == ("cancelled", 1010.0, [], [])
    assert view["last_tool"] == {"call": 1, "tool": "search", "outcome": "completed", "duration": 2.0}


ILLEGAL: list[tuple[list[tuple[str, dict[str, Any]]], tuple[str, dict[str, Any]]]] = [
    ([], ("agent_started", {})),
    ([("agent_cancelling", {})], ("agent_cancelling", {})),
    ([], ("tool_output", {"call": 1})),
    ([], ("tool_completed", {"call": 1})),
    ([("tool_executing", {"call": 1, "tool": "t"})], ("tool_executing", {"call": 1, "tool": "t"})),
    (
        [("tool_executing", {"call": 1, "tool": "t"}), ("tool_completed", {"call": 1})],
        ("tool_executing", {"call": 1, "tool": "t"}),
    ),
    ([("tool_executing", {"call": 3, "tool": "t"})], ("tool_executing", {"call": 3, "tool": "t"})),
    ([("tool_executing", {"call": 3, "tool": "t"})], ("tool_output", {"call": 2})),
    ([], ("tool_executing", {"call": MAX_CALLS + 1, "tool": "t"})),
    ([], ("question_closed", {"question": "q"})),
    ([("question_asked", {"question": "q"})], ("question_asked", {"question": "q"})),
    (
        [("question_asked", {"question": "q"}), ("question_closed", {"question": "q", "outcome": "expired"})],
        ("question_asked", {"question": "q"}),
    ),
    *(
        ([("agent_completed", {"outcome": "completed"})], (type, {"call": 1, "question": "q"}))
        for type in (*sorted(FOLDED), "note")
    ),
]


@pytest.mark.parametrize(("before", "then"), ILLEGAL, ids=lambda x: x[0] if isinstance(x, tuple) else "")
def test_what_has_no_place_is_refused_and_changes_nothing(
    before: list[tuple[str, dict[str, Any]]], then: tuple[str, dict[str, Any]]
) -> None:
    world = World()
    world.event("agent_started")
    for type, payload in before:
        world.event(type, **payload)
    view, seq = world.view(), world.seq
    run = world.runs.get("r")
    assert run is not None
    calls, questions, state = dict(run.calls), dict(run.questions), run.state
    with pytest.raises(IllegalTransition) as info:
        world.event(then[0], **then[1])
    assert isinstance(info.value, RunEnded) == run.ended
    assert (world.view(), world.seq) == (view, seq)
    assert (run.calls, run.questions, run.state) == (calls, questions, state)


def test_nothing_comes_before_the_beginning() -> None:
    world = World()
    for type in (FOLDED | {"note"}) - {"agent_started"}:
        with pytest.raises(UnknownRun):
            world.event(type)
    assert len(world.runs) == len(world.books) == 0


def test_calls_and_questions_are_bounded() -> None:
    world = World()
    world.event("agent_started")
    for call in range(MAX_CALLS, 0, -1):  # in any order
        world.event("tool_executing", call=call, tool="t")
    with pytest.raises(IllegalTransition, match="64 calls"):
        world.event("tool_executing", call=MAX_CALLS + 1, tool="t")
    world.event("tool_completed", call=7, tool="t")
    world.event("tool_executing", call=MAX_CALLS + 1, tool="t")
    for number in range(MAX_QUESTIONS):
        world.event("question_asked", question=f"q{number}")
    with pytest.raises(IllegalTransition, match="16 questions"):
        world.event("question_asked", question="one more")
    for number in range(MAX_QUESTIONS):
        world.event("question_closed", question=f"q{number}", outcome="expired")
    run = world.runs.get("r")
    assert run is not None
    for number in range(5):
        world.event("question_asked", question=f"r{number}")
        world.event("question_closed", question=f"r{number}", outcome="expired")
        assert len(run.closed) == MAX_QUESTIONS


def test_runs_are_bounded_and_the_one_that_ended_first_is_forgotten() -> None:
    world = World(most=3)
    for run in "abc":
        world.event("agent_started", run)
    with pytest.raises(TooManyRuns, match="of this user"):
        world.event("agent_started", "d")
    world.event("agent_completed", "b", outcome="completed")
    world.event("agent_completed", "a", outcome="failed")
    world.event("agent_started", "d")
    assert [run.id for run in world.runs] == ["a", "c", "d"]
    assert world.runs.forgotten == ["b"]
    assert (world.books.open, len(world.books)) == (2, 3)
    world.event("agent_started", "b")  # its name is free again
    world.runs.forget_ended(before=100.0)
    assert [run.id for run in world.runs] == ["c", "d", "b"]


def test_runs_of_all_users_are_bounded() -> None:
    world = World(most=3, in_all=4)
    other = Runs("bob", world.books)
    for run in "abc":
        world.event("agent_started", run)
    world.event("agent_completed", "a", outcome="completed")
    for run in "xy":
        other.check(run, "agent_started", 0, "")
        other.accepted(run, Happened("agent_started", b"{}", 1, 0.0, "e"), None, 0.0, 1)
    assert [run.id for run in world.runs] == ["b", "c"]
    with pytest.raises(TooManyRuns, match="in all"):
        other.check("z", "agent_started", 0, "")


def test_a_snapshot_has_what_may_be_shown_and_no_more() -> None:
    world = World()
    world.event("agent_started", ready=0)
    world.event("agent_delta", text="a", ready=0)
    assert world.runs.view("r", 0) is None
    assert world.view(upto=1)["text"] == ""
    assert world.view(upto=2)["text"] == "a"
    world.event("question_asked", question="q", prompt="?", ready=2)
    assert world.view(upto=2)["questions"] == world.runs.standing(2) == []
    assert world.runs.standing(3) == [{"run": "r", "question": "q", "prompt": "?", "ts": 1003.0}]


def test_the_backlog_is_folded_and_bounded_where_it_can_not_be() -> None:
    world = World()
    world.event("agent_started")
    run = world.runs.get("r")
    assert run is not None
    for _ in range(2 * BACKLOG):
        world.event("agent_delta", text="x")
        assert len(run._backlog) < BACKLOG
    ready = world.seq
    with pytest.raises(StoreUnavailable):
        for _ in range(2 * MAX_BACKLOG):
            world.event("agent_delta", text="y", ready=ready)
    assert len(run._backlog) <= MAX_BACKLOG
    world.event("agent_completed", outcome="completed", ready=ready)  # the end comes all the same


def test_the_last_of_a_text_is_kept() -> None:
    world = World(max_text=10)
    world.event("agent_started")
    for at in range(100):
        world.event("agent_delta", text=f"{at:03}")
    view = world.view()
    assert (view["text"], view["text_from"]) == ("6097098099", 290)
    world.event("tool_executing", call=1, tool="t")
    for _ in range(3):
        world.event("tool_output", call=1, text="z" * MAX_TOOL_TEXT)
    assert len(world.view()["tools"][0]["text"]) == MAX_TOOL_TEXT


def test_what_is_too_large_is_left_out_and_said_so() -> None:
    world = World()
    world.event("agent_started")
    world.event("tool_executing", call=1, tool="t", input="x" * MAX_VALUE)
    world.event("agent_completed", outcome="completed", result="x" * MAX_VALUE)
    view = world.view()
    assert view["left_out"] == ["input", "result"]
    assert "result" not in view
    assert "input" not in world.folded()["tools"]


def test_a_view_is_its_payload() -> None:
    world = World()
    world.event("agent_started", name="n", parent="p")
    world.event("agent_delta", text="some text that is cut")
    world.event("tool_executing", call=1, tool="t")
    world.event("question_asked", question="q", prompt="?")
    payload = world.view()
    again = RunView.of("r", world.seq, 0.0, json.loads(json.dumps(payload)), max_text=10)
    assert again.payload() == payload
    again.fold("agent_delta", {"text": "!"}, world.seq, 0.0)
    assert again.payload() == payload, "folded already"
    again.fold("agent_delta", {"text": "!"}, world.seq + 1, 0.0)
    assert again.text == payload["text"][1:] + "!"
    assert again.text_from == payload["text_from"] + 1


@pytest.mark.parametrize("payload", [None, [], "text", {"text": 7, "call": "x", "fraction": {}}])
def test_folding_is_forgiving(payload: Any) -> None:
    view = RunView("r")
    for seq, type in enumerate(sorted(FOLDED | {"note"}), 1):
        view.fold(type, payload, seq, 1.0)
    assert json.dumps(view.payload())


BAD: list[tuple[str, Any]] = [
    ("agent_thinking", {}),
    ("agent_delta", {"text": 7}),
    ("agent_delta", "text"),
    ("agent_progress", {"fraction": 1.5}),
    ("agent_progress", {"fraction": "half"}),
    ("tool_executing", {"call": 0, "tool": "t"}),
    ("tool_executing", {"call": 1, "tool": ""}),
    ("tool_executing", {"call": True, "tool": "t"}),
    ("tool_output", {"call": 1}),
    ("tool_completed", {"call": 1, "tool": "t", "outcome": "lost", "duration": 1}),
    ("tool_completed", {"call": 1, "tool": "t", "outcome": "failed", "duration": -1}),
    *((type, {}) for type in ("agent_started", "agent_completed", "agent_lost", "agent_cancelling")),
    *((type, {}) for type in ("question_asked", "question_closed")),
]


@pytest.mark.parametrize(("type", "payload"), BAD)
def test_a_payload_that_is_not_as_its_type_has_it(type: str, payload: Any) -> None:
    with pytest.raises(InvalidEvent):
        check_payload(type, json.dumps(payload).encode())


def test_a_payload_may_have_further_keys() -> None:
    assert check_payload("tool_output", b'{"call":7,"text":"x","more":[1]}') == 7
    assert check_payload("note", b"anything") == 0


def test_a_record_and_what_the_log_holds_beyond_it_make_the_run_again() -> None:
    """At whatever event the record was drawn up, and whatever was shown meanwhile."""
    rng = random.Random(7)
    for _ in range(60):
        world = World(max_text=12)
        world.event("agent_started", name="n")
        run = world.runs.get("r")
        assert run is not None
        cut, upto = rng.randint(1, 25), 10**6
        for at in range(25):
            if at == cut:
                if rng.random() < 0.5:
                    run.view(world.seq - rng.randint(0, 1))
                upto = max(1, world.seq - rng.randint(0, 2))
                record = run.record("ada", max(1, upto - rng.randint(0, 2)), upto)
            _draw(world, rng)
        if cut == 25:
            record = run.record("ada", world.seq, world.seq)
        other = type(run).restored(record, 12)
        for which, kind, payload, seq in world.history:
            assert which == "r"
            if seq > upto or rng.random() < 0.5:  # what was recorded may have left the log
                other.catch_up(Happened(kind, json.dumps(payload).encode(), seq, 1000.0 + seq, f"e{seq}"))
        assert other.view(world.seq).payload() == run.view(world.seq).payload() == world.folded()
        assert (other.state, set(other.calls), set(other.questions)) == (
            run.state,
            set(run.calls),
            set(run.questions),
        )
        assert (other.ended_seq > 0, other.ended_id, other.next_call, other.digest, other.lease) == (
            run.ended,
            run.ended_id,
            run.next_call,
            run.digest,
            run.lease,
        )
        assert {q: c.outcome for q, c in other.closed.items()} == {
            q: c.outcome for q, c in run.closed.items()
        }


def _draw(world: World, rng: random.Random) -> None:
    """Some event that may come or not."""
    type = rng.choice([*sorted(FOLDED), *["agent_delta"] * 8, "tool_executing", "question_asked", "note"])
    payload: dict[str, Any] = {"text": f"{world.seq}.", "outcome": "failed", "duration": 1.0}
    if type.startswith("tool"):
        payload |= {"call": rng.randint(1, 4), "tool": "t"}
    if type.startswith("question"):
        payload |= {"question": rng.choice("ab"), "prompt": "?"}
    try:
        world.event(type, ready=0, **payload)
    except IllegalTransition:
        pass


@pytest.mark.parametrize("state", [b"{}", b"[]", b"7", b'{"seq":1,"view":{},"digest":1}'])
def test_a_record_that_makes_no_sense(state: bytes) -> None:
    from trio_ws.core.records import RunRecord
    from trio_ws.core.runs import Run

    with pytest.raises(NONSENSE):
        Run.restored(RunRecord("ada", "r", True, None, state), 10)


def test_a_crash_of_a_server_whose_log_lives_on_ends_no_run_and_brings_nothing_twice() -> None:
    """A client that was slow is given a snapshot, then what the crash cost, then events that the snapshot has."""
    runs = RunFold()

    def event(seq: int, type: str, payload: Any, run: str = "r", id: str = "id") -> Event:
        return Event(seq=seq, id=id, type=type, payload=payload, ts=float(seq), run=run)

    for item in (
        event(1, "agent_started", {}),
        event(2, "agent_started", {}, "other"),
        event(3, "question_asked", {"question": "q", "prompt": "Well?"}, "other"),
        event(9, "snapshot", {"status": "running", "started": 1.0, "text": "Hello", "text_from": 0}, id=""),
        Gap(first=5, last=7, reason="reset", lost={}),
        event(8, "agent_delta", {"text": "lo"}),
        event(10, "agent_delta", {"text": ", world"}),
    ):
        runs.fold(item)
    assert (runs["r"].text, runs["r"].status) == ("Hello, world", "running")
    assert (runs["other"].status, len(runs.questions), runs.incomplete) == ("running", 1, {"other"})
    runs.fold(Gap(first=11, last=11, reason="reset", lost={}, anew=True))
    assert (runs["r"].status, runs["other"].status, runs.questions) == ("lost", "lost", [])
