"""The keys of the admin API: several at once, in a file that is replaced, and how often one may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_ws.admin import KeyFile
from trio_ws.admin.keys import MAX_KEYS, WRONG_BURST, WRONG_RATE, is_key
from trio_ws.errors import InvalidConfig
from trio_ws.files import LOOK_INTERVAL
from trio_ws.server.proxies import TrustedProxies

KEY = "the right one"


async def call(client: Any, key: str, **headers: str) -> int:
    response = await client.get("/v1/stats", headers={"authorization": f"Bearer {key}", **headers})
    if response.status_code == 429:
        assert response.json()["error"]["code"] == "too_many_wrong_keys"
        assert 1 <= int(response.headers["retry-after"]) <= 1 / WRONG_RATE
    return int(response.status_code)


@pytest.mark.parametrize(
    ("given", "good"),
    [("one", True), ("zwei", True), ("", False), ("on", False), ("one ", False), ("zw\xff", False)],
)
def test_any_of_several_keys_is_one(given: str, good: bool) -> None:
    assert is_key(given.encode(), lambda: ("one", "zwei")) is good


async def test_a_file_of_keys_that_is_replaced(autojump_clock: MockClock, tmp_path: Path, open_api) -> None:
    file = tmp_path / "keys"
    file.write_text("\n old \n\n")
    keys = KeyFile(file)
    async with open_api(api_key=keys.current) as (_, client):
        seen = []
        for text in ("old\r\nnew\r\n", "", "new"):
            file.write_text(text)
            await trio.sleep(LOOK_INTERVAL)
            seen.append([await call(client, key) for key in ("old", "new")])
        assert seen == [[200, 200], [200, 200], [401, 200]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "1 to 16 keys"),
        (b" \n\n", "1 to 16 keys"),
        (b"k\n" * (MAX_KEYS + 1), "1 to 16"),
        (b"\xff", "UTF-8"),
    ],
)
def test_what_is_no_file_of_keys_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=words):
        KeyFile(file)


async def test_keys_can_not_be_guessed_at_will(
    autojump_clock: MockClock, open_api, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_api(api_key=KEY) as (hub, client):
        assert [await call(client, f"guess {n}") for n in range(WRONG_BURST)] == [401] * WRONG_BURST
        # The right one is not looked at either: who guesses it now does not learn that.
        assert [await call(client, key) for key in ("guess", KEY)] == [429, 429]
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/stats")).status_code == 401  # no key is no guess
        assert hub.stats()["connections"]["refused"]["api_key"] == WRONG_BURST + 2
        await trio.sleep(1 / WRONG_RATE)
        assert [await call(client, key) for key in ("guess", KEY)] == [401, 429]
        await trio.sleep(1 / WRONG_RATE)
        assert await call(client, KEY) == 200
        assert "a wrong API key from 127.0.0.1" in caplog.text
        assert "too many wrong API keys from 127.0.0.1" in caplog.text
        assert "guess" not in caplog.text


async def test_who_has_the_key_is_not_locked_out_by_a_neighbour(autojump_clock: MockClock, open_api) -> None:
    async with open_api(api_key=KEY) as (_, client):
        assert await call(client, KEY) == 200
        guessed = [await call(client, "guess") for _ in range(WRONG_BURST + 5)]
        assert guessed == [401] * WRONG_BURST + [429] * 5
        assert await call(client, KEY) == 200


async def test_addresses_are_told_apart_behind_a_proxy_that_is_trusted(
    autojump_clock: MockClock, open_api
) -> None:
    for proxies, status in (("127.0.0.1", 200), ("10.0.0.1", 429)):
        client_of = TrustedProxies([proxies]).client
        async with open_api(api_key=KEY, client_of=client_of) as (_, client):
            for _ in range(WRONG_BURST):
                await call(client, "guess", **{"X-Forwarded-For": "203.0.113.1"})
            assert await call(client, KEY, **{"X-Forwarded-For": "203.0.113.2"}) == status
