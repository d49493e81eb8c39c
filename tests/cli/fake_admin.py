"""A small admin API to test commands against: a real socket, scripted answers, and it can go away and come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
started: list[subprocess.Popen[bytes]] = []
"""All processes of the test that runs; they end with it."""

GONE = b'{"error": {"code": "unknown_run", "message": "no such run"}}'

WAIT = 30
"""Seconds after which a condition that did not come true fails a test."""


class FakeAdmin:
    """Accepts events, once an id, and keeps them in order.

    Attributes:
      accepted: the events, each with its user.
      requests: method, path and headers of each call.
      script: answers to give before any other, one a request: an HTTP status, "drop" (do all, answer nothing), or a
        function from the lines of the request to the lines of the answer. To GET only "drop".
      status: answers every call, once the script is through, where it is not 200.
      figures: the answer to GET.
      runs: the runs that are open, by id. Their beginning and end are among `accepted`, as the events that they make.
      cancelling: tells each run's publisher that it is to stop.
    """

    def __init__(self) -> None:
        self.accepted: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.script: list[Any] = []
        self.status = 200
        self.figures: dict[str, Any] = {}
        self.runs: set[str] = set()
        self.cancelling = False
        self.changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake._post(self)

            def do_GET(self) -> None:
                fake._get(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, WAIT), f"{self.requests}, {self.accepted}"

    def types(self) -> list[str]:
        return [event["type"] for event in self.accepted]

    def text(self) -> str:
        """What the command wrote."""
        return "".join(e["payload"]["text"] for e in self.accepted if e["type"] == "tool_output")

    def accept(self, event: dict[str, Any]) -> dict[str, Any]:
        known = next((e for e in self.accepted if e["id"] == event["id"]), None)
        if known is None:
            self.accepted.append(event)
        else:
            assert known == event, "another event under an id that is known"
        seq = self.accepted.index(event) + 1
        return {"id": event["id"], "seq": seq, "epoch": "e", "state": "held", "duplicate": known is not None}

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        with self.changed:
            if handler.path.partition("?")[0].endswith("/heartbeat"):
                self._beat(handler)
                return
            if self._is_forgotten(handler.path):
                self._answer(handler, 404, GONE)
                return
            self.requests.append(("POST", handler.path, dict(handler.headers)))
            step = self.script.pop(0) if self.script else self.status
            batch = handler.path.endswith("/events") and b"ndjson" in handler.headers["content-type"].encode()
            if isinstance(step, int) and step != 200:
                error = {"error": {"code": "overloaded" if step == 503 else "no", "message": f"said {step}"}}
                self._answer(handler, step, json.dumps(error).encode())
            else:
                lines = (
                    [json.loads(line) for line in body.split(b"\n") if line] if batch else [json.loads(body)]
                )
                if handler.path.startswith("/v1/users/"):
                    lines = [self._in_path(handler.path, line) for line in lines]
                answers = step(lines) if callable(step) else [self.accept(line) for line in lines]
                if step != "drop":
                    text = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)
                    status = answers[0].get("error", {}).get("status", 202)
                    self._answer(handler, 200 if batch else status, text)
            self.changed.notify_all()

    def _in_path(self, path: str, line: dict[str, Any]) -> dict[str, Any]:
        """`line` with what the path says: whom it is for, in which run; a run's beginning and end as events."""
        _, _, _, user, *rest = path.split("/")
        if rest == ["runs"]:
            self.runs.add(line["run"])
            return {"user": user, "id": f"{line['run']}-start", "type": "agent_started", "payload": line}
        if rest[0] == "runs" and rest[2] == "close":
            return {"user": user, "id": f"{rest[1]}-end", "type": "agent_completed", "payload": line}
        return {"user": user, **({"run": rest[1]} if rest[0] == "runs" else {}), **line}

    def _is_forgotten(self, path: str) -> bool:
        parts = path.split("/")
        return len(parts) > 5 and parts[4] == "runs" and parts[5] not in self.runs

    def _beat(self, handler: BaseHTTPRequestHandler) -> None:
        if "wait=" in handler.path:
            self.changed.wait_for(lambda: self.cancelling or self._is_forgotten(handler.path), WAIT)
        told = json.dumps({"cancelling": self.cancelling, "expires": 0.0}).encode()
        self._answer(handler, *((404, GONE) if self._is_forgotten(handler.path) else (200, told)))

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        with self.changed:
            self.requests.append(("GET", handler.path, dict(handler.headers)))
            if not self.script or self.script.pop(0) != "drop":
                self._answer(handler, self.status, json.dumps(self.figures).encode())
            self.changed.notify_all()

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response(status)
        if status == 503:
            handler.send_header("retry-after", "0")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        try:
            handler.wfile.write(body)
        except OSError:
            pass  # whoever asked has gone


def environment(**variables: str) -> dict[str, str]:
    """This process's environment and `variables`."""
    return {**os.environ, **variables}


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Starts `trio-ws` with its output in pipes."""
    options = {"stdin": subprocess.DEVNULL, "env": environment(), **options}
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_ws", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    started.append(process)
    return process


def finish(process: subprocess.Popen[bytes], stdin: bytes | None = None) -> tuple[int, bytes, str]:
    """Its exit status, standard output and error. It is killed where it does not end in time."""
    with process:
        try:
            out, err = process.communicate(stdin, timeout=WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, out, err.decode()


def trio_ws(*arguments: str, stdin: bytes | None = None, **options: Any) -> tuple[int, bytes, str]:
    """Runs `trio-ws` to its end."""
    if stdin is not None:
        options["stdin"] = subprocess.PIPE
    return finish(start(*arguments, **options), stdin)
