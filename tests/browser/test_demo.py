"""The demo page: it shows what it says, by mouse, by keyboard and on a phone, and has runs answered and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Server, Tab

pytestmark = pytest.mark.integration


@pytest.fixture
def open_demo(browser: Any, server: Server) -> Iterator[Callable[[], Tab]]:
    """Opens the page for bob; it must not report an error of its own."""
    contexts, problems = [], list[str]()

    def open_one() -> Tab:
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: problems.append(message.text) if "policy" in message.text.lower() else 0,
        )
        page.goto(f"{server.admin}/demo?user=bob")
        tab = Tab(page)
        tab.wait("window.client?.status.state === 'live'")
        return tab

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def demo(open_demo: Callable[[], Tab]) -> Tab:
    return open_demo()


def tell_both(server: Server, text: str) -> None:
    """A critical event, also while the agents wait for an answer; the bare WebSocket is another user's."""
    for user in ("bob", "bob-bare"):
        server.post(f"/v1/users/{user}/events", {"type": "agent_thinking", "payload": {"text": text}})


def test_runs_are_shown_as_they_progress(demo: Tab) -> None:
    demo.wait("document.querySelector('.ours .run.completed .answer')?.textContent.length > 30", timeout=30)
    assert demo.page.locator("#badge").inner_text().strip() == "live"
    assert demo.page.locator("nav [aria-current]").inner_text() == "bob"
    assert demo.page.locator(".ours .run .tool").count() > 0


def test_a_cut_costs_the_bare_websocket_events_and_ours_none(demo: Tab, server: Server) -> None:
    demo.wait("bare.open")
    tell_both(server, "before")
    demo.wait("bare.since !== undefined")
    # Of attempts with full jitter one may fall right before the network is back, and the next 16 s after it.
    demo.js("void (Math.random = () => 0.3)")
    demo.page.click("#away")
    demo.wait("client.status.state === 'offline'")
    tell_both(server, "meanwhile")
    demo.wait("document.querySelector('#badge').textContent.includes('next attempt in')")
    demo.wait("client.status.state === 'live'")
    demo.wait("bare.missed > 0")
    assert demo.js("client.figures.violations") == 0
    demo.wait("document.querySelector('#figures').textContent.includes('last recovery') && ours.lost === 0")
    demo.wait("/[0-9] m?s/.test(document.querySelector('#figures').textContent)")


def test_half_open_leaves_the_bare_websocket_open_and_deaf(demo: Tab, server: Server) -> None:
    demo.wait("bare.open")
    tell_both(server, "before")
    demo.wait("bare.since !== undefined")
    demo.page.click("#half")
    demo.wait("client.figures.connections === 2", timeout=10)
    tell_both(server, "meanwhile")
    demo.wait("document.querySelector('#bare-badge').textContent === 'open, but nothing comes'")
    assert demo.js("[bare.open, bare.reconnects, bare.missed > 0, ours.lost]") == [True, 0, True, 0]


def test_what_was_confirmed_is_shown_and_the_agent_knows_it(demo: Tab) -> None:
    demo.wait(
        "document.querySelector('.ours .run .report')?.textContent.includes('was processed here')",
        timeout=40,
    )
    assert demo.js("ours.items.find((card) => card.report).report.after") < 5
    demo.wait("document.querySelectorAll('.ours .acked').length > 3")
    assert demo.js("document.querySelectorAll('.bare .acked').length") == 0


@pytest.fixture(scope="module")
def locked(browser: Any) -> Iterator[Server]:
    """A server that asks for an API key."""
    server = Server.start(TRIO_WS_API_KEY="s3cret")
    yield server
    assert server.stop() == 0


@pytest.fixture
def locked_demo(browser: Any, locked: Server) -> Iterator[Tab]:
    """Its page."""
    page = browser.new_page()
    page.goto(f"{locked.admin}/demo?user=bob")
    tab = Tab(page)
    tab.wait("window.client?.status.state === 'live'")
    yield tab
    page.close()


def test_it_asks_for_the_api_key_and_tries_again(locked_demo: Tab) -> None:
    tab, page = locked_demo, locked_demo.page
    page.click("#flood")
    page.fill("#ask-key", "wrong")
    page.press("#ask-key", "Enter")
    tab.wait("document.querySelector('#ask').open && document.querySelector('#ask-key').value === ''")
    page.fill("#ask-key", "s3cret")
    page.press("#ask-key", "Enter")
    tab.wait("ours.flood && ours.flood.got + ours.flood.gone === ours.flood.of")
    page.click("#cut")  # it is not asked for again
    tab.wait("client.figures.connections === 2")
    assert not tab.js("document.querySelector('#ask').open")


