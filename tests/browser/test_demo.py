"""The demo page: it shows what it says, by mouse, by keyboard, and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Server, Tab

pytestmark = pytest.mark.integration


@pytest.fixture
def demo(browser: Any, server: Server) -> Iterator[Tab]:
    """The page for bob; it must not report an error of its own."""
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console", lambda message: problems.append(message.text) if "policy" in message.text.lower() else 0
    )
    page.goto(f"{server.admin}/demo?user=bob")
    tab = Tab(page)
    tab.wait("window.client?.status.state === 'live'")
    yield tab
    context.close()
    assert problems == []


def test_runs_are_shown_as_they_progress(demo: Tab) -> None:
    demo.wait("document.querySelector('.ours .run.done .answer')?.textContent.length > 50", timeout=30)
    assert demo.page.locator("#badge").inner_text().strip() == "live"
    assert demo.page.locator("nav [aria-current]").inner_text() == "bob"
    assert demo.page.locator(".ours .run .tool").count() > 0


def test_a_cut_costs_the_bare_websocket_events_and_ours_none(demo: Tab) -> None:
    demo.wait("bare.since !== undefined")
    # Of attempts with full jitter one may fall right before the network is back, and the next 16 s after it.
    demo.js("void (Math.random = () => 0.3)")
    demo.page.click("#away")
    demo.wait("client.status.state === 'offline'")
    demo.wait("document.querySelector('#badge').textContent.includes('next attempt in')")
    demo.wait("client.status.state === 'live'")
    demo.wait("bare.missed > 0")
    assert demo.js("client.figures.violations") == 0
    demo.wait("document.querySelector('#figures').textContent.includes('last recovery') && ours.lost === 0")
    demo.wait("/[0-9] m?s/.test(document.querySelector('#figures').textContent)")


def test_half_open_leaves_the_bare_websocket_open_and_deaf(demo: Tab) -> None:
    demo.wait("bare.since !== undefined")
    demo.page.click("#half")
    demo.wait("client.figures.connections === 2", timeout=10)
    demo.wait("document.querySelector('#bare-badge').textContent === 'open, but nothing comes'")
    assert demo.js("[bare.open, bare.reconnects, bare.missed > 0, ours.lost]") == [True, 0, True, 0]


def test_what_was_confirmed_is_shown_and_the_agent_knows_it(demo: Tab) -> None:
    demo.wait(
        "document.querySelector('.ours .run .report')?.textContent.includes('were processed here')",
        timeout=40,
    )
    report = demo.js("ours.items.find((run) => run.report && run.steps.length > 2).report")
    assert report["confirmed"] == report["events"]
    demo.wait("document.querySelectorAll('.ours .acked').length > 3")
    assert demo.js("document.querySelectorAll('.bare .acked').length") == 0


def test_a_restart_is_told_and_the_next_run_is_shown(browser: Any) -> None:
    server = Server.start()
    try:
        page = browser.new_page()
        page.goto(f"{server.admin}/demo?user=bob")
        tab = Tab(page)
        tab.wait("window.ours?.items.length > 0")
        page.click("#restart")
        tab.wait(
            "document.querySelector('.ours .gap')?.textContent.startsWith('The server has started anew')",
            timeout=20,
        )
        tab.wait("ours.items[0].state === 'working' && ours.items[0].steps?.length > 0")
        assert tab.js("[client.figures.violations, client.status.state]") == [0, "live"]
        page.close()
    finally:
        assert server.stop() == 0


def test_it_asks_for_the_api_key_and_tries_again(browser: Any) -> None:
    server = Server.start(TRIO_WS_API_KEY="s3cret")
    try:
        page = browser.new_page()
        page.goto(f"{server.admin}/demo?user=bob")
        tab = Tab(page)
        tab.wait("window.client?.status.state === 'live'")
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
        page.close()
    finally:
        assert server.stop() == 0


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
    demo.wait("client.figures.events > 0")
    assert demo.js("client.figures.violations") == 0


def test_it_fits_a_phone(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{server.admin}/demo?user=cyd")
    page.wait_for_selector(".run .task")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
