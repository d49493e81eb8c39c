"""A server in a few lines, behind httpx's mock transport: it takes events and plays runs, and can be told to fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx

URL = "http://server.test"

Step = int | Callable[[httpx.Request], httpx.Response | None]


class Fake:
    """Accepts what comes, once an id.

    Attributes:
      accepted: the events, in order: users, types, payloads, and what else they had.
      requests: what was asked, as method and path.
      script: what becomes of the next requests that are no heartbeats: a status to refuse it with, an exception, or a
        function that answers; one that returns None lets it through.
      runs: the runs, by id: what they were opened with, and how they ended.
      beats: what becomes of the next heartbeats, as `script` has it.
      cancelling: runs of which a cancel was asked for.
      answers: what each question is answered with, in order; a dict, the state of the question.
    """

    def __init__(self) -> None:
        self.accepted: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.script: list[Step | Exception] = []
        self.beats: list[Step | Exception] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.cancelling: set[str] = set()
        self.answers: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.changed:
            self.requests.append((request.method, request.url.raw_path.decode()))
            try:
                script = self.beats if request.url.path.endswith("/heartbeat") else self.script
                step = script.pop(0) if script else None
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int):
                    return refusal(step, "said", str(step))
                told = step(request) if step is not None else None
                return told or self._answer(request)
            finally:
                self.changed.notify_all()

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 30), f"{self.requests}, {self.accepted}"

    def types(self) -> list[str]:
        return [event["type"] for event in self.accepted]

    def payloads(self, type: str) -> list[Any]:
        return [event["payload"] for event in self.accepted if event["type"] == type]

    def accept(self, user: str, event: dict[str, Any], **more: Any) -> dict[str, Any]:
        event = {"user": user, **event}
        known = next((seq for seq, e in enumerate(self.accepted, 1) if e["id"] == event["id"]), None)
        if known is None:
            self.accepted.append(event)
        else:
            assert self.accepted[known - 1] == event, "another event under an id that is known"
        seq = known or len(self.accepted)
        place = {"id": event["id"], "seq": seq, "epoch": "e", "state": "held", "duplicate": known is not None}
        return {**place, **more}

    def _answer(self, request: httpx.Request) -> httpx.Response:
        match [unquote(part) for part in request.url.raw_path.decode().partition("?")[0].split("/")[2:]]:
            case ["events"]:
                return self._lines(request, lambda line: self.accept(line.pop("user"), line))
            case ["users", user, "events"]:
                return httpx.Response(202, json=self.accept(user, json.loads(request.content)))
            case ["users", user, "runs"]:
                body = json.loads(request.content)
                fresh = self.runs.setdefault(body["run"], {"user": user, "opened": body})["opened"] == body
                assert fresh, "opened again, with another body"
                return httpx.Response(201, json={"run": body["run"], "seq": 1, "epoch": "e"})
            case ["users", user, "runs", run, *rest]:
                return self._of_run(request, user, run, rest)
        return refusal(404, "not_found", "no such call")

    def _of_run(self, request: httpx.Request, user: str, run: str, rest: list[str]) -> httpx.Response:
        if run not in self.runs:
            return refusal(404, "unknown_run", "there is no such run")
        told = {"expires": 0, "cancelling": run in self.cancelling}
        if rest == ["close"]:
            body = json.loads(request.content)
            if self.runs[run].setdefault("closed", body) != body:
                return refusal(409, "run_ended", "it has ended otherwise")
            return httpx.Response(200, json=told)
        if "closed" in self.runs[run]:
            return refusal(409, "run_ended", "it has ended")
        if rest == ["events"]:
            return self._lines(request, lambda line: self.accept(user, {"run": run, **line}, **told))
        if rest == ["questions"]:
            question = {
                "user": user,
                "type": "question_asked",
                "id": "?",
                "payload": json.loads(request.content),
            }
            self.accepted.append(question)
            return httpx.Response(201, json=told)
        if rest[0] == "questions" and request.method == "GET":
            return httpx.Response(
                200, json={"state": "open", **told, **(self.answers.pop(0) if self.answers else {})}
            )
        if request.method == "DELETE":
            return httpx.Response(204)
        assert rest == ["heartbeat"]
        return httpx.Response(200, json=told)

    def _lines(
        self, request: httpx.Request, accept: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> httpx.Response:
        lines = [json.loads(line) for line in request.content.split(b"\n") if line]
        return httpx.Response(200, content="".join(json.dumps(accept(line)) + "\n" for line in lines))


def refusal(status: int, code: str, message: str, **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": message, **more}})


def drop(fake: Fake) -> Step:
    """Does what is asked, and loses the answer."""

    def lose(request: httpx.Request) -> httpx.Response:
        fake._answer(request)
        raise httpx.ReadError("the connection broke")

    return lose


def lines_of(*bodies: dict[str, Any]) -> Step:
    """Answers JSON lines by these."""
    text = "".join(json.dumps(body) + "\n" for body in bodies)
    return lambda _: httpx.Response(200, content=text)