def test_a_restart_is_told_and_the_next_run_is_shown(locked_demo: Tab) -> None:
    tab = locked_demo
    tab.js("sessionStorage.setItem('trio-ws:api-key', 's3cret')")
    tab.wait("ours.items.length > 0")
    tab.page.click("#restart")
    gap = "document.querySelector('.ours .gap')?.textContent.startsWith('The server has started anew')"
    tab.wait(gap, timeout=20)
    tab.wait("ours.items[0].steps?.length > 0 && ours.runs.get(ours.items[0].run).status === 'running'")
    assert tab.js("[client.figures.violations, client.status.state]") == [0, "live"]


def test_a_late_tab_is_given_snapshots_and_answers_for_all(open_demo: Callable[[], Tab]) -> None:
    first = open_demo()
    first.wait(
        "ours.items[0]?.steps?.length && ours.runs.get(ours.items[0].run)?.status === 'running'", timeout=30
    )
    late = open_demo()
    first.wait("document.querySelector('.ours .question button')", timeout=60)
    late.wait(
        "document.querySelector('.ours .late:not(:empty)')?.textContent.startsWith('This tab came late')"
    )
    late.wait("document.querySelector('.ours .question button') && document.title.startsWith('(1)')")
    question, choices = late.js("(({question, choices}) => [question, choices])"
        "([...ours.runs.values()].find((run) => run.questions.length).questions[0])")  # fmt: skip
    assert first.page.locator(".ours .question button").all_inner_texts() == choices
    late.page.locator(".ours .question button").first.click()
    for tab in (first, late):
        tab.wait(f"document.querySelector('.ours .said')?.textContent === 'You: {choices[0]}'")
        tab.wait("!document.querySelector('.ours .question') && document.title === 'trio-ws demo'")
    again = f"client.send('agent_answer', {{question: '{question}', answer: '{choices[1]}'}})"
    assert first.js(f"{again}.catch((error) => error.message)") == "already_answered"
    assert late.js("[client.figures.violations, ours.lost]") == [0, 0]


def test_a_run_is_cancelled_from_any_tab_and_the_others_see_it(open_demo: Callable[[], Tab]) -> None:
    tabs = [open_demo(), open_demo()]
    tabs[1].wait("document.querySelector('.ours .cancel:not([hidden])')", timeout=30)
    for tab in tabs:
        tab.js("""() => {
          window.said = [];
          const tell = ({ run, type, payload }) => said.push([run, type, payload]);
          for (const type of ["agent_cancelling", "agent_completed"]) client.on(type, tell);
        }""")
    run = tabs[1].js("""() => {
      const cancel = document.querySelector('.ours .cancel:not([hidden])');
      cancel.click();
      return cancel.parentElement.querySelector('.number').textContent.slice(4);
    }""")
    for tab in tabs:
        tab.wait(f"ours.runs.get('{run}').status === 'cancelled'")
        told = tab.js(f"said.filter(([run]) => run === '{run}')")
        assert [type for _, type, _ in told] == ["agent_cancelling", "agent_completed"]
        assert told[0][2]["by"] == "user"
        tab.wait("document.querySelector('.ours .run.cancelled > h3 .pill')?.textContent === 'cancelled'")


def test_helpers_and_progress_stand_where_they_belong(demo: Tab) -> None:
    demo.js("""() => {
      let seq = 1e6;
      const tell = (run, type, payload) => ours.apply({ seq: ++seq, id: `t${seq}`, run, type, payload, ts: seq });
      tell("p", "agent_started", { name: "Parent: of one" });
      tell("p", "agent_thinking", { text: "before" });
      tell("c", "agent_started", { name: "Child: of it", parent: "p" });
      tell("p", "agent_thinking", { text: "after" });
      tell("c", "agent_progress", { fraction: 0.25, message: "a quarter" });
      tell("c", "agent_delta", { text: "so far" });
      tell("p", "agent_lost", { outcome: "lost", duration: 1, reason: "lease" });
    }""")
    demo.wait("document.querySelector('.ours .run.lost .helpers .run.running')")
    parent = demo.page.locator(".ours .run.lost").filter(has_text="of one")
    assert [text.splitlines()[0] for text in parent.locator("> .steps > li").all_inner_texts()] == [
        "before", "Child", "after",
    ]  # fmt: skip
    assert demo.js("document.querySelector('.helpers .bar').value") == 0.25
    assert parent.locator("> h3 .pill").inner_text() == "lost: its agent is gone"
    assert parent.locator(".helpers .message").inner_text() == "a quarter"


