"""runs.js and `RunFold` make the same of the same: plans of events, snapshots and gaps, drawn by seed."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trio_ws import Event, Gap, RunFold, RunView
from trio_ws.core.run_view import FOLDED

HERE = Path(__file__).parent
PLANS = 300
QUESTION = {"prompt": "Which?", "choices": ["a", "b"], "expires": 9.5}


class Plan:
    """What one client is given; each item is such as both folds take, and as the wire has it."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._seq = self._count = 0
        self.items: list[dict[str, Any]] = [self._item() for _ in range(self._rng.randrange(5, 60))]

    def _item(self) -> dict[str, Any]:
        rng = self._rng
        draw = rng.random()
        if draw < 0.06:
            return {"gap": self._gap()}
        if draw < 0.12:
            return {"event": self._snapshot()}
        if draw < 0.15:
            return {"event": self._standing()}
        self._seq += 1
        seq = max(1, self._seq - rng.choice((0,) * 9 + (rng.randrange(6),)))
        type = rng.choice((*sorted(FOLDED), "agent_delta", "tool_output", "custom", "snapshot"))
        return {
            "event": {
                "seq": seq,
                "id": f"id-{self._seq}",
                "type": type,
                "payload": self._payload(type),
                "ts": self._seq + 0.5,
                **rng.choice(({}, *({"run": self._run()},) * 9)),
            }
        }

    def _run(self) -> str:
        return self._rng.choice("abcdefg"[: 2 + self._seq // 8])

    def _payload(self, type: str) -> Any:
        rng = self._rng
        self._count += 1
        call = {"call": rng.randrange(max(1, self._count - 9), self._count + 1)}
        match type:
            case "agent_started":
                return rng.choice(({}, {"name": "n", "parent": "p", "input": 1}))
            case "tool_executing":
                return {"call": self._count, "tool": "t", **rng.choice(({}, {"input": {"q": [1, None]}}))}
            case "tool_completed":
                return {**call, "tool": "t", "outcome": "failed", "duration": 2, "output": 3}
            case "tool_output" | "agent_delta" | "agent_thinking":
                return {**call, "text": rng.choice(("", "žluťoučký 🐎", "x\n"))}
            case "agent_progress":
                return {"fraction": rng.random(), **rng.choice(({}, {"message": "m"}))}
            case "question_asked":
                return {"question": f"q{self._count}", **rng.choice(({"prompt": "?"}, QUESTION))}
            case "question_closed":
                return {"question": f"q{self._count - rng.randrange(9)}", "outcome": "withdrawn"}
            case "agent_completed" | "agent_lost":
                ends = ({"outcome": "completed", "result": {"n": 1}}, {"outcome": "lost"}, {})
                return rng.choice((*ends, {"outcome": "failed", "error": {"kind": "E", "message": "w"}}))
        return rng.choice((None, 7, "text", {"text": "other"}))

    def _snapshot(self) -> dict[str, Any]:
        view = RunView(
            "?", started=3.5, text="so far", text_from=7, status=self._rng.choice(("running", "failed"))
        )
        for type in self._rng.sample(sorted(FOLDED), 5):
            view.fold(type, self._payload(type), view.seq + 1, 4.5)
        seq = max(0, self._seq + self._rng.randrange(-3, 4))
        return {"seq": seq, "type": "snapshot", "run": self._run(), "payload": view.payload(), "ts": 5.5}

    def _standing(self) -> dict[str, Any]:
        asked = [
            {"run": self._run(), "question": f"q{self._count - 2 * n}", **QUESTION, "ts": n + 0.5}
            for n in range(self._rng.randrange(4))
        ]
        return {"seq": self._seq, "type": "standing", "payload": {"questions": asked}}

    def _gap(self) -> dict[str, Any]:
        rng = self._rng
        lost = {rng.choice(("agent_delta", "note", "*")): rng.randrange(1, 3)}
        reason = rng.choice(("evicted", "evicted", "settled", "superseded", "reset"))
        gap = {
            "from": 1,
            "to": rng.randrange(1, self._seq + 3),
            "reason": reason,
            "lost": lost,
            "critical": 0,
        }
        if reason == "reset":
            gap["lost"] = {}
            if rng.random() < 0.5:
                self._seq, gap["anew"] = rng.randrange(2), True
        return gap | rng.choice(({}, {"healed": 1}, {"healed": 2, "snapshots": [self._run()]}))


def folded(plan: Plan) -> list[dict[str, Any]]:
    """The states that `RunFold` has after a plan."""
    runs = RunFold(kept=4)
    for item in plan.items:
        if (gap := item.get("gap")) is not None:
            more = {"snapshots": tuple(gap.get("snapshots", ())), "healed": gap.get("healed", 0)}
            more["anew"] = gap.get("anew", False)
            runs.fold(Gap(first=1, last=gap["to"], reason=gap["reason"], lost=gap["lost"], **more))
        else:
            runs.fold(Event(**{"id": "", "ts": 0.0} | item["event"]))
    states = [
        {"run": view.run, "seq": view.seq, **view.payload()}
        | ({"incomplete": True} if view.run in runs.incomplete else {})
        for view in runs.values()
    ]
    asked = [question for state in states for question in state["questions"]]
    assert [{key: q[key] for key in q if key != "run"} for q in runs.questions] == asked
    return states


def test_both_fold_alike() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here: runs.js was NOT held against RunFold; install Node 20 or later")
    plans = [Plan(seed) for seed in range(PLANS)]
    done = subprocess.run(
        [node, str(HERE / "fold.mjs")],
        input=json.dumps([plan.items for plan in plans]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seen = set()
    for seed, (plan, theirs) in enumerate(zip(plans, json.loads(done.stdout), strict=True)):
        ours = folded(plan)
        assert theirs == ours, f"seed {seed}"
        seen |= {(state["status"], state.get("incomplete", False)) for state in ours}
    assert len(seen) >= 8, "the plans reach too little"
