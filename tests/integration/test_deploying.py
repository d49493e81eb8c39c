"""What docs/deploying says works: behind the real nginx and the real Caddy, with the files to be copied from there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio

import trio_ws
from trio_ws.admin import serve_admin
from trio_ws.admin.pages import client_files
from trio_ws.store.shared_memory import Place

from .proxies import Proxy, caddy, free_port, nginx

pytestmark = pytest.mark.integration

Open = Callable[..., AbstractAsyncContextManager[Proxy]]
KEY = "the-key"
BOTH = pytest.mark.parametrize("open_proxy", [nginx, caddy], ids=["nginx", "caddy"])


@asynccontextmanager
async def served(
    config: trio_ws.Config | None = None, *, ws: int = 0, admin: int = 0
) -> AsyncIterator[tuple[trio_ws.Hub, int, int]]:
    """A server; gives its hub and its two ports."""
    async with trio_ws.open_hub(config) as hub, trio.open_nursery() as nursery:
        ((_, ws),) = await nursery.start(partial(trio_ws.serve, hub, port=ws))
        call = partial(serve_admin, hub, port=admin, api_key=KEY, pages=client_files())
        ((_, admin),) = await nursery.start(call)
        yield hub, ws, admin
        nursery.cancel_scope.cancel()


def backend(proxy: Proxy, **options: object) -> httpx.AsyncClient:
    """A backend's way in, through the proxy."""
    return httpx.AsyncClient(
        base_url=f"https://localhost:{proxy.backends}",
        headers={"authorization": f"Bearer {KEY}"},
        verify=proxy.trust,
        trust_env=False,
        timeout=20,
        **options,  # type: ignore[arg-type]
    )


@attrs.define
class Watcher:
    """A client behind the proxy, and what it has got."""

    client: trio_ws.Client
    got: list[object] = attrs.Factory(list)
    changed: trio.Event = attrs.Factory(trio.Event)

    async def run(self) -> None:
        async for event in self.client:
            self.got.append(event.payload)
            self.changed.set()
            self.changed = trio.Event()

    async def wait_for(self, payload: object) -> None:
        with trio.fail_after(30):
            while payload not in self.got:
                await self.changed.wait()


@asynccontextmanager
async def watching(proxy: Proxy) -> AsyncIterator[Watcher]:
    """A client as ada, which acks what comes."""
    async with (
        trio_ws.connect(proxy.ws, user="ada", ssl_context=proxy.trust) as client,
        trio.open_nursery() as nursery,
    ):
        watcher = Watcher(client)
        nursery.start_soon(watcher.run)
        yield watcher
        nursery.cancel_scope.cancel()


async def confirmed(client: httpx.AsyncClient, payload: object) -> None:
    """Publish to ada, and wait until she has processed it; repeated, under one id, while the server is away."""
    with trio.fail_after(60):
        while True:
            response = await client.post(
                "/v1/users/ada/events",
                params={"wait": "confirmed", "timeout": 10},
                json={"type": "agent_started", "payload": payload, "id": f"id-{payload}"},
            )
            if response.status_code == 200:
                return
            assert response.status_code in (502, 503, 504), response.text
            await trio.sleep(0.1)


@BOTH
async def test_events_flow_and_are_confirmed(open_proxy: Open, tmp_path: Path) -> None:
    async with (
        served() as (hub, ws, admin),
        open_proxy(tmp_path, ws, admin) as proxy,
        watching(proxy) as ada,
        backend(proxy) as client,
    ):
        for n in range(50):
            await confirmed(client, n)
        assert ada.got == list(range(50))
        assert hub.stats()["delivery"]["messages_confirmed"] == 50
        assert ada.client.statistics().reconnects == 0


