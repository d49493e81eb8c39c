"""The examples of the documentation, run as they are written: in Chromium, against the real server."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..npm import MODULES, need_packages, run
from .conftest import Server, Tab

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
STATIC = ROOT / "trio_ws" / "admin" / "static"
CLIENT = STATIC / "client.js"


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a word about it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve(browser: Any) -> Iterator[Callable[[Path], Tab]]:
    """Opens a page on a folder that a file server of its own serves, as an application's would."""
    servers: list[ThreadingHTTPServer] = []
    pages: list[Any] = []

    def open_page(folder: Path) -> Tab:
        files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        servers.append(files)
        threading.Thread(target=files.serve_forever, daemon=True).start()
        pages.append(browser.new_page())
        pages[-1].goto(f"http://127.0.0.1:{files.server_port}/")
        return Tab(pages[-1])

    yield open_page
    for page in pages:
        page.close()
    for files in servers:
        files.shutdown()
        files.server_close()


def publish_a_run(server: Server, user: str, run: int, words: str) -> None:
    path = f"/v1/users/{user}/events"
    server.post(path, {"type": "agent_started", "payload": {"run": run}})
    for word in words.split():
        server.post(path, {"type": "text", "payload": {"run": run, "text": word + " "}, "merge": "append"})


def complete(server: Server, user: str, run: int) -> Any:
    body = {"type": "agent_completed", "payload": {"run": run}}
    return server.post(f"/v1/users/{user}/events", body, wait="confirmed")


def test_without_a_framework(server: Server, serve: Callable[[Path], Tab], tmp_path: Path) -> None:
    html = (EXAMPLES / "plain" / "index.html").read_text()
    html = html.replace("ws://127.0.0.1:8765/ws", server.faulty("plain")).replace('"ada"', '"plain"')
    (tmp_path / "index.html").write_text(html)
    for file in (EXAMPLES / "plain" / "app.js", CLIENT, STATIC / "runs.js"):
        shutil.copy(file, tmp_path)
    runs = "/v1/users/plain/runs"
    tell = partial(server.post, f"{runs}/r1/events")
    server.post(runs, {"run": "r1", "name": "writer"})
    tell({"type": "agent_delta", "payload": {"text": "one "}})
    tab = serve(tmp_path)
    tab.wait("document.querySelector('#status').textContent === 'live'")
    tab.wait(
        "document.querySelector('li p').textContent === 'one '"
    )  # which was said before the page was there
    server.fault("plain", "cut", 0.5)
    tab.wait("document.querySelector('#status').textContent.startsWith('offline, next attempt at ')")
    tell({"type": "agent_delta", "payload": {"text": "two"}})
    tell({"type": "tool_executing", "payload": {"call": 1, "tool": "search"}})
    tell({"type": "agent_progress", "payload": {"fraction": 0.4}})
    tab.wait("document.querySelector('progress').value === 0.4")
    assert (
        tab.js("document.querySelector('li').innerText.split(/\\s+/).join(' ')")
        == "writer search Cancel one two"
    )
    tab.page.click("text=Cancel")
    tab.wait("document.querySelector('li button').disabled")
    assert server.get(f"{runs}/r1")["status"] == "cancelling"
    server.post(f"{runs}/r1/close", {"outcome": "cancelled"})
    tab.wait("document.querySelector('li span').textContent === 'cancelled'")
    assert not tab.js("document.querySelector('li button').checkVisibility()")
    tab.js("document.querySelector('li button').click()")  # as if it had ended in this very moment
    tab.wait("document.querySelector('#answer').textContent === 'refused: run_ended'")


def test_react(server: Server, serve: Callable[[Path], Tab], tmp_path: Path) -> None:
    need_packages()
    run(
        MODULES / ".bin" / "esbuild",
        EXAMPLES / "react" / "app.js",
        "--bundle",
        "--format=esm",
        "--jsx=automatic",
        "--loader:.js=jsx",
        f"--alias:trio-ws-client={CLIENT}",
        f"--alias:react={MODULES / 'react'}",
        f"--alias:react-dom={MODULES / 'react-dom'}",
        f"--outfile={tmp_path / 'bundle.js'}",
        cwd=MODULES,
    )
    (tmp_path / "index.html").write_text(
        f"<!doctype html><div id='root' data-url='{server.faulty('react')}' data-user='react'></div>"
        "<script type='module' src='bundle.js'></script>"
    )
    tab = serve(tmp_path)
    tab.wait("document.querySelector('#status')?.textContent === 'live'")
    publish_a_run(server, "react", 7, "Looking into that.")
    tab.wait("document.querySelector('li')?.textContent === 'run 7: Looking into that.  …'")
    server.fault("react", "cut")
    assert complete(server, "react", 7)["confirmed_after"] < 5
    tab.wait("document.querySelector('li').textContent === 'run 7: Looking into that.  ✓'")
    server.fault("react", "cut", 60)
    tab.wait("document.querySelector('#status').textContent === 'offline'")
    server.publish_many("react", [{"type": "progress", "payload": {"run": 7, "n": n}} for n in range(400)])
    server.fault("react", "cut", 0)
    tab.js("dispatchEvent(new Event('online'))")
    tab.wait("document.querySelector('#lost')?.textContent.endsWith('events will not come.')")