def test_what_a_snapshot_has_is_not_shown_twice(demo: Tab) -> None:
    shown = demo.js("""() => {
      const tell = (seq, type, payload) => ours.apply({ seq: 1e6 + seq, run: "r", type, payload, id: "t", ts: 1 });
      const tools = [{ call: 1, tool: "t", since: 1, text: "ab" }];
      const payload = { status: "running", started: 1, text: "so far", thought: "hm", tools, calls: 1, questions: [] };
      ours.apply({ seq: 1e6 + 4, type: "snapshot", run: "r", payload, ts: 1 });
      tell(1, "agent_thinking", { text: "hm" });
      tell(2, "tool_executing", { call: 1, tool: "t" });
      tell(4, "tool_output", { call: 1, text: "b" });
      tell(5, "tool_output", { call: 1, text: "c" });
      tell(6, "agent_delta", { text: ", and on" });
      const late = ours.card("r");
      const steps = late.steps.map((step) => step.thought ?? step.output);
      tell(7, "agent_started", { name: "Again: from the beginning" });
      tell(8, "agent_thinking", { text: "first" });
      return [steps, ours.runs.get("r").text, late.late, late.steps.map((step) => step.thought)];
    }""")
    assert shown == [["hm", "abc"], "", False, ["first"]]


def test_a_flood_is_accounted_for(demo: Tab) -> None:
    demo.page.click("#flood")
    demo.wait("ours.flood && ours.flood.got + ours.flood.gone === ours.flood.of")
    demo.wait("document.querySelector('#notice').textContent.startsWith('Flood of 1000')")


def test_the_handler_can_be_slowed_and_failed_by_keyboard(demo: Tab) -> None:
    demo.page.locator("#slow").focus()
    demo.page.keyboard.press("Enter")
    assert demo.page.locator("#slow").get_attribute("aria-pressed") == "true"
    demo.page.keyboard.press("Tab")
    demo.page.keyboard.press("Space")
    demo.wait("client.figures.failures === 1")
    demo.page.locator("#slow").press("Enter")
    demo.wait("client.figures.queued === 0 && client.status.state === 'live'")


def test_a_reload_keeps_what_was_shown(demo: Tab) -> None:
    demo.wait("ours.items.length >= 2")
    newest = demo.js("ours.items.find((item) => item.run).run")
    demo.page.reload()
    demo.wait("window.client?.status.state === 'live'")
    assert newest in demo.js("ours.items.map((item) => item.run)")
    assert newest in demo.js("[...ours.runs.keys()]")
    demo.wait("client.figures.events > 0")
    assert demo.js("client.figures.violations") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, server: Server, axe: str, scheme: Any) -> None:
    # Only so can axe be put into the page: its policy takes no script from elsewhere.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    tab = Tab(context.new_page())
    tab.page.goto(f"{server.admin}/demo?user=cyd")
    tab.wait("window.client?.status.state === 'live'")
    tab.js("""() => {
      const tell = (seq, type, payload) => ours.apply({ seq: 1e6 + seq, run: "r", type, payload, id: "t", ts: 1 });
      tell(1, "agent_started", { name: "One: with all that there is" });
      tell(2, "tool_executing", { call: 1, tool: "t", input: "i" });
      tell(3, "tool_output", { call: 1, text: "a line\\n".repeat(99) });
      tell(4, "agent_progress", { fraction: 0.25, message: "a quarter" });
      tell(5, "question_closed", { question: "p", answer: "yes" });
      tell(6, "question_asked", { question: "q", prompt: "Which?", choices: ["a", "b"], expires: 9e9 });
    }""")
    tab.wait("document.querySelector('.ours .question button')")
    tab.page.evaluate(axe)
    found = tab.page.evaluate("axe.run()")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []
    context.close()


def test_it_fits_a_phone(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{server.admin}/demo?user=cyd")
    page.wait_for_selector(".run .task")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
