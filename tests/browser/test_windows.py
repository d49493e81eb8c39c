"""client.js in a page that nobody looks at: hidden, and frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import CHROMIUM, HARNESS, Server
from .windows import Tab, Window, open_window

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def window() -> Iterator[Window]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: hidden and frozen pages were NOT tested; apt-get install chromium")
    with open_window() as window:
        yield window


def connected(window: Window, server: Server, user: str) -> Tab:
    """A tab with a client in it, which another one then hides."""
    tab = window.open(server.admin + "/demo.css")
    tab.js(f"({HARNESS})({json.dumps({'url': server.url, 'options': {'user': user}})})")
    tab.wait("c.status.state === 'live'")
    tab.js("void document.addEventListener('freeze', () => (window.frozen = true))")
    window.open("about:blank")
    tab.wait("document.hidden")
    return tab


def test_a_hidden_page_acks_at_once(window: Window, server: Server) -> None:
    tab = connected(window, server, "hidden")
    for n in range(3):
        assert server.publish("hidden", n, wait="confirmed")["confirmed_after"] < 0.5
    tab.js("void c.on('note', () => new Promise((done) => setTimeout(done, 100)))")
    server.publish("hidden", 3, type="note")
    tab.wait("c.figures.handled === 4 && c.figures.acked === 4")


def test_a_frozen_page_catches_up_when_it_is_shown(window: Window, server: Server) -> None:
    tab = connected(window, server, "frozen")
    server.publish("frozen", 0, wait="confirmed")
    tab.call("Page.setWebLifecycleState", state="frozen")
    for n in range(1, 20):
        server.publish("frozen", n)
    server.wait_parked("frozen")
    server.publish("frozen", 20)
    window.show(tab)
    tab.call("Page.setWebLifecycleState", state="active")
    tab.wait("got.length === 21")
    assert tab.js("got.map((e) => e.payload.n)") == list(range(21))
    assert tab.js("[frozen, c.figures.violations, gaps.length, c.figures.connections]") == [True, 0, 0, 2]
    tab.wait("c.figures.acked === 21")
    assert server.get("/v1/users/frozen")["buffer"]["critical_unconfirmed"] == 0
