"""The dashboard in Chromium: it shows a real server as it is, says so when it is away, and believes no text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from .conftest import Server

pytestmark = pytest.mark.integration

HOSTILE = "<img src=x onerror=window.pwned=1>&\"'"
ALERT = {
    "name": "slow_response",
    "state": "ok",
    "since": None,
    "value": 0.02,
    "threshold": 1.5,
    "unit": "seconds",
    "summary": "Half of all events were slow.",
}


@attrs.define
class Dashboard:
    """A page, whatever went wrong in it, and what of that is the browser's own remark on a server's answers."""

    page: Any
    admin: str
    problems: list[str] = attrs.Factory(list)
    expected: str = "nothing"

    def show(self, place: str = "") -> Dashboard:
        self.page.goto(f"{self.admin}/{place}")
        return self

    def wait(self, condition: str, timeout: float = 15) -> None:
        """Returns when a JavaScript expression is true; the policy forbids Playwright's own way."""
        state = self.page.evaluate(f"""new Promise((done) => {{
          const end = performance.now() + {timeout * 1000};
          const look = () => ({condition}) ? done() : performance.now() > end
            ? done(document.body.innerText.slice(0, 2000)) : setTimeout(look, 20);
          look();
        }})""")
        assert state is None, f"not in {timeout} s: {condition}; {state}"

    def says(self, selector: str, text: str, timeout: float = 15) -> None:
        """Returns when what is there has that text in it."""
        self.wait(f"document.querySelector({selector!r})?.innerText.includes({text!r})", timeout)

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.id || document.activeElement.innerText")

    @property
    def width(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth")


@pytest.fixture
def dashboard(browser: Any, server: Server) -> Iterator[Callable[..., Dashboard]]:
    """Opens the dashboard of a server; a page may report no error of its own, nor one of its policy."""
    opened = []

    def open_one(admin: str = server.admin, **options: Any) -> Dashboard:
        context = browser.new_context(**options)
        page = context.new_page()
        shown = Dashboard(page, admin)
        problems = shown.problems
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else 0)
        page.on("request", lambda r: problems.append(r.url) if not r.url.startswith((admin, "data:")) else 0)
        opened.append(shown)
        return shown

    yield open_one
    for shown in opened:
        shown.page.context.close()
        assert [text for text in shown.problems if not re.search(shown.expected, text)] == []


def canned(dashboard: Dashboard, path: str, body: Any) -> None:
    """Answers a call in the server's place."""
    dashboard.page.route(
        re.compile(re.escape(dashboard.admin + path) + r"(\?.*)?$"),
        lambda route: route.fulfill(status=200, content_type="application/json", body=json.dumps(body)),
    )


def test_it_shows_the_figures_of_a_server_at_work(
    dashboard: Callable[..., Dashboard], server: Server
) -> None:
    shown = dashboard().show()
    shown.says("#pill", "up")
    shown.wait("document.querySelector('.verdict h1').innerText.length > 10")
    shown.wait("document.querySelectorAll('.panel .uplot canvas').length === 6")
    held = server.get("/v1/stats")["delivery"]["events_accepted"]
    server.publish("dashboard", 1)
    shown.wait(f"Number(document.querySelector('.facts dd').innerText.replace(',', '')) > {held}")
    shown.wait("document.querySelector('.plot').getAttribute('aria-label').includes('sent')")
    assert shown.page.locator("#demo").is_visible()
    shown.says(".accounts .note", "accounted for")
    shown.says(".store", "Kept in ")


def test_the_charts_are_full_when_a_page_is_opened(dashboard: Callable[..., Dashboard]) -> None:
    first = dashboard().show()
    first.wait("document.querySelectorAll('.uplot').length === 6")
    plot = first.page.locator(".plot").first
    plot.focus()
    first.wait("document.querySelector('.when').innerText === 'now'")
    for _ in range(2):
        first.page.keyboard.press("ArrowLeft")
    first.wait("/^\\d\\d:\\d\\d:\\d\\d$/.test(document.querySelector('.when').innerText)")
    first.wait("/^\\d\\d:\\d\\d:\\d\\d: sent/.test(document.querySelector('.chart .sr').textContent)")
    first.page.keyboard.press("Escape")
    first.wait("document.querySelector('.when').innerText === 'now'")


