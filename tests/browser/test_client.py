"""client.js in Chromium: what a network, a page and a server may do to it, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest

from .conftest import HARNESS, Server, Tab

pytestmark = pytest.mark.integration
Open = Callable[..., Tab]
LEEWAY = 10  # seconds that the server gives a token beyond its end
SECRET = "a secret that is long enough for SHA-256"


def test_events_arrive_and_are_confirmed(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="arrive")
    tab.wait("c.status.state === 'live'")
    answers = [server.publish("arrive", n, wait="confirmed") for n in range(5)]
    assert all(answer["confirmed_after"] < 1 for answer in answers)
    assert tab.numbers == [0, 1, 2, 3, 4]
    assert tab.js("got[0].critical && got[0].seq === 1 && got[0].ts > 1e9")


def test_confirmed_means_handled(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="slow")
    tab.wait("c.status.state === 'live'")
    tab.js("void c.on('tool_executing', () => new Promise((resolve) => setTimeout(resolve, 300)))")
    server.publish("slow", 0)
    answer = server.publish("slow", 1, wait="confirmed")
    assert answer["confirmed_after"] >= 0.3
    assert tab.js("c.figures.handled") == 2


def test_failing_handler_is_given_the_event_again(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="failing")
    tab.wait("c.status.state === 'live'")
    tab.js("""() => {
      window.tries = [];
      c.on('tool_executing', async (e) => {
        tries.push(e.retry ?? 0);
        if (tries.length < 3) throw new Error('not yet');
      });
    }""")
    answer = server.publish("failing", 0, wait="confirmed", timeout=10)
    assert answer["confirmed_after"] >= 0.4
    assert tab.js("tries") == [0, 1, 2]
    assert tab.numbers == [0], "the other handler did not fail"
    assert tab.js("errors.length") == 2


def test_reload_amid_a_run_goes_on_where_it_was(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="reload")
    for n in range(10):
        server.publish("reload", n)
    tab.wait("got.length >= 5")
    session = tab.js("JSON.parse(sessionStorage.getItem('test')).session")
    tab.js("""() => addEventListener('pagehide', () => localStorage.setItem('before', got.length))""")
    hits = server.get("/v1/stats")["pool"]["pool_hits"]
    for n in range(10, 15):
        server.publish("reload", n)
    tab.page.reload()
    for n in range(15, 20):
        server.publish("reload", n)
    tab.connect(server.url, user="reload")
    tab.wait("got.at(-1)?.payload.n === 19")
    before = int(tab.js("localStorage.getItem('before')"))
    assert tab.numbers == list(range(before, 20)), "neither lost nor repeated"
    assert tab.js("JSON.parse(sessionStorage.getItem('test')).session") == session
    assert server.get("/v1/stats")["pool"]["pool_hits"] == hits + 1
    assert tab.js("gaps") == []


def test_a_page_that_was_left_and_not_kept_goes_on(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="leave")  # the answer of /healthz is not to be stored
    server.publish("leave", 0, wait="confirmed")
    tab.page.goto(server.admin + "/client.js")
    server.publish("leave", 1)
    tab.page.go_back()
    assert tab.js("window.c === undefined")
    tab.connect(server.url, user="leave")
    tab.wait("got.at(-1)?.payload.n === 1")
    assert tab.numbers == [1]


def test_a_page_in_the_back_forward_cache_wakes_and_goes_on(server: Server, open_tab: Open) -> None:
    tab = open_tab(path="/demo.css").connect(server.url, user="back")
    server.publish("back", 0, wait="confirmed")
    tab.js("""() => {
      window.events = [];
      addEventListener('pageshow', (e) => events.push(e.persisted));
      document.addEventListener('freeze', () => events.push('frozen'));
    }""")
    tab.page.goto(server.admin + "/client.js")
    server.wait_parked("back")
    server.publish("back", 1)
    tab.js(
        "void setTimeout(() => history.back(), 0)"
    )  # Playwright's `go_back` waits for a load that does not happen
    tab.page.wait_for_url("**/demo.css", wait_until="commit")
    tab.wait("got.at(-1)?.payload.n === 1")
    assert tab.js("events") == ["frozen", True]
    assert tab.numbers == [0, 1]
    assert tab.js("[c.figures.connections, c.figures.violations, gaps.length]") == [2, 0, 0]


def test_a_hundred_cuts_lose_nothing(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.faulty("cuts"), user="cuts")
    tab.wait("c.status.state === 'live'")
    for n in range(100):
        server.fault("cuts", "cut")
        server.publish("cuts", 2 * n)
        server.publish("cuts", 2 * n + 1, type="note")
        # The network is back at once: else the delays grow, as they should.
        back = "c.status.state === 'offline' && dispatchEvent(new Event('online'))"
        tab.wait(f"{back}, c.figures.connections === {n + 2} && c.status.state === 'live'")
    tab.wait("got.length >= 200")
    assert tab.numbers == list(range(200))
    assert tab.js("[c.figures.violations, c.figures.gaps]") == [0, 0]
    tab.wait("c.figures.handled === 200 && c.figures.acked === 200")
    assert server.get("/v1/users/cuts")["buffer"]["critical_unconfirmed"] == 0


def test_what_will_not_come_is_told_as_a_gap(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.faulty("gap"), user="gap")
    tab.wait("c.status.state === 'live'")
    server.fault("gap", "cut", 60)
    tab.wait("c.status.state === 'offline'")
    for n in range(50):
        server.publish("gap", n, type="note" if n % 5 else "tool_executing")
    server.publish_many("gap", [{"type": "note", "payload": {"n": n}} for n in range(50, 400)])
    server.fault("gap", "cut", 0)
    tab.js("dispatchEvent(new Event('online'))")
    tab.wait("got.at(-1)?.payload.n === 399")
    numbers, gaps = tab.numbers, tab.js("gaps")
    assert numbers == sorted(set(numbers))
    assert [n for n in range(0, 50, 5) if n not in numbers] == [], "a critical event was lost"
    assert len(numbers) + sum(gap["to"] - gap["from"] + 1 for gap in gaps) == 400
    assert {gap["reason"] for gap in gaps} == {"evicted"}
    assert sum(gap["critical"] for gap in gaps) == 0
    assert tab.js("c.figures.violations") == 0


def test_half_open_is_noticed(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.faulty("silent"), user="silent")
    tab.wait("c.status.state === 'live'")
    server.publish("silent", 0, wait="confirmed")
    server.fault("silent", "half_open")
    server.publish("silent", 1)
    tab.wait("got.length === 2")
    assert tab.numbers == [0, 1]
    assert "the server fell silent" in tab.js("states.map((s) => s.reason)")


def test_offline_and_back(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="offline")
    tab.wait("c.status.state === 'live'")
    context = tab.page.context
    context.set_offline(True)
    tab.wait("c.status.state === 'offline'")
    for n in range(3):
        server.publish("offline", n)
    assert tab.numbers == []
    context.set_offline(False)
    tab.wait("got.length === 3", timeout=2)
    assert tab.numbers == [0, 1, 2]


def test_two_tabs_and_a_duplicate_each_have_a_session(server: Server, open_tab: Open) -> None:
    first = open_tab().connect(server.url, user="tabs")
    second = open_tab(first.page.context).connect(server.url, user="tabs")
    server.publish("tabs", 0)
    for tab in (first, second):
        tab.wait("got.length === 1")
    # A duplicate starts with a copy of the sessionStorage.
    copy = first.js("sessionStorage.getItem('test')")
    third = open_tab(first.page.context)
    third.page.evaluate("(copy) => sessionStorage.setItem('test', copy)", copy)
    third.connect(server.url, user="tabs")
    server.publish("tabs", 1)
    for tab in (first, second, third):
        tab.wait("got.length === 2")
        assert tab.numbers == [0, 1]
    assert len(server.get("/v1/users/tabs")["sessions"]) == 3


def test_restarted_server_is_told_as_a_reset(open_tab: Open) -> None:
    server = Server.start()
    try:
        tab = open_tab(origin=server).connect(server.url, user="restart")
        server.publish("restart", 0, wait="confirmed")
        server.stop()
        tab.wait("c.status.state !== 'live'")
        server = Server.start(server.port, server.admin_port)
        server.publish("restart", 1)
        tab.wait("got.length === 2")
        assert tab.js("gaps.map((g) => g.reason)") == ["reset"]
        assert tab.numbers == [0, 1]
        assert server.publish("restart", 2, wait="confirmed")["confirmed_after"] < 1
    finally:
        server.stop()


def test_a_session_that_the_operator_ends_stays_ended(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="ended")
    tab.wait("c.status.state === 'live'")
    [session] = server.get("/v1/users/ended")["sessions"]
    httpx.delete(f"{server.admin}/v1/users/ended/sessions/{session['session']}").raise_for_status()
    tab.wait("c.status.state === 'ended'")
    assert tab.js("c.status.code") == 4403
    assert tab.js("sessionStorage.getItem('test')") is None


def test_messages_are_answered(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="message")
    assert tab.js("c.send('stop', {run: 1}).catch((e) => e.message)") == "no_handler"


def test_close_leaves_nothing_behind(server: Server, open_tab: Open) -> None:
    tab = open_tab().connect(server.url, user="close")
    tab.wait("c.status.state === 'live'")
    server.publish("close", 0, wait="confirmed")
    tab.js("c.close()")
    assert tab.js("[c.status.state, sessionStorage.length]") == ["ended", 0]
    # It said bye, so nothing is parked; the answer to a later client's hello comes after that.
    open_tab().connect(server.url, user="close").wait("c.status.state === 'live'")
    assert len(server.get("/v1/users/close")["sessions"]) == 1


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks for tokens."""
    server = Server.start(TRIO_WS_JWT_SECRET=SECRET, TRIO_WS_INSECURE="0")
    yield server
    assert server.stop() == 0


