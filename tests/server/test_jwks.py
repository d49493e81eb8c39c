"""The keys of an issuer: fetched once for many, kept while the issuer is away, and rotated; on Trio's clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws.server import jwks
from trio_ws.server.auth import Credentials
from trio_ws.server.jwks import RemoteKeys, keys_in
from trio_ws.server.tokens import jwt_authenticator

from .tokens import SECRET, jwk, private_key, token

URL = "https://issuer.example.com/jwks.json"


@pytest.fixture
def clock(autojump_clock: Any) -> Any:
    return autojump_clock


@attrs.define
class Issuer:
    """Publishes keys, and counts how often it was asked."""

    keys: list[dict[str, Any]] = attrs.Factory(list)
    cache_control: str = "max-age=600"
    status: int = 200
    takes: float = 0.01
    asked: int = 0
    body: Callable[[], bytes] | None = None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.asked += 1
        await trio.sleep(self.takes)
        content = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body()

        async def sent() -> AsyncIterator[bytes]:
            for begin in range(0, len(content), 10_000):
                yield content[begin : begin + 10_000]

        return httpx.Response(self.status, content=sent(), headers={"Cache-Control": self.cache_control})

    @asynccontextmanager
    async def served(self) -> AsyncIterator[RemoteKeys]:
        remote = RemoteKeys(URL, transport=httpx.MockTransport(self.answer))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remote.run)
            yield remote
            nursery.cancel_scope.cancel()


async def found(remote: RemoteKeys, kid: str | None, algorithm: str = "ES256") -> list[str | None]:
    return [key.kid for key in await remote.find(kid, algorithm)]


async def test_a_key_is_fetched_once(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a"), jwk("RS256", "b")])
    async with issuer.served() as remote:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(found, remote, "a")
        assert await found(remote, "a") == ["a"]
        assert await found(remote, "b", "RS256") == ["b"]
        assert await found(remote, "b") == []
        assert issuer.asked == 1


async def test_a_token_is_checked_with_it(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a"), jwk("EdDSA", "b")])
    async with issuer.served() as remote:
        authenticate = jwt_authenticator(remote)
        for algorithm, kid in (("ES256", "a"), ("EdDSA", "b"), ("EdDSA", None)):
            key = private_key(algorithm, kid or "b")
            identity = await authenticate(Credentials(token=token(key, algorithm, kid=kid)))
            assert identity is not None
        other = token(private_key("ES256", "other"), "ES256", kid="a")
        assert await authenticate(Credentials(token=other)) is None
        assert await authenticate(Credentials(token=token(SECRET, kid="a"))) is None


async def test_a_new_key_is_found_at_once(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "old")])
    async with issuer.served() as remote:
        assert await found(remote, "old") == ["old"]
        await trio.sleep(100)
        issuer.keys = [jwk("ES256", "new")]
        assert await found(remote, "new") == ["new"]
        assert await found(remote, "old") == []
        assert issuer.asked == 2


async def test_unknown_keys_do_not_provoke_a_flood(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a")])
    async with issuer.served() as remote:
        begin = trio.current_time()
        for n in range(1000):
            assert await found(remote, f"unknown-{n}") == []
            await trio.sleep(0.1)
        assert issuer.asked <= (trio.current_time() - begin) / jwks.MIN_INTERVAL + 2
        before = trio.current_time()
        assert await found(remote, "a") == ["a"]
        assert trio.current_time() == before


async def test_keys_are_fetched_again_before_they_are_needed(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a")], cache_control="public, max-age=300")
    async with issuer.served() as remote:
        assert await found(remote, "a") == ["a"]
        issuer.keys = [jwk("ES256", "b")]
        await trio.sleep(299)
        assert issuer.asked == 1
        await trio.sleep(2)
        assert issuer.asked == 2
        assert await found(remote, "b") == ["b"]


@pytest.mark.parametrize(
    ("cache_control", "age"),
    [
        ("", jwks.DEFAULT_AGE),
        ("no-store", jwks.MIN_AGE),
        ("no-cache, must-revalidate", jwks.MIN_AGE),
        ("max-age=1", jwks.MIN_AGE),
        ("s-maxage=10, max-age=3600", 3600),
        ("max-age=99999999", jwks.MAX_AGE),
        ("max-age=soon", jwks.DEFAULT_AGE),
    ],
)
async def test_how_long_keys_are_fresh(clock: Any, cache_control: str, age: float) -> None:
    issuer = Issuer([jwk("ES256", "a")], cache_control=cache_control)
    async with issuer.served() as remote:
        await found(remote, "a")
        await trio.sleep(age - 1)
        assert issuer.asked == 1
        await trio.sleep(2)
        assert issuer.asked == 2


async def test_keys_are_believed_while_the_issuer_is_away(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer([jwk("ES256", "a")])
    async with issuer.served() as remote:
        assert await found(remote, "a") == ["a"]
        issuer.status = 503
        await trio.sleep(3600)
        before = trio.current_time()
        assert await found(remote, "a") == ["a"]
        assert trio.current_time() == before
        assert "HTTP 503" in caplog.text
        issuer.status, issuer.keys = 200, [jwk("ES256", "b")]
        await trio.sleep(jwks.RETRY_INTERVAL + 1)
        assert await found(remote, "b") == ["b"]


async def test_but_not_for_ever(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a")])
    async with issuer.served() as remote:
        assert await found(remote, "a") == ["a"]
        issuer.status = 503
        await trio.sleep(jwks.MAX_STALE + 700)
        assert await found(remote, "a") == []


async def test_a_slow_issuer_holds_up_nobody_for_long(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a")], takes=60)
    async with issuer.served() as remote:
        with trio.fail_after(jwks.FETCH_TIMEOUT + 0.1):
            assert await found(remote, "a") == []


async def test_who_gives_up_waiting_takes_nothing_from_others(clock: Any) -> None:
    issuer = Issuer([jwk("ES256", "a")], takes=1)
    async with issuer.served() as remote, trio.open_nursery() as nursery:
        nursery.start_soon(found, remote, "a")
        with trio.move_on_after(0.5):
            await found(remote, "a")
        assert await found(remote, "a") == ["a"]
        assert issuer.asked == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys": 7}',
        b"<html>",
        b'{"keys": [' * 3000,
        b'{"keys":"' + b"x" * jwks.MAX_BYTES + b'"}',
    ],
    ids=range(6),
)
async def test_what_is_no_set_of_keys(clock: Any, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(body=lambda: body)
    async with issuer.served() as remote:
        assert await found(remote, "a") == []
        await wait_all_tasks_blocked()
        assert "can't be had" in caplog.text


def test_keys_for_something_else_are_passed_over() -> None:
    good = jwk("ES256", "good")
    listed: list[Any] = [
        None,
        7,
        {},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "RSA", "n": "AQAB", "e": "!", "kid": "broken"},
        jwk("ES256", "use", use="enc"),
        jwk("ES256", "ops", key_ops=["sign"]),
        jwk("ES256", "alg", alg="ES384"),
        jwk("ES256", "nested", alg=["ES256"]),
        jwk("RS256", "weak") | {"n": "v" * 100},
        good,
        good | {"kid": ["list"]},
    ]
    keys = keys_in(json.dumps({"keys": listed}).encode())
    assert [key.kid for key in keys] == ["good", None]
    assert keys[0].algorithms == {"ES256"}


def test_not_more_than_so_many_keys() -> None:
    listed = [jwk("ES256", "a")] * 200
    assert len(keys_in(json.dumps({"keys": listed}).encode())) == jwks.MAX_KEYS