def streamed(shown: Dashboard, scope: str, *figures: dict[str, Any]) -> None:
    """Answers the stream in the server's place: its own history, then these figures."""
    with httpx.stream("GET", shown.admin + "/v1/stream?history=true") as answer:
        head = next(chunk for chunk in answer.iter_text() if "event: history" in chunk)
    history = next(line for line in head.split("\n") if line.startswith("data: "))
    events = [history.join(["event: history\n", ""]), *[f"data: {json.dumps(each)}" for each in figures]]
    body = "".join(event + "\n\n" for event in events)
    shown.page.route(
        f"**/v1/stream*scope={scope}",
        lambda route: route.fulfill(content_type="text/event-stream", body=body),
    )


def test_nodes_of_a_cluster_are_shown_and_it_is_chosen_between_one_and_all(
    dashboard: Callable[..., Dashboard], server: Server
) -> None:
    shown = dashboard()
    canned(shown, "/dashboard/about", {"key": False, "demo": False, "cluster": True})
    cluster = {"nodes": 2, "owned": 7, "suspended": False}
    figures = {**server.get("/v1/stats"), "cluster": cluster, "at": 1_700_000_002.0}
    node = {"node": "n1/a", "name": HOSTILE, "address": None, "version": "1", "state": "serving", "left": 1.9}
    node |= {"uptime": 70, "connections": 12, "users": 8, "owned": 7, "held": 0, "bus_delay_p99": 0.004}
    silent = {**dict.fromkeys((*node, "accepted", "cpu")), "node": "n2/b", "state": "missing", "left": 1.4}
    before = {**node, "accepted": 100, "cpu": 5.0}
    after = {**node, "accepted": 340, "cpu": 6.0}
    streamed(
        shown,
        "cluster",
        {**figures, "nodes": [before, silent]},
        {**figures, "nodes": [after, silent], "at": figures["at"] + 2},
    )
    streamed(shown, "node", figures)
    shown.show()
    shown.says(".nodes", "120")
    rows = shown.page.locator(".nodes tbody tr")
    told = [text.replace("\u00a0", " ") for text in rows.nth(0).locator("th, td").all_inner_texts()]
    assert told == [HOSTILE, "serving", "1.9 s", "50 %", "12", "7", "120 /s", "0", "4 ms", "1 min 10 s"]
    assert rows.nth(1).locator("td").nth(3).inner_text() == "\u2013"
    verdict = """async (stats) => (await import("/dashboard/verdict.js")).judge({ link: { link: "live" }, stats })"""
    tone, sentence, why = shown.page.evaluate(verdict, {**figures, "nodes": [after, silent]})
    assert (tone, sentence) == ("warn", "1 node of 2 does not serve.")
    assert why.startswith("n2/b is missing")
    tone, sentence, _ = shown.page.evaluate(verdict, {**figures, "cluster": {**cluster, "suspended": True}})
    assert (tone, sentence) == ("bad", "This node accepts nothing.")
    alone = [{**after, "state": "suspended"}, {**silent, "state": "unknown"}]
    tone, sentence, _ = shown.page.evaluate(verdict, {**figures, "nodes": alone})
    assert (tone, sentence) == ("bad", "This node accepts nothing.")
    shown.page.get_by_text("This node").click()
    shown.says(".overview", "One of 2 nodes; it has the logs of 7 users.")
    assert not shown.page.locator(".nodes").is_visible()
    shown.page.reload()
    shown.says(".overview", "One of 2 nodes")
    assert shown.page.get_by_label("This node").is_checked()


def test_an_alert_that_fires_turns_its_card_and_is_said(
    dashboard: Callable[..., Dashboard], server: Server
) -> None:
    shown = dashboard()
    stats = {**server.get("/v1/stats"), "at": 1_700_000_002.0}
    firing = {**ALERT, "state": "firing", "since": 1_699_999_942.0, "value": 2.5}
    streamed(shown, "node", *({**stats, "alerts": [alert]} for alert in (ALERT, firing)))
    shown.show()
    shown.wait("document.querySelector('.alert')?.dataset.state === 'firing'")
    card = shown.page.locator(".alert").inner_text()
    for told in ("Response time", "firing", "2.5", "fires above 1.5", "for 1", ALERT["summary"]):
        assert told in card, card
    shown.wait("document.querySelector('#alarm').textContent.startsWith('Alert: Response time')")