@BOTH
async def test_the_admin_api_is_not_in_the_open(open_proxy: Open, tmp_path: Path) -> None:
    async with served() as (_, ws, admin), open_proxy(tmp_path, ws, admin) as proxy:
        options = {"verify": proxy.trust, "trust_env": False, "headers": {"authorization": f"Bearer {KEY}"}}
        async with httpx.AsyncClient(base_url=f"https://localhost:{proxy.clients}", **options) as client:
            for path in ("/", "/v1/stats", "/healthz", "/metrics", "/openapi.json", "/ws/../v1/stats"):
                assert (await client.get(path)).status_code == 404, path
            assert (await client.post("/v1/events", content=b"")).status_code == 404
            for name in ("client", "runs", "agui"):
                for kind in ("js", "d.ts"):
                    assert "export" in (await client.get(f"/{name}.{kind}")).text
        async with httpx.AsyncClient(base_url=f"https://localhost:{proxy.backends}", **options) as client:
            assert (await client.get("/v1/stats")).status_code == 200
            assert (await client.get("/v1/stats", headers={"authorization": "no"})).status_code == 401


@BOTH
async def test_foreign_networks_do_not_reach_the_admin_api(open_proxy: Open, tmp_path: Path) -> None:
    async with (
        served() as (_, ws, admin),
        open_proxy(tmp_path, ws, admin, changes={"127.0.0.0/8": "10.0.0.0/8"}) as proxy,
        backend(proxy) as client,
    ):
        assert (await client.get("/v1/stats")).status_code == 403


@pytest.mark.parametrize(("idle", "survives"), [(1.0, True), (30.0, False)])
async def test_the_heartbeat_keeps_an_idle_connection_through_nginx(
    idle: float, survives: bool, tmp_path: Path
) -> None:
    """The file's 60 s are 2 s here, the server's 25 s are 1 s. With a heartbeat that is too slow nginx cuts."""
    config = trio_ws.Config(heartbeat_active=idle, heartbeat_idle=idle)
    changes = {f"proxy_{way}_timeout 60s": f"proxy_{way}_timeout 2s" for way in ("read", "send")}
    async with (
        served(config) as (_, ws, admin),
        nginx(tmp_path, ws, admin, changes=changes) as proxy,
        watching(proxy) as ada,
    ):
        await ada.client.wait_live()
        await trio.sleep(5)  # there is nothing to wait for: that nothing happens is the point
        assert (ada.client.statistics().reconnects == 0) is survives


@BOTH
async def test_a_reload_of_the_proxy_loses_nothing(open_proxy: Open, tmp_path: Path) -> None:
    async with (
        served() as (hub, ws, admin),
        open_proxy(tmp_path, ws, admin) as proxy,
        watching(proxy) as ada,
    ):
        for n in range(300):
            if n in (100, 200):
                await proxy.read_again()
            await hub.publish("ada", "agent_thinking", n)
            await trio.sleep(0.005)
        await ada.wait_for(299)
        assert ada.got == list(range(300))
        statistics = ada.client.statistics()
        assert (statistics.gaps, statistics.resets, statistics.violations) == (0, 0, 0)
        assert hub.stats()["delivery"]["dead_letters"] == 0


@BOTH
async def test_a_proxy_that_is_started_anew_loses_nothing(open_proxy: Open, tmp_path: Path) -> None:
    """nginx's and Caddy's own end cuts what is open: the sessions resume."""
    async with served() as (hub, ws, admin), open_proxy(tmp_path, ws, admin) as proxy, watching(proxy) as ada:
        await hub.publish("ada", "agent_started", 1)
        await ada.wait_for(1)
        await proxy.stop()
        await hub.publish("ada", "agent_thinking", 2)
        await proxy.start()
        await ada.wait_for(2)
        assert ada.got == [1, 2]
        assert ada.client.statistics().resets == 0


@BOTH
async def test_a_server_that_is_started_anew_is_found_again(open_proxy: Open, tmp_path: Path) -> None:
    """Events published meanwhile are repeated by their publisher until they are confirmed, and come once each."""
    ws, admin = free_port(), free_port()
    async with open_proxy(tmp_path, ws, admin) as proxy, backend(proxy) as client, watching(proxy) as ada:
        async with served(ws=ws, admin=admin) as (hub, _, _):
            await confirmed(client, 1)
            await hub.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(confirmed, client, 2)
            await trio.sleep(0.5)
            async with served(ws=ws, admin=admin):
                await ada.wait_for(2)
                await confirmed(client, 3)
        assert ada.got == [1, 2, 3]


