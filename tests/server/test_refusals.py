"""Who is not let in, and that it is counted by reason: a real server over memory streams, on Trio's clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_ws
from trio_ws.server.auth import Credentials

from .memory import Closed, serving


@pytest.fixture
def clock(autojump_clock: Any) -> Any:
    return autojump_clock


async def by_token(credentials: Credentials) -> trio_ws.Identity | None:
    """Takes tokens such as ``ada@1000``: the user, and when it was issued."""
    user, _, issued = (credentials.token or "").partition("@")
    return trio_ws.Identity(user, issued=float(issued)) if issued else None


async def test_each_reason_is_counted(clock: Any) -> None:
    async with serving(authenticate=by_token, config=trio_ws.Config(max_connections=1)) as server:
        refused = server.hub.engine.refusals.counts

        async def expect(reason: str, code: int, **hello: Any) -> None:
            before = dict(refused)
            client = await server.dial()
            await client.open()
            if hello:
                await client.send({"t": "hello"} | hello)
            else:
                await client.send({"t": "ping"})
            assert (await client.closed()).code == code
            await trio.testing.wait_all_tasks_blocked()
            assert {name: n - before[name] for name, n in refused.items() if n != before[name]} == {reason: 1}

        await expect("protocol", 4400)
        await expect("credentials", 4401, token="nobody")
        server.hub.end_sessions("ada", revoke=60)
        await expect("revoked", 4401, token="ada@1000")
        await server.client(token="bob@1000")
        await expect("limit", 4503, token="eve@1000")
        assert server.hub.stats()["connections"]["refused"] == refused


async def test_a_revoked_user_s_fresh_token_is_no_better(clock: Any) -> None:
    async with serving(authenticate=by_token) as server:
        server.hub.end_sessions("ada", revoke=60)
        new = server.hub.engine.wall_clock() + 1
        client, _ = await server.client(token=f"ada@{new}")
        await client.send({"t": "auth", "token": "ada@1000"})
        with pytest.raises(Closed) as caught:
            await client.until("never")
        assert caught.value.code == 4401


async def test_who_is_late_is_counted(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        await client.open()
        assert (await client.closed()).code == 4501
        assert server.hub.stats()["connections"]["refused"]["hello_timeout"] == 1
