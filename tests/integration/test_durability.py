"""A real server over a real file: killed, restarted, resumed; locked out of its file; a backup while it runs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

import trio_ws
from trio_ws.store import SqliteStore

pytestmark = pytest.mark.integration

PATIENCE = 60.0


@attrs.define
class Server:
    """A server process on ports that stay the same over its lives."""

    file: Path
    process: trio.Process | None = None
    port: int = 0
    admin_port: int = 0
    log: bytes = b""

    async def start(self, nursery: trio.Nursery, *options: str) -> None:
        command = [sys.executable, "-m", "trio_ws", "serve", "--insecure", "--store", f"sqlite:{self.file}"]
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        self.process = await trio.lowlevel.open_process([*command, *ports, *options], stderr=subprocess.PIPE)
        self.log = b""
        assert self.process.stderr is not None
        while b"admin on " not in self.log or not self.log.endswith(b"\n"):
            piece = await self.process.stderr.receive_some()
            assert piece, self.log
            self.log += piece
        for line in self.log.decode().splitlines():
            if line.startswith("listening on "):
                self.port = int(line.split(":")[2].split("/")[0])
            if line.startswith("admin on "):
                self.admin_port = int(line.split(":")[2])
        nursery.start_soon(self._read, self.process.stderr)

    async def _read(self, stream: trio.abc.ReceiveStream) -> None:
        async with stream:
            async for piece in stream:
                self.log += piece

    async def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.process.wait()

    def resident(self) -> int:
        """Bytes of its memory that are in use now."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}", trust_env=False, timeout=30)


@asynccontextmanager
async def a_server(file: Path) -> AsyncIterator[tuple[Server, trio.Nursery]]:
    server = Server(file)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            try:
                yield server, nursery
            finally:
                if server.process is not None and server.process.poll() is None:
                    server.process.kill()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                        await server.process.wait()
            nursery.cancel_scope.cancel()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 2 MB; None where none can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True)
    if done.returncode != 0:
        yield None
        return
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    while not (found := await condition()):  # noqa: ASYNC110
        await trio.sleep(0.02)
    return found


async def publish_lines(http: httpx.AsyncClient, lines: bytes) -> list[str]:
    """Publish a batch; an answer that says to come back later is a failure here."""
    answer = await http.post("/v1/events", content=lines)
    assert answer.status_code == 200
    return answer.text.splitlines()


async def publish(http: httpx.AsyncClient, user: str, **event: Any) -> httpx.Response:
    return await http.post(f"/v1/users/{user}/events", json=event)


async def revoke_and_end(server: Server, http: httpx.AsyncClient) -> None:
    """Revoke eve, and end all sessions of zoe, who has one."""
    revoked = await http.delete("/v1/users/eve/sessions?revoke=3600")
    assert revoked.json() == {"ended": 0}
    async with trio_ws.connect(server.url, user="zoe"):

        async def is_there() -> bool:
            found = (await http.get("/v1/users/zoe")).json()
            return bool(found.get("sessions"))

        await until(is_there)
        assert (await http.delete("/v1/users/zoe/sessions")).json() == {"ended": 1}


async def see_revoked_and_ended(server: Server, http: httpx.AsyncClient) -> None:
    """What `revoke_and_end` has done holds, lives later."""
    with pytest.raises(trio_ws.SessionEnded) as refused:
        async with trio_ws.connect(server.url, user="eve") as client:
            async for _ in client:
                pass
    assert refused.value.code == 4401
    found = await http.get("/v1/users/zoe")
    assert found.status_code == 404 or found.json()["sessions"] == []


async def test_a_server_that_is_killed_again_and_again_loses_nothing_that_was_answered(
    tmp_path: Path,
) -> None:
    got: list[tuple[int, str]] = []
    resets: list[trio_ws.Gap] = []
    answered: list[str] = []
    async with a_server(tmp_path / "it.db") as (server, nursery):
        await server.start(nursery)

        async def watch() -> None:
            async with trio_ws.connect(server.url, user="ada") as client:
                async for item in client:
                    if isinstance(item, trio_ws.Gap):
                        resets.append(item)
                    else:
                        got.append((item.seq, item.id))

        nursery.start_soon(watch)
        for life in range(4):
            async with server.http() as http, trio.open_nursery() as publishers:

                async def work(name: int, http: httpx.AsyncClient, life: int) -> None:
                    for number in range(10_000):
                        id = f"{life}-{name}-{number}"
                        try:
                            answer = await publish(http, "ada", type="agent_started", payload=id, id=id)
                        except httpx.TransportError:
                            return
                        if answer.status_code == 202:
                            answered.append(id)

                for name in range(3):
                    publishers.start_soon(work, name, http, life)
                enough = len(answered) + 40

                async def there_are(enough: int) -> bool:
                    return len(answered) >= enough

                await until(partial(there_are, enough))
                if life == 0:
                    await revoke_and_end(server, http)
                assert await server.end(signal.SIGKILL) == -signal.SIGKILL
            await server.start(nursery)
        async with server.http() as http:
            await see_revoked_and_ended(server, http)
            last = await http.post(
                "/v1/users/ada/events?wait=confirmed&timeout=30",
                json={"type": "agent_completed", "id": "last"},
            )
            assert last.status_code == 200, last.text
            stats = (await http.get("/v1/stats")).json()
            assert stats["store"]["state"] == "ok"
        ids = [id for _, id in got]
        assert len(ids) == len(set(ids))
        assert [seq for seq, _ in got] == sorted(seq for seq, _ in got)
        assert set(answered) <= set(ids)
        assert not resets
        assert await server.end(signal.SIGTERM) == 0
    assert not (tmp_path / "it.db-wal").exists()


