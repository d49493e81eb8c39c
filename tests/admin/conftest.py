"""A hub, and clients of its admin API that run in the same process, without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from trio_ws.admin import create_app
from trio_ws.config import Config
from trio_ws.hub import Hub, open_hub
from trio_ws.store import Store

OpenApi = Callable[..., AbstractAsyncContextManager[tuple[Hub, httpx.AsyncClient]]]


@asynccontextmanager
async def _open_api(
    config: Config | None = None, *, store: Store | None = None, **options: Any
) -> AsyncIterator[tuple[Hub, httpx.AsyncClient]]:
    async with open_hub(config, store=store) as hub:
        app = create_app(hub, **options)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://admin.test"
        ) as client:
            yield hub, client


@pytest.fixture
def open_api() -> OpenApi:
    """Opens a hub with `config` over `store`, and a client of its admin API; the other options are `create_app`'s."""
    return _open_api


class Pieces(httpx.AsyncByteStream):
    """A body in pieces; `before` is called with the number of each. No async generator: it may be left early."""

    def __init__(self, *pieces: bytes, before: Callable[[int], Awaitable[None]] | None = None) -> None:
        self._pieces = iter(enumerate(pieces))
        self._before = before

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        for number, piece in self._pieces:
            if self._before is not None:
                await self._before(number)
            return piece
        raise StopAsyncIteration


async def post_pieces(
    client: httpx.AsyncClient,
    url: str,
    *pieces: bytes,
    before: Callable[[int], Awaitable[None]] | None = None,
) -> httpx.Response:
    """Post a body in pieces, of a length that is not declared."""
    request = httpx.Request("POST", client.base_url.join(url), stream=Pieces(*pieces, before=before))
    return await client.send(request)