@contextmanager
def elsewhere(path: Path) -> Iterator[None]:
    """For as long as the block lasts, a file is not at its place."""
    path.rename(path.with_name("away"))
    yield
    path.with_name("away").rename(path)


def test_a_server_that_is_away_or_cannot_write_is_shown_so_until_it_is_back(
    dashboard: Callable[..., Dashboard], tmp_path: Path
) -> None:
    database = tmp_path / "it.db"
    mortal = Server.start(store=f"sqlite:{database}")
    shown = dashboard(mortal.admin).show()
    shown.expected = "net::ERR_"
    shown.says("#pill", "up")
    with elsewhere(database):
        shown.says(".verdict h1", "Nothing durable is accepted.")
        shown.says(".store", "The store fails: ")
    shown.says(".store", "Kept in ")
    mortal.stop()
    shown.says(".verdict h1", "does not answer")
    shown.says("#pill", "last seen")
    assert shown.page.evaluate("getComputedStyle(document.querySelector('.panels')).opacity") == "0.5"
    back = Server.start(mortal.port, mortal.admin_port)
    try:
        shown.says("#pill", "up")
        shown.wait("document.body.dataset.link === 'live'")
        shown.says("#said", "answers again")
    finally:
        back.stop()


def test_the_key_is_asked_for_and_kept_for_the_tab(dashboard: Callable[..., Dashboard]) -> None:
    locked = Server.start(TRIO_WS_API_KEY="geheim-ß")
    try:
        shown = dashboard(locked.admin).show()
        shown.expected = "status of 401|net::ERR_"
        shown.page.locator("#key").fill("wrong")
        shown.page.keyboard.press("Enter")
        shown.says(".dialog p", "not the right one")
        shown.page.locator("#key").fill("geheim-ß")
        shown.page.keyboard.press("Enter")
        shown.says("#pill", "up")
        shown.page.reload()
        shown.says("#pill", "up")
        assert shown.page.locator("dialog").count() == 0
        assert "geheim" not in shown.page.evaluate("JSON.stringify(localStorage) + location")
    finally:
        locked.stop()


def events_of(dashboard: Dashboard, user: str, event_id: str, kind: str) -> None:
    """One user with one event, which waits."""
    path = "/v1/users/" + dashboard.page.evaluate("encodeURIComponent", user)
    head = {"user": user, "epoch": "e"}
    event = {"seq": 1, "id": event_id, "type": kind, "state": "sent", "critical": True}
    steps = [
        {"at": 1_700_000_000.0, "step": "accepted"},
        {"at": 1_700_000_000.1, "step": "sent", "session": "abcdefghijklmnop"},
        {"at": 1_700_000_000.6, "step": "redelivered", "session": "abcdefghijklmnop", "retry": 1},
    ]
    canned(dashboard, f"{path}/runs", {"runs": runs_named(kind)})
    row = {**event, "ts": 1_700_000_000.0, "size": 100, "confirmed_after": None}
    user_row = {"user": user, "connections": 0, "sessions": 1, "held": 1, "lag": 1}
    canned(dashboard, "/v1/users", {"users": [user_row], "more": False})
    canned(dashboard, f"{path}/events", {**head, "head": 1, "events": [row]})
    quoted = dashboard.page.evaluate("encodeURIComponent", event_id)
    canned(dashboard, f"{path}/events/{quoted}", {**head, **event, "steps": steps})


def runs_named(name: str) -> list[dict[str, Any]]:
    """A run that is at work and asks something, and one that has failed, of which everything is called so."""
    run = {"run": name, "name": name, "started": 1_700_000_000.0, "text": "", "text_from": 0, "calls": 1}
    tool, question = {"call": 1, "tool": name, "since": 1_700_000_000.0}, {"question": name, "prompt": name}
    open_one = {**run, "status": "running", "progress": 0.5, "tools": [tool], "questions": [question]}
    failed = {
        **run,
        "run": name[:-1],
        "status": "failed",
        "tools": [],
        "questions": [],
        "ended": 1_700_000_009.5,
    }
    return [{**failed, "error": {"kind": name, "message": name}}, open_one]