async def test_more_than_memory_holds_waits_in_the_file_and_comes_once_and_in_order(tmp_path: Path) -> None:
    """5,000 critical events to somebody who is away, in two lives of a server that holds 200; then they come."""
    count, text = 5000, "x" * 4000
    got: list[int] = []
    async with a_server(tmp_path / "it.db") as (server, nursery):
        await server.start(nursery, "--max-events-per-user", "200")
        async with server.http() as http:
            before = server.resident()
            for first in range(0, count, 500):
                body = b"".join(
                    json.dumps(
                        {
                            "user": "ada",
                            "type": "agent_started",
                            "id": f"{n}",
                            "payload": {"n": n, "text": text},
                        }
                    ).encode()
                    + b"\n"
                    for n in range(first, first + 500)
                )
                answers = [json.loads(line) for line in await publish_lines(http, body)]
                assert [answer.get("seq") for answer in answers] == list(range(first + 1, first + 501))
                if first == 2500:
                    grown = server.resident() - before
                    assert await server.end(signal.SIGKILL) == -signal.SIGKILL
                    await server.start(nursery, "--max-events-per-user", "200")
            user = (await http.get("/v1/users/ada")).json()
            assert (user["head"], user["buffer"]["events"], user["buffer"]["stored"]) == (
                count,
                200,
                count - 200,
            )
            newest = (await http.get("/v1/users/ada/events?limit=2")).json()["events"]
            assert [(event["seq"], event["state"]) for event in newest] == [(5000, "held"), (4999, "held")]
            assert (await http.get("/v1/users/ada/events/4321")).json()["steps"][0]["step"] == "accepted"
            again = await publish(http, "ada", type="agent_started", id="4321")
            assert (again.json()["seq"], again.json()["duplicate"]) == (4322, True)
            async with trio_ws.connect(server.url, user="ada") as client:
                async for item in client:
                    assert isinstance(item, trio_ws.Event), item
                    got.append(item.payload["n"])
                    if len(got) == count:
                        break
            stats = (await http.get("/v1/stats")).json()
            assert stats["store"]["events_stored"] == 0
            assert stats["buffer"]["events"] <= 200
            grown = max(grown, server.resident() - before)
        assert got == list(range(count))
        assert grown < 12 * 1024 * 1024, f"20 MB were published, and {grown} bytes came into memory"
        assert await server.end(signal.SIGTERM) == 0


async def is_ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


