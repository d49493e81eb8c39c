"""Chromium, driven by Playwright, against a real server process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    pytest.skip(
        "no playwright here: the browser tests were NOT run; pip install playwright", allow_module_level=True
    )

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_TIMEOUT = 20.0
# The page's side: everything that the client tells is kept, and `wait` ends when a condition holds.
HARNESS = """async ({url, options}) => {
  const { connect } = await import("/client.js");
  window.got = []; window.gaps = []; window.states = []; window.errors = [];
  window.c = connect(url, { key: "test", onError: (e) => errors.push(String(e)), ...options });
  c.on("*", (e) => got.push(e));
  c.on("gap", (g) => gaps.push(g));
  c.on("state", (s) => states.push(s));
}"""


@attrs.define
class Server:
    """A `trio-ws demo` process; its agents work for other users than the tests'.

    Attributes:
      port, admin_port, faulty_port: the WebSocket, the admin API, the WebSocket over a network that can be broken.
      http: what speaks to the admin API.
    """

    process: subprocess.Popen[str]
    _reader: threading.Thread
    port: int
    admin_port: int
    faulty_port: int = 0
    http: httpx.Client = attrs.field(factory=lambda: httpx.Client(timeout=20))

    @classmethod
    def start(cls, port: int = 0, admin_port: int = 0, *, store: str = "memory", **environ: str) -> Server:
        """Starts one; `environ` are settings."""
        code = "from trio_ws.cli.demo import command; command()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "--store", store, "--pace", "6"]
            + ["--port", str(port), "--admin-port", str(admin_port)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        assert process.stderr is not None
        timer = threading.Timer(START_TIMEOUT, process.kill)
        timer.start()
        said = ""
        ports: list[int] = []
        for pattern in (
            r"listening on ws://.*:(\d+)/ws",
            r"admin on http://.*:(\d+)",
            r"demo page on (http)",
        ):
            while not (found := re.search(pattern, said)):
                line = process.stderr.readline()
                assert line, f"the server did not start: {said}"
                said += line
            if found[1].isdigit():
                ports.append(int(found[1]))
        timer.cancel()
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        server = cls(process, reader, *ports)
        server.faulty_port = server.get("/demo/about")["faulty_port"]
        return server

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; returns the exit status."""
        self.http.close()
        self.process.send_signal(how)
        status = self.process.wait(timeout=20)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def faulty(self, link: str) -> str:
        """The WebSocket's address over a link that `fault` can break."""
        return f"ws://127.0.0.1:{self.faulty_port}/ws?link={link}"

    def get(self, path: str) -> Any:
        return self.http.get(self.admin + path).raise_for_status().json()

    def post(self, path: str, body: Any, **query: Any) -> Any:
        answer = self.http.post(self.admin + path, json=body, params=query)
        return answer.raise_for_status().json()

    def publish(self, user: str, n: int, *, type: str = "tool_executing", **query: Any) -> Any:
        """One event, whose payload is ``{"n": n}``."""
        return self.post(f"/v1/users/{user}/events", {"type": type, "payload": {"n": n}}, **query)

    def publish_many(self, user: str, events: list[dict[str, Any]]) -> None:
        """A batch of events."""
        lines = "\n".join(json.dumps({"user": user, **event}) for event in events)
        self.http.post(self.admin + "/v1/events", content=lines).raise_for_status()

    def wait_parked(self, user: str) -> None:
        """Returns when the user's only session is parked."""
        deadline = time.monotonic() + 15
        while [session["state"] for session in self.get(f"/v1/users/{user}")["sessions"]] != ["parked"]:
            assert time.monotonic() < deadline, "the server never noticed"
            time.sleep(0.05)

    def fault(self, link: str, fault: str, seconds: float = 0) -> None:
        self.post("/demo/network", {"link": link, "fault": fault, "seconds": seconds})


@attrs.frozen
class Tab:
    """One page with a client in it."""

    page: Page

    def connect(self, url: str, **options: Any) -> Tab:
        """Opens the page's client."""
        self.page.evaluate(HARNESS, {"url": url, "options": options})
        return self

    def wait(self, condition: str, timeout: float = 15) -> None:
        """Returns when a JavaScript expression is true."""
        # Playwright's own `wait_for_function` needs eval in the page, which the demo's policy forbids.
        state = self.page.evaluate(f"""new Promise((done) => {{
          const client = window.c ?? window.client;
          const end = performance.now() + {timeout * 1000};
          const look = () => ({condition}) ? done() : performance.now() > end
            ? done(JSON.stringify([client?.status, client?.figures, window.gaps])) : setTimeout(look, 20);
          look();
        }})""")
        assert state is None, f"not in {timeout} s: {condition}; {state}"

    def js(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    @property
    def numbers(self) -> list[int]:
        """The payloads' numbers, as they were handled."""
        found: list[int] = self.js("got.map((e) => e.payload.n)")
        return found


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests; each takes a user of its own."""
    server = Server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one file, since while it is there, the loop that Playwright runs in this thread keeps all others out."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: the browser tests were NOT run; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's source, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm here: accessibility was NOT checked; install npm")
    done = subprocess.run(
        ["npm", "install", "--silent", "--no-save", "axe-core@4"],
        cwd=folder,
        capture_output=True,
        timeout=120,
    )
    source = Path(folder, "node_modules", "axe-core", "axe.min.js")
    if done.returncode or not source.exists():
        pytest.skip("npm could not install axe-core: accessibility was NOT checked")
    return source.read_text()


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[Callable[..., Tab]]:
    """Opens a tab on the server's origin, in a browser context of its own unless one is given."""
    contexts = []

    def open_one(context: Any = None, origin: Server = server, path: str = "/healthz") -> Tab:
        if context is None:
            context = browser.new_context()
            contexts.append(context)
        page = context.new_page()
        page.goto(origin.admin + path)
        return Tab(page)

    yield open_one
    for context in contexts:
        context.close()