def test_from_the_search_to_the_story_of_an_event(
    dashboard: Callable[..., Dashboard], server: Server
) -> None:
    told = server.publish("doris", 1)
    shown = dashboard().show()
    shown.says("#pill", "up")
    shown.page.keyboard.press("/")
    assert shown.focused() == "find"
    shown.page.keyboard.type("dori")
    shown.wait("document.querySelector('#found').innerText.startsWith('doris')")  # and no others before it
    shown.page.keyboard.press("ArrowDown")
    assert shown.page.locator("#find").get_attribute("aria-activedescendant") == "found-0"
    shown.page.keyboard.press("Enter")
    shown.says("main h1", "doris")
    shown.says(".conclusion", "Not connected. 1 event waits, 1 critical and not confirmed.")
    shown.page.get_by_role("link", name="tool_executing").click()
    shown.says(".story .conclusion", "It waits: it was sent to no session yet")
    shown.says(".steps li", "Accepted")
    assert shown.page.url.endswith(f"#/users/doris/events/{told['id']}")
    shown.page.reload()
    shown.says(".story h2", "tool_executing")
    shown.page.get_by_role("link", name="Close").click()
    shown.wait("!document.querySelector('.story')")


def test_the_story_goes_on_until_a_client_has_processed_it(
    dashboard: Callable[..., Dashboard], open_tab: Callable[..., Any], server: Server
) -> None:
    told = server.publish("flora", 1)
    shown = dashboard().show(f"#/users/flora/events/{told['id']}")
    shown.says(".story .conclusion", "It waits")
    open_tab().connect(server.url, user="flora").wait("got.length === 1")
    shown.says(".story .conclusion", "A client has processed it")
    shown.says(".steps", "Confirmed")
    shown.says(".events .chip", "settled")


def test_what_was_sent_in_vain_is_told(dashboard: Callable[..., Dashboard], server: Server) -> None:
    server.publish("dora", 1)
    shown = dashboard()
    events_of(shown, "dora", "1", "tool_executing")
    shown.show("#/users/dora/events/1")
    shown.says(".story .conclusion", "sent 2 times, and no client has said that it processed it")
    assert shown.page.locator(".steps li").count() == 3


def test_how_the_runs_of_a_user_stand(dashboard: Callable[..., Dashboard], server: Server) -> None:
    runs = "/v1/users/ruth/runs"
    for n in range(7):
        server.post(runs, {"run": f"old {n}"})
        server.post(f"{runs}/old {n}/close", {"outcome": "completed"})
    server.post(runs, {"run": "printer"})
    server.post(
        f"{runs}/printer/close", {"outcome": "failed", "error": {"kind": "Jam", "message": "No paper."}}
    )
    server.post(runs, {"run": "r1", "name": HOSTILE})
    tool = {"type": "tool_executing", "payload": {"call": 1, "tool": "search"}}
    server.post(f"{runs}/r1/events", tool)
    server.post(f"{runs}/r1/events", {"type": "agent_progress", "payload": {"fraction": 0.4}})
    server.post(f"{runs}/r1/questions", {"prompt": HOSTILE})
    shown = dashboard().show("#/users/ruth")
    rows = shown.page.locator(".runs tbody tr")
    shown.wait(
        "document.querySelectorAll('.runs tbody tr').length === 6"
    )  # the open one, and five that are over
    assert [text.strip() for text in rows.nth(0).locator("td, th").all_inner_texts()[:4]] == [
        f"{HOSTILE}r1",
        "running",
        f"search\nasks: {HOSTILE}",
        "40\u00a0%",
    ]
    assert "failed\tJam: No paper." in rows.nth(1).inner_text()
    shown.page.get_by_role("button", name="3 runs before").click()
    shown.wait("document.querySelectorAll('.runs tbody tr').length === 9")
    server.post(f"{runs}/r1/close", {"outcome": "cancelled"})
    shown.says(".runs tbody .chip", "cancelled")
    assert not shown.page.locator(".asks li").count()
    assert shown.page.evaluate("window.pwned") is None