async def is_failing(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/stats")).json()["store"]["state"] == "failing"


async def refuses(http: httpx.AsyncClient, error: str) -> None:
    """The server comes to know that nothing can be written, refuses what must be durable, and says why."""
    # Nobody waits for this one: it finds out.
    assert (await publish(http, "ada", type="note")).status_code == 202
    await until(partial(is_failing, http))
    refused = await publish(http, "ada", type="agent_started", id=error)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "store_unavailable"
    assert error in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"
    assert (await http.get("/readyz")).json()["error"]["code"] == "store_unavailable"
    assert error in (await http.get("/v1/stats")).json()["store"]["error"]


async def recovers(http: httpx.AsyncClient, error: str) -> None:
    """It accepts again, without anybody's doing, also what it refused before."""
    await until(partial(is_ready, http))
    assert (await publish(http, "ada", type="agent_started", id=error)).status_code == 202


async def test_a_store_that_cannot_be_written_refuses_and_recovers(
    tmp_path: Path, small: Path | None
) -> None:
    file = (small or tmp_path) / "it.db"
    away = file.with_name("away.db")
    async with a_server(file) as (server, nursery):
        await server.start(nursery)
        async with server.http() as http:
            assert (await publish(http, "ada", type="agent_started", payload=1)).status_code == 202
            with closing(sqlite3.connect(file, isolation_level=None)) as blocker:
                blocker.execute("BEGIN EXCLUSIVE")
                await refuses(http, "database is locked")
                async with trio_ws.connect(server.url, user="ada") as client:
                    async for event in client:
                        assert event.seq == 1
                        break
            await recovers(http, "database is locked")
            file.rename(away)
            await refuses(http, "was deleted or replaced")
            away.rename(file)
            await recovers(http, "was deleted or replaced")
            if small is not None:
                fill_up(small / "ballast")
                while await is_ready(http):  # the write-ahead log has some room yet
                    await publish(http, "bob", type="note", payload="x" * 8000)
                await refuses(http, "full")
                (small / "ballast").unlink()
                await recovers(http, "full")
            file.with_name("it.db-wal").unlink()
            await refuses(http, "it.db-wal was deleted or replaced while it is in use: restart")
        assert await server.end(signal.SIGTERM) == 0
        for told in (b"the store fails", b"the store is back"):
            assert told in server.log
        await server.start(nursery)
        async with server.http() as http:
            kept = {event["id"] for event in (await http.get("/v1/users/ada/events")).json()["events"]}
            assert {"database is locked", "was deleted or replaced"} | ({"full"} if small else set()) <= kept
            assert (await publish(http, "ada", type="agent_started")).status_code == 202
            assert (await http.get("/v1/stats")).json()["store"]["state"] == "ok"
        assert await server.end(signal.SIGTERM) == 0
    if small is None:
        pytest.skip("no file system could be mounted: a full disk was not tried, all else was")


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return


async def test_a_backup_under_load_is_a_database_to_go_on_with_elsewhere(tmp_path: Path) -> None:
    file, backup = tmp_path / "it.db", tmp_path / "elsewhere" / "backup.db"
    backup.parent.mkdir()
    answered: list[str] = []

    async def work(http: httpx.AsyncClient, name: int) -> None:
        for number in range(100_000):
            id = f"{name}-{number}"
            try:
                answer = await publish(http, "ada", type="agent_started", payload=id, id=id)
            except httpx.TransportError:
                return
            if answer.status_code == 202:
                answered.append(id)
            else:  # full: somebody has to confirm
                await trio.sleep(0.05)

    async def there_are(enough: int) -> bool:
        return len(answered) >= enough

    async with a_server(file) as (server, nursery):
        await server.start(nursery, "--max-events-per-user", "20000", "--max-events", "20000")
        async with server.http() as http:
            for name in range(3):
                nursery.start_soon(work, http, name)
            await until(partial(there_are, 40))
            before = list(answered)
            command = [sys.executable, "-m", "trio_ws", "backup", str(backup), "--store", f"sqlite:{file}"]
            done = await trio.run_process(command, capture_stderr=True)
            assert b"1 users" in done.stderr
            await until(partial(there_are, len(answered) + 40))  # it has gone on
            assert (await http.get("/v1/stats")).json()["store"]["errors"] == 0
            await server.end(signal.SIGKILL)
    async with a_server(backup) as (server, nursery):
        await server.start(nursery, "--max-events-per-user", "20000", "--max-events", "20000")
        got: set[str] = set()
        async with trio_ws.connect(server.url, user="ada") as client:
            async for event in client:
                got.add(event.id)
                if got.issuperset(before):
                    break
        assert await server.end(signal.SIGTERM) == 0


async def test_one_process_uses_a_file_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "it.db"
    async with a_server(file) as (server, nursery):
        await server.start(nursery)
        command = [sys.executable, "-m", "trio_ws", "serve", "--insecure", "--store", f"sqlite:{file}"]
        second = await trio.run_process(
            [*command, "--port", "0", "--admin-port", "0"], capture_stderr=True, check=False
        )
        assert second.returncode == 2
        told = second.stderr.decode()
        assert told == f"trio-ws: can't open the store: {file} is in use by another trio-ws\n"
    assert oct(file.stat().st_mode & 0o777) == "0o600"


async def test_a_file_that_was_copied_after_an_orderly_end_is_all_there_is(tmp_path: Path) -> None:
    file, moved = tmp_path / "it.db", tmp_path / "elsewhere" / "it.db"
    async with a_server(file) as (server, nursery):
        await server.start(nursery)
        async with server.http() as http:
            assert (await publish(http, "ada", type="note", payload=1)).status_code == 202
        assert await server.end(signal.SIGTERM) == 0
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    store = SqliteStore(moved)
    assert (await store.open()).users == ["ada"]
    kept = await store.load("ada")
    await store.close()
    assert kept is not None
    assert [json.loads(event.payload) for event in kept.events] == [1]
    assert kept.user.reserved == kept.user.head == 1
