"""Chromium's own WebSocket, with no client.js: as a plain client, and with protocol v1 spoken by hand."""

from __future__ import annotations

import pytest

from .conftest import Server
from .test_client import Open

pytestmark = pytest.mark.integration

OPEN = """([url, protocols]) => new Promise((opened) => {
  window.said = []; window.ended = null;
  window.ws = new WebSocket(url, protocols);
  ws.onmessage = (e) => said.push(...[JSON.parse(e.data)].flat());
  ws.onclose = (e) => { ended = e.code; opened("closed"); };
  ws.onopen = () => opened(ws.protocol);
})"""


def test_plain(server: Server, open_tab: Open) -> None:
    tab = open_tab()
    assert tab.page.evaluate(OPEN, [server.url + "?user=bare", []]) == ""
    answers = [server.publish("bare", n, wait="confirmed") for n in range(3)]
    assert all("confirmed_after" in answer for answer in answers)
    tab.wait("said.length === 3")
    assert tab.js("said.map((e) => [Object.keys(e).sort().join(), e.payload.n])") == [
        ["id,payload,ts,type", n] for n in range(3)
    ]
    tab.js("for (let n = 0; n < 10; n++) ws.send('no message')")
    tab.wait("ended === 4400")


def test_v1_by_hand(server: Server, open_tab: Open) -> None:
    tab = open_tab()
    assert tab.page.evaluate(OPEN, [server.url, ["other", "trio-ws.v1"]]) == "trio-ws.v1"
    tab.js("ws.send(JSON.stringify({t: 'hello', user: 'by-hand'}))")
    tab.wait("said.some((f) => f.t === 'live')")
    server.publish("by-hand", 7)
    tab.wait("said.some((f) => f.t === 'event' && f.payload.n === 7)")
    tab.js("ws.send(JSON.stringify([{t: 'ack', seq: 1}, {t: 'ping'}]))")
    tab.wait("said.some((f) => f.t === 'pong')")
    tab.js("ws.send(JSON.stringify({t: 'bye'}))")
    tab.wait("ended === 1000")


def test_a_refusal_in_http_is_only_a_broken_connection(server: Server, open_tab: Open) -> None:
    tab = open_tab()
    assert tab.page.evaluate(OPEN, [server.url.replace("/ws", "/elsewhere"), []]) == "closed"
    assert tab.js("ended") == 1006
