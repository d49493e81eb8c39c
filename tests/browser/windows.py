"""Chromium without Playwright, whose pages believe themselves in sight at all times: here a tab hides the others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import httpx
from websockets.sync.client import ClientConnection, connect

from .conftest import CHROMIUM, FLAGS

TIMEOUT = 20.0


@attrs.define
class Tab:
    """One tab, over the DevTools protocol."""

    id: str
    _socket: ClientConnection
    _calls: int = 0

    def call(self, method: str, **params: Any) -> Any:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=TIMEOUT))
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return answer["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Returns when a JavaScript expression is true."""
        done = self.js(f"""new Promise((done) => {{
          const end = performance.now() + 15000;
          const look = () => ({condition}) ? done(true) : performance.now() > end ? done(false) : setTimeout(look, 20);
          look();
        }})""")
        assert done, condition


@attrs.define
class Window:
    """A window of Chromium."""

    _address: str
    _sockets: list[ClientConnection] = attrs.field(factory=list)

    def open(self, url: str) -> Tab:
        """A new tab, in front of the others."""
        made = httpx.put(f"{self._address}/json/new?{url}", timeout=TIMEOUT).raise_for_status().json()
        self._sockets.append(connect(made["webSocketDebuggerUrl"], max_size=None).__enter__())
        tab = Tab(made["id"], self._sockets[-1])
        # Asked anew each time: what waits in the page would not survive that the document changes.
        deadline = time.monotonic() + TIMEOUT
        while tab.js("`${location.href} ${document.readyState}`") != f"{url} complete":
            assert time.monotonic() < deadline, f"{url} did not load"
            time.sleep(0.05)
        return tab

    def show(self, tab: Tab) -> None:
        """Brings a tab to the front."""
        httpx.get(f"{self._address}/json/activate/{tab.id}", timeout=TIMEOUT).raise_for_status()

    def close(self) -> None:
        for socket in self._sockets:
            socket.__exit__(None, None, None)


@contextmanager
def open_window() -> Iterator[Window]:
    """A window for the length of a block."""
    assert CHROMIUM is not None
    folder = tempfile.mkdtemp()
    command = [CHROMIUM, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", *FLAGS]
    process = subprocess.Popen([*command, "about:blank"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while not (found := re.search(r"listening on ws://([^/]+)/", process.stderr.readline())):
            assert process.poll() is None, "Chromium did not start"
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        window = Window(f"http://{found[1]}")
        yield window
        window.close()
    finally:
        process.terminate()
        process.wait(timeout=20)
        process.stderr.close()
        shutil.rmtree(folder, ignore_errors=True)
