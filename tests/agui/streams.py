"""Runs and AG-UI streams that are legal, drawn by Hypothesis; and what becomes of a run on its way to a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from hypothesis import strategies as st

from trio_ws.event import Draft, Event, Merged

AguiEvent = dict[str, Any]

texts = st.sampled_from(["a", "Hel", "lo, ", "wörld\n", "🙂", '{"x":'])
values = st.sampled_from([None, 1, "text", {"x": [1, None]}, [], True])


# Runs of ours


@attrs.define
class Told:
    """A run as it is being told, and those nested in it."""

    events: list[Event] = attrs.Factory(list)
    calls: dict[str, dict[int, str]] = attrs.Factory(dict)
    made: dict[str, int] = attrs.Factory(dict)
    parents: dict[str, str | None] = attrs.Factory(dict)
    ended: set[str] = attrs.Factory(set)

    def tell(self, run: str, type: str, payload: Any) -> None:
        seq = len(self.events) + 1
        self.events.append(Event(seq=seq, id=f"e{seq}", type=type, payload=payload, ts=float(seq), run=run))

    def start(self, run: str, parent: str | None = None) -> None:
        self.calls[run], self.made[run], self.parents[run] = {}, 0, parent
        about = {"name": f"agent {run}", "input": {"q": 1}} | ({"parent": parent} if parent else {})
        self.tell(run, "agent_started", about)

    def end(self, run: str, outcome: str) -> None:
        for call, tool in list(self.calls[run].items()):
            self.tell(
                run, "tool_completed", {"call": call, "tool": tool, "outcome": "cancelled", "duration": 1}
            )
        self.ended.add(run)
        if outcome == "lost":
            self.tell(run, "agent_lost", {"outcome": "lost", "duration": 1.5, "reason": "lease"})
            return
        more = {"completed": {"result": {"n": 1}}, "failed": {"error": {"kind": "Oops"}}}.get(outcome, {})
        self.tell(run, "agent_completed", {"outcome": outcome, "duration": 1.5, **more})


@st.composite
def runs(draw: st.DrawFn) -> Told:
    """A run ``r``, with others nested in it, from its start to its end."""
    told = Told()
    told.start("r")
    for _ in range(draw(st.integers(0, 14))):
        run = draw(st.sampled_from(sorted(told.parents.keys() - told.ended - {"r"}) + ["r", "r"]))
        act = draw(st.sampled_from([*"ddddtpcooaqnvvve"]))
        if act == "d":
            told.tell(run, "agent_delta", {"text": draw(texts)})
        elif act == "t":
            told.tell(run, "agent_thinking", {"text": draw(texts)})
        elif act == "p":
            told.tell(run, "agent_progress", {"fraction": 0.5, "message": "half"})
        elif act == "c":
            call = told.made[run] = told.made[run] + 1
            told.calls[run][call] = "search"
            told.tell(run, "tool_executing", {"call": call, "tool": "search", "input": draw(values)})
        elif act == "o" and told.calls[run]:
            call = draw(st.sampled_from(sorted(told.calls[run])))
            if draw(st.booleans()):
                told.tell(run, "tool_output", {"call": call, "text": draw(texts)})
            else:
                end = {"call": call, "tool": told.calls[run].pop(call), "duration": 0.1}
                told.tell(run, "tool_completed", {**end, "outcome": "completed", "output": draw(values)})
        elif act == "a" and len(told.parents) < 4:
            told.start(f"c{len(told.parents)}", run)
        elif act == "q":
            told.tell(run, "question_asked", {"question": f"q{len(told.events)}", "prompt": "Deploy?"})
        elif act == "n":
            told.tell(run, "note", draw(values))
        elif act == "v":
            told.tell(run, "agui", draw(st.sampled_from(AS_IT_IS)))
        elif act == "e" and run != "r":
            told.end(run, draw(st.sampled_from(["completed", "failed", "cancelled", "lost"])))
    told.end("r", draw(st.sampled_from(["completed", "failed", "cancelled", "lost"])))
    return told


AS_IT_IS: list[AguiEvent] = [
    {"type": "STEP_STARTED", "stepName": "plan"},
    {"type": "STEP_FINISHED", "stepName": "plan"},
    {"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}},
    {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/m", "value": 2}]},
    {"type": "TEXT_MESSAGE_START", "messageId": "m1"},
    {"type": "TEXT_MESSAGE_START", "messageId": "m2", "role": "user"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m2", "delta": "x"},
    {"type": "TEXT_MESSAGE_END", "messageId": "m2"},
    {"type": "REASONING_MESSAGE_CONTENT", "messageId": "t1", "delta": "x"},
    {"type": "SUBAGENT_STARTED", "subagentRunId": "s1", "name": "s", "parentSubagentRunId": "s0"},
    {"type": "SUBAGENT_FINISHED", "subagentRunId": "s1"},
    {"type": "TOOL_CALL_START", "toolCallId": "x1", "toolCallName": "look", "subagentRunId": "s1"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "x1", "delta": "{}", "subagentRunId": "s1"},
    {"type": "ACTIVITY_SNAPSHOT", "messageId": "a1", "activityType": "plan", "content": {"n": 1}},
    {"type": "RAW", "event": None},
    {"type": "RUN_FINISHED", "threadId": "x", "runId": "x", "usage": [{"model": "m", "inputTokens": 3}]},
    {"type": "STEP_STARTED"},
    {"type": "TOMORROW", "x": 1},
    {"type": "CUSTOM", "name": "agent_started", "value": None, "subagentRunId": None},
    {},
]


def joined(events: Iterable[Event]) -> list[Event]:
    """As a slow client has them: neighbouring deltas of a run are one."""
    told: list[Event] = []
    for event in events:
        last = told[-1] if told else None
        if (
            last
            and event.type == last.type == "agent_delta"
            and event.run == last.run
            and event.seq == last.seq + 1
        ):
            first = last.merged.from_seq if last.merged else last.seq
            payload = {"text": last.payload["text"] + event.payload["text"]}
            told[-1] = attrs.evolve(
                event, payload=payload, merged=Merged(from_seq=first, n=event.seq - first)
            )
        else:
            told.append(event)
    return told


def published(drafts: Iterable[Draft], run: str = "r") -> list[Event]:
    """What a client has of drafts that were published in a run."""
    return [
        Event(seq=seq, id=f"e{seq}", type=draft.type, payload=draft.payload, ts=float(seq), run=run)
        for seq, draft in enumerate(drafts, 1)
    ]


# Streams of AG-UI


@st.composite
def streams(draw: st.DrawFn) -> list[AguiEvent]:
    """A legal stream of AG-UI, in long form and in chunks: what it tells overlaps, and has subagents."""
    events: list[AguiEvent] = []
    names = iter(range(100))
    open: dict[str, list[dict[str, Any]]] = {"text": [], "thought": [], "tool": [], "step": [], "agent": []}

    def tell(type: str, **fields: Any) -> None:
        events.append({"type": type, **{key: value for key, value in fields.items() if value is not None}})

    def one(kind: str) -> dict[str, Any]:
        return draw(st.sampled_from(open[kind]))

    def end(kind: str, it: dict[str, Any]) -> None:
        open[kind].remove(it)
        tell(
            {"text": "TEXT_MESSAGE_END", "thought": "REASONING_MESSAGE_END", "step": "STEP_FINISHED"}.get(
                kind, "TOOL_CALL_END" if kind == "tool" else "SUBAGENT_FINISHED"
            ),
            **it,
        )
        if kind == "thought":
            tell("REASONING_END", **it)
        if kind == "tool" and draw(st.booleans()):
            output = draw(st.sampled_from(["found", "", '{"n":1}', [{"type": "text", "text": "x"}]]))
            tell("TOOL_CALL_RESULT", messageId=f"o{next(names)}", content=output, role="tool", **it)

    def owner() -> str | None:
        agents = [agent["subagentRunId"] for agent in open["agent"]]
        return draw(st.sampled_from([None, None, *agents]))

    tell("RUN_STARTED", threadId="t", runId="r")
    for _ in range(draw(st.integers(0, 16))):
        act = draw(st.sampled_from(["text", "thought", "tool", "step", "agent", "within", "within", "end", "chunk",
                                    "state", "delta", "custom", "raw", "activity", "secret", "messages"]))  # fmt: skip
        n = next(names)
        if act == "text":
            it = {"messageId": f"m{n}", "subagentRunId": owner()}
            tell(
                "TEXT_MESSAGE_START", role=draw(st.sampled_from([None, "assistant", "user", "system"])), **it
            )
            open["text"].append(it)
        elif act == "thought":
            it = {"messageId": f"t{n}", "subagentRunId": owner()}
            tell("REASONING_START", **it)
            tell("REASONING_MESSAGE_START", role="reasoning", **it)
            open["thought"].append(it)
        elif act == "tool":
            it = {"toolCallId": f"x{n}", "subagentRunId": owner()}
            tell("TOOL_CALL_START", toolCallName="search", **it)
            open["tool"].append(it)
        elif act == "step":
            it = {"stepName": f"s{n}", "subagentRunId": owner()}
            tell("STEP_STARTED", **it)
            open["step"].append(it)
        elif act == "agent":
            it = {"subagentRunId": f"a{n}"}
            tell("SUBAGENT_STARTED", name="helper", parentSubagentRunId=owner(), **it)
            open["agent"].append(it)
        elif act == "within":
            kind = draw(st.sampled_from(["text", "thought", "tool"]))
            type = {
                "text": "TEXT_MESSAGE_CONTENT",
                "thought": "REASONING_MESSAGE_CONTENT",
                "tool": "TOOL_CALL_ARGS",
            }
            if open[kind]:
                tell(type[kind], delta=draw(st.one_of(texts, st.just(""))), **one(kind))
        elif act == "end":
            kind = draw(st.sampled_from(["text", "thought", "tool", "step"]))
            if open[kind]:
                end(kind, one(kind))
        elif act == "chunk":
            form = draw(st.sampled_from(["text", "tool", "thought"]))
            if form == "text":
                tell("TEXT_MESSAGE_CHUNK", messageId=f"m{n}", delta=draw(texts))
                tell("TEXT_MESSAGE_CHUNK", delta=draw(texts))
            elif form == "tool":
                tell("TOOL_CALL_CHUNK", toolCallId=f"x{n}", toolCallName="look", delta='{"a":')
                tell("TOOL_CALL_CHUNK", delta="1}")
            else:
                tell("REASONING_MESSAGE_CHUNK", messageId=f"t{n}", delta=draw(texts))
        elif act == "state":
            tell("STATE_SNAPSHOT", snapshot={"n": n})
        elif act == "delta":
            tell("STATE_DELTA", delta=[{"op": "add", "path": f"/k{n}", "value": n}])
        elif act == "custom":
            tell(
                "CUSTOM",
                name=draw(st.sampled_from(["note", "agent_started", "agent_progress", "snapshot"])),
                value={"n": n},
            )
        elif act == "raw":
            tell("RAW", event={"n": n}, source="model")
        elif act == "activity":
            tell("ACTIVITY_SNAPSHOT", messageId=f"p{n}", activityType="plan", content={"n": n})
        elif act == "secret" and open["text"]:
            it = one("text")
            tell("REASONING_ENCRYPTED_VALUE", subtype="message", entityId=it["messageId"], encryptedValue="x",
                 subagentRunId=it["subagentRunId"])  # fmt: skip
        elif act == "messages" and not (open["text"] or open["thought"] or open["tool"]):
            tell("MESSAGES_SNAPSHOT", messages=[{"id": f"u{n}", "role": "user", "content": "hello"}])
    for kind in open:
        for it in list(open[kind]):
            end(kind, it)
    events.append(draw(st.sampled_from(ENDS)))
    return events


ENDS: Sequence[AguiEvent] = (
    {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "result": {"n": 1}},
    {
        "type": "RUN_FINISHED",
        "threadId": "t",
        "runId": "r",
        "outcome": {"type": "success"},
        "usage": [{"model": "m"}],
    },
    {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "outcome": {"type": "cancelled"}},
    {
        "type": "RUN_FINISHED",
        "threadId": "t",
        "runId": "r",
        "outcome": {
            "type": "interrupt",
            "interrupts": [{"id": "i1", "reason": "confirmation", "message": "Sure?"}],
        },
    },
    {"type": "RUN_ERROR", "message": "no more money", "code": "quota"},
)


def snapshots(events: Sequence[Event], *, cut: bool = True) -> list[Event]:
    """What a client is told that comes in behind `events`: what is open, and each run as it stands.

    Args:
      cut: the texts are too long to be kept whole.
    """
    states: dict[str, dict[str, Any]] = {}
    for event in events:
        assert event.run is not None
        state = states.setdefault(event.run, {"status": "running", "text": "", "tools": {}, "questions": []})
        _fold(state, event.type, event.payload)
    seq = events[-1].seq if events else 0
    questions = [{"run": run, "ts": 1.0, **q} for run, state in states.items() for q in state["questions"]]
    told = (
        [Event(seq=seq, id="", type="standing", payload={"questions": questions}, ts=0.0)]
        if questions
        else []
    )
    for run, state in states.items():
        start = len(state["text"]) // 2 if cut else 0
        payload = {
            **state,
            "text": state["text"][start:],
            "text_from": start,
            "tools": list(state["tools"].values()),
        }
        told.append(Event(seq=seq, id="", type="snapshot", payload=payload, ts=float(seq), run=run))
    return told


def _fold(state: dict[str, Any], type: str, payload: Any) -> None:
    if type == "agent_started":
        state.update({key: payload[key] for key in ("name", "parent") if key in payload})
    elif type == "agent_thinking":
        state["thought"] = payload["text"]
    elif type == "agent_delta":
        state["text"] += payload["text"]
    elif type == "agent_progress":
        state.update(progress=payload["fraction"], message=payload["message"])
    elif type == "tool_executing":
        state["tools"][payload["call"]] = payload
    elif type == "tool_completed":
        del state["tools"][payload["call"]]
        state["last_tool"] = {key: payload[key] for key in ("call", "tool", "outcome", "duration")}
    elif type == "question_asked":
        state["questions"] = [*state["questions"], payload]
    elif type in ("agent_completed", "agent_lost"):
        state["status"] = payload["outcome"]
        state.update({key: payload[key] for key in ("result", "error") if key in payload})