def connect_with_tokens(tab: Tab, server: Server, tokens: list[str], **options: Any) -> None:
    """Opens the page's client with a token function that gives these, the last one again and again."""
    tab.page.evaluate(
        HARNESS.replace("...options }", "...options, token: async () => (asked.push(Date.now()), "
        "options.tokens.length > 1 ? options.tokens.shift() : options.tokens[0]) }").replace(
            "window.got = []", "window.asked = []; window.got = []"),
        {"url": server.url, "options": {"tokens": tokens, **options}},
    )  # fmt: skip


def token(user: str, seconds: float) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + seconds)}, SECRET)


def test_a_token_is_replaced_before_it_expires(guarded: Server, open_tab: Open) -> None:
    tab = open_tab(origin=guarded)
    first, second = token("tick", 4 - LEEWAY), token("tick", 600)
    over = 1000 * (time.time() + 6)
    connect_with_tokens(tab, guarded, [first, second])
    tab.wait("asked.length === 2", timeout=5)
    tab.wait(f"Date.now() > {over}")
    assert guarded.publish("tick", 0, wait="confirmed")["confirmed_after"] < 1
    assert tab.js("[c.figures.connections, c.status.state]") == [1, "live"]


def test_a_token_that_has_expired_is_replaced_when_it_is_refused(guarded: Server, open_tab: Open) -> None:
    tab = open_tab(origin=guarded)
    connect_with_tokens(tab, guarded, [token("late", -60), token("late", 600)])
    tab.wait("c.status.state === 'live'", timeout=5)
    assert tab.js("[asked.length, states.filter((s) => s.code === 4401).length]") == [2, 1]


def test_no_valid_token_is_the_end(guarded: Server, open_tab: Open) -> None:
    tab = open_tab(origin=guarded)
    connect_with_tokens(tab, guarded, [token("gone", -60)])
    tab.wait("c.status.state === 'ended'", timeout=5)
    assert tab.js("[c.status.code, asked.length]") == [4401, 2]