@BOTH
@pytest.mark.parametrize("size", [20, 20_000])
async def test_a_batch_passes_whole(open_proxy: Open, size: int, tmp_path: Path) -> None:
    """nginx stops sending a body whose answer has begun; so the answer must not begin before."""
    line = b'{"user":"u%d","type":"note","payload":"%s"}\n'
    lines = b"".join(line % (n % 20, b"x" * 500) for n in range(size))
    async with (
        served() as (_, ws, admin),
        open_proxy(tmp_path, ws, admin) as proxy,
        backend(proxy) as client,
    ):
        response = await client.post("/v1/events", content=lines)
        assert [json.loads(answer)["state"] for answer in response.text.splitlines()] == ["held"] * size


async def samples(proxy: Proxy, count: int) -> list[float]:
    """When so many samples of the stream were taken; none where it was refused. Then the client goes.

    Not by httpx, which leaves behind what is not read to its end.
    """
    request = f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    stream = await trio.open_ssl_over_tcp_stream(
        "localhost", proxy.backends, ssl_context=proxy.trust, https_compatible=True
    )
    async with stream:
        await stream.send_all(request.encode())
        got = b""
        while len(found := re.findall(rb'"at":([0-9.]+)', got)) < count:
            got += await stream.receive_some()
            if got.startswith(b"HTTP/1.1 503"):
                return []
        assert got.startswith(b"HTTP/1.1 200")
    return [float(at) for at in found]


@BOTH
async def test_the_stream_of_figures_comes_as_it_is_sent(
    open_proxy: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no end: a proxy that collects it would pass on nothing. And the proxy lets go when its client has gone."""
    monkeypatch.setattr("trio_ws.admin.stream.MAX_STREAMS", 1)
    async with served() as (_, ws, admin), open_proxy(tmp_path, ws, admin) as proxy:
        with trio.fail_after(20):
            first, second = await samples(proxy, 2)
            assert first < second
            while not await samples(proxy, 1):  # noqa: ASYNC110 - for another process
                await trio.sleep(0.05)


async def test_nginx_logs_no_tokens(tmp_path: Path) -> None:
    async with served() as (_, ws, admin), nginx(tmp_path, ws, admin) as proxy:
        async with httpx.AsyncClient(verify=proxy.trust, trust_env=False) as client:
            await client.get(f"https://localhost:{proxy.clients}/ws?token=hunter2")
        await proxy.stop()
        logged = proxy.log.read_text()
        assert " GET /ws " in logged
        assert "hunter2" not in logged


@attrs.define
class Nodes:
    """Several nodes of one store, each with ports of its own.

    Attributes:
      ws, admin: their ports.
      lives: ends a node at once, as a kill does, by its number.
    """

    ws: list[int] = attrs.Factory(list)
    admin: list[int] = attrs.Factory(list)
    lives: list[trio.CancelScope] = attrs.Factory(list)


@asynccontextmanager
async def served_by_nodes(count: int) -> AsyncIterator[Nodes]:
    """So many nodes, of this process."""
    nodes, place = Nodes(), Place()

    async def run(name: str, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as life:
            async with (
                trio_ws.open_node(store=place.node(name)) as node,
                trio.open_nursery() as nursery,
            ):
                ((_, ws),) = await nursery.start(partial(trio_ws.serve, node.hub, port=0))
                ((_, admin),) = await nursery.start(partial(serve_admin, node.hub, port=0, api_key=KEY))
                nodes.ws.append(ws)
                nodes.admin.append(admin)
                nodes.lives.append(life)
                task_status.started()
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            await nursery.start(run, f"node{number}")
        yield nodes
        nursery.cancel_scope.cancel()


@BOTH
async def test_three_nodes_are_one_server_whichever_goes(open_proxy: Open, tmp_path: Path) -> None:
    """Nothing sticks to a node: calls come to any, and clients that are cut come to another."""
    async with (
        served_by_nodes(3) as nodes,
        open_proxy(tmp_path, nodes.ws, nodes.admin) as proxy,
        backend(proxy) as client,
        watching(proxy) as ada,
    ):
        for n in range(3):
            await confirmed(client, n)
        for gone in range(2):
            nodes.lives[gone].cancel()
            await confirmed(client, 10 + gone)
        assert ada.got == [0, 1, 2, 10, 11]
        statistics = ada.client.statistics()
        assert (statistics.gaps, statistics.resets, statistics.violations) == (0, 0, 0)
