"""The webhook: what is posted, how often it is tried, and that its URL is nowhere told."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from trio_ws.cli.webhook import DELAYS, TIMEOUT, Webhook
from trio_ws.hub import Alert
from trio_ws.settings import load

URL = "https://hooks.example.com/T0/secret-part?key=secret-key"
ALERT = Alert(
    name="slow_recovery", state="firing", since=5.0, value=6.5, threshold=4.0, unit="seconds", summary="Slow."
)


def webhook(answer: Callable[[httpx.Request], httpx.Response]) -> Webhook:
    return Webhook(URL, lambda: 7.0, server="one", transport=httpx.MockTransport(answer))


async def test_what_is_posted() -> None:
    posted: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        posted.append(request)
        return httpx.Response(204)

    await webhook(answer).post(ALERT)
    (request,) = posted
    assert (request.method, str(request.url)) == ("POST", URL)
    assert json.loads(request.content) == {
        "name": "slow_recovery",
        "state": "firing",
        "since": 5.0,
        "value": 6.5,
        "threshold": 4.0,
        "unit": "seconds",
        "summary": "Slow.",
        "server": "one",
        "at": 7.0,
    }


@pytest.mark.parametrize("kind", ["status", "error", "redirect"])
async def test_it_is_tried_again_and_then_let_go(
    kind: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tries.append(trio.current_time())
        if kind == "error":
            raise httpx.ConnectError(f"can't reach {URL}")
        return httpx.Response(500 if kind == "status" else 302, headers={"location": "http://127.0.0.1/"})

    await webhook(answer).post(ALERT)
    waits = [b - a for a, b in itertools.pairwise(tries)]
    assert waits == pytest.approx(DELAYS)
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 4 + ["ERROR"]
    assert "secret" not in caplog.text


async def test_one_that_recovers_is_told_once(autojump_clock: MockClock) -> None:
    tries = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return httpx.Response(200 if tries == 2 else 503)

    await webhook(answer).post(ALERT)
    assert tries == 2


async def test_one_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep_forever()
            raise AssertionError

    await Webhook(URL, lambda: 7.0, transport=Hanging()).post(ALERT)
    assert trio.current_time() == pytest.approx(4 * TIMEOUT + sum(DELAYS))


def test_the_url_is_masked_and_checked() -> None:
    loaded = load({"alert_webhook": URL}, {})
    assert loaded.settings.alert_webhook == URL
    assert "secret" not in str(loaded.shown("alert_webhook"))
    assert "hooks.example.com" not in repr(loaded.settings)
    with pytest.raises(Exception, match="alert_webhook must be a URL") as caught:
        load({"alert_webhook": "ftp://secret"}, {})
    assert "secret" not in str(caught.value)


def test_logging_of_httpx_is_off() -> None:
    """It would log each URL."""
    from trio_ws.log import configure

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure()
        assert logging.getLogger("httpx").getEffectiveLevel() > logging.INFO
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