def test_hostile_names_are_text(dashboard: Callable[..., Dashboard], server: Server) -> None:
    with server_client(server) as client:
        client.post(f"/v1/users/{quote(HOSTILE)}/events", json={"type": HOSTILE, "id": HOSTILE})
    shown = dashboard().show("#/users")
    shown.says(".table", HOSTILE)
    shown.page.get_by_role("link", name=HOSTILE).click()
    shown.says("main h1", HOSTILE)
    shown.page.get_by_role("rowheader").get_by_role("link", name=HOSTILE).click()
    shown.says(".story h2", HOSTILE)
    shown.page.locator("#find").fill("<")
    shown.says("#found", HOSTILE)
    assert shown.page.evaluate("window.pwned") is None
    assert shown.page.locator("img").count() == 0


def quote(text: str) -> str:
    from urllib.parse import quote as percent

    return percent(text, safe="")


def server_client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.admin, trust_env=False)


def test_a_session_is_ended_after_a_question(
    dashboard: Callable[..., Dashboard], open_tab: Callable[..., Any], server: Server
) -> None:
    tab = open_tab().connect(server.url, user="erin")
    tab.wait("c.status.state === 'live'")
    shown = dashboard().show("#/users/erin")
    end = shown.page.get_by_role("button", name=re.compile("End session"))
    end.click()
    shown.page.get_by_role("button", name="Leave it").click()
    assert tab.js("c.status.state") == "live"
    end.click()
    shown.page.get_by_role("button", name="End it").click()
    tab.wait("c.status.state === 'ended'")
    shown.wait("!document.querySelector('.sessions li')")


@pytest.mark.parametrize("place", ["", "#/users", "#/users/" + "w" * 128])
def test_it_fits_a_phone(dashboard: Callable[..., Dashboard], place: str) -> None:
    shown = dashboard(viewport={"width": 360, "height": 740})
    events_of(shown, "w" * 128, "w" * 128, "w" * 128)
    canned(shown, "/v1/users/" + "w" * 128, {"error": {}} | DESCRIBED)
    shown.show(place).says("#pill", "up")
    shown.wait("document.querySelector('.panel')")
    shown.wait("!location.hash.includes('www') || document.querySelectorAll('.runs .chip').length === 2")
    assert shown.width <= 360


DESCRIBED = {
    "user": "w" * 128,
    "connections": 1,
    "head": 10**9,
    "lag": 10**6,
    "sessions": [
        {
            "session": "s" * 24,
            "state": "connected",
            "plain": False,
            "acked": 10**9,
            "sent": 10**9,
            "lag": 10**6,
            "age": 10**6,
            "parked_for": None,
            "blocked": True,
        }
    ],
    "buffer": {
        "events": 200,
        "bytes": 10**6,
        "held": 200,
        "settled": 0,
        "critical_unconfirmed": 200,
        "by_priority": {"low": 1, "normal": 2, "high": 3, "critical": 200},
        "publishers_waiting": 3,
    },
}


def test_it_is_walked_by_keyboard(dashboard: Callable[..., Dashboard]) -> None:
    shown = dashboard().show()
    shown.says("#pill", "up")
    seen = []
    for _ in range(9):
        shown.page.keyboard.press("Tab")
        seen.append(shown.focused())
        outline = shown.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        radio = shown.page.evaluate("document.activeElement.type === 'radio'")
        assert outline != "none" or radio, seen
    assert seen[0] == "Skip to the figures"
    assert [name for name in ("Users", "find", "theme") if name not in seen] == []
    theme = shown.page.locator("#theme")
    theme.press("Enter")
    theme.press("Enter")
    assert shown.page.evaluate("document.documentElement.dataset.theme") == "dark"
    shown.page.reload()
    shown.wait("document.documentElement.dataset.theme === 'dark'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["", "#/users", "#/users/dora/events/1"])
def test_axe_finds_nothing(
    dashboard: Callable[..., Dashboard], axe: str, server: Server, place: str, scheme: str
) -> None:
    server.publish("dora", 1)
    # Only so can axe be put into the page: its policy takes no script from elsewhere.
    shown = dashboard(color_scheme=scheme, bypass_csp=True)
    events_of(shown, "dora", "1", "tool_executing")
    shown.show(place).says("#pill", "up")
    shown.wait("document.querySelector('.steps li, .uplot, .table td')")
    shown.wait("!location.hash.includes('dora') || document.querySelectorAll('.runs .chip').length === 2")
    shown.page.evaluate(axe)
    found = shown.page.evaluate("axe.run()")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
