"""The care for workers: fakes that are cheap to start, real processes, sockets and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_ws.cli import workers
from trio_ws.cli.output import Failure
from trio_ws.cli.systemd import Handed, Notices, ServiceManager
from trio_ws.cli.worker import Worker, how_it_ended
from trio_ws.cli.worker import start as start_worker
from trio_ws.cli.workers import Supervisor
from trio_ws.server.listening import SharedAddress

from .fake_admin import finish, start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED, and nothing was shown: workers need Linux"),
]

FAKE = Path(__file__).with_name("fake_worker.py")


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of other processes
        await trio.sleep(0.005)


@attrs.define
class Stage:
    """A supervisor and its fakes.

    Attributes:
      ready: how often it said that all serve.
      status: its exit status, when it has ended.
    """

    plan: Path
    supervisor: Supervisor
    port: int
    ready: list[None]
    told: list[dict[str, str]]
    status: int | None = None

    def send(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def log(self, word: str = "") -> list[tuple[int, str]]:
        """What befell the fakes, in order: process id and what it was."""
        try:
            lines = self.plan.with_suffix(".log").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]
        return [(pid, text) for pid, text in found if text.startswith(word)]

    def alive(self) -> list[int]:
        return sorted(self.supervisor._workers)

    async def ask(self) -> int:
        """Which process answers."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            return int(await stream.receive_some())

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        await until(lambda: self.status is not None)
        assert self.status is not None
        return self.status


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PAUSES", (0.0, 0.01, 0.02))


@asynccontextmanager
async def staged(
    tmp_path: Path, plan: str = "serve", count: int = 2, **options: object
) -> AsyncIterator[Stage]:
    """A supervisor at work; what still runs at the end is killed."""
    file = tmp_path / "plan"
    file.write_text(plan)
    manager = tmp_path / "manager"
    told: list[dict[str, str]] = []
    with (
        trio.fail_after(60),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
        Notices() as notices,
    ):
        listening.bind(str(manager))
        ws, admin = await SharedAddress.listen("127.0.0.1", 0), await SharedAddress.listen("127.0.0.1", 0)
        ready: list[None] = []
        async with trio.open_nursery() as nursery:
            commands = [[sys.executable, "-S", str(FAKE), str(file), str(n)] for n in range(count)]
            supervisor = Supervisor(
                commands,
                ws,
                admin,
                notices,
                ServiceManager(str(manager)),
                lambda: ready.append(None),
                **({"hangup": True, "drain_time": 5.0} | options),  # type: ignore[arg-type]
            )
            stage = Stage(file, supervisor, ws.addresses[0][1], ready, told)

            async def run() -> None:
                stage.status = await supervisor.run()

            nursery.start_soon(run)
            # The signal receivers are there when it has begun.
            await until(lambda: stage.log() or stage.status is not None)
            try:
                yield stage
            finally:
                for pid in supervisor._workers:
                    os.kill(pid, signal.SIGKILL)
                nursery.cancel_scope.cancel()
        listening.setblocking(False)
        while True:
            try:
                lines = listening.recv(4096).decode().split("\n")
            except BlockingIOError:
                break
            told.append(dict(line.split("=", 1) for line in lines))


async def test_it_is_ready_when_all_are_and_ends_when_all_have_drained(tmp_path: Path) -> None:
    async with staged(tmp_path, count=3) as stage:
        await until(lambda: stage.ready)
        # Each has a share of those who come, by a hash of where they come from.
        seen = set()
        while len(seen) < 3:
            seen.add(await stage.ask())
        assert seen == set(stage.alive())
        assert await stage.end() == 0
        assert len(stage.log("drained")) == 3
        assert len(stage.ready) == 1
    assert [told["STATUS"] for told in stage.told if "READY" in told] == ["serving: 3 of 3 workers are ready"]
    assert stage.told[-1]["STOPPING"] == "1"
    assert int(stage.told[-1]["EXTEND_TIMEOUT_USEC"]) > 5e6


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path, "slow") as stage:
        await until(lambda: stage.ready)
        stage.send(signal.SIGTERM)
        await until(lambda: len(stage.log("SIGTERM")) == 2)
        assert await stage.end(signal.SIGINT) == 128 + signal.SIGINT


async def test_who_does_not_end_is_killed(tmp_path: Path) -> None:
    async with staged(tmp_path, "slow", drain_time=-0.9) as stage:
        await until(lambda: stage.ready)
        assert await stage.end() == 1


async def test_a_signal_ends_a_start_that_takes_for_ever(tmp_path: Path) -> None:
    async with staged(tmp_path, "mute") as stage:
        assert await stage.end() == 0
        assert not stage.ready


async def test_who_dies_is_started_again_and_nobody_is_refused_meanwhile(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await until(lambda: stage.ready)
        before = stage.alive()
        os.kill(before[0], signal.SIGKILL)
        # Those whose share it was wait in its queue, which is still there.
        answers = {await stage.ask() for _ in range(40)}
        await until(lambda: len(stage.alive()) == 2 and stage.alive() != before)
        assert before[0] not in answers - {before[1]}
        assert answers <= {*before, *stage.alive()}
        assert await stage.end() == 0


async def test_who_dies_at_once_again_and_again_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(tmp_path) as stage:
        await until(lambda: stage.ready)
        stage.plan.write_text("die")
        os.kill(stage.alive()[0], signal.SIGKILL)
        await until(lambda: stage.status is not None)
        assert stage.status == 1
        # As often as there are pauses; and the other one was left in order.
        assert len(stage.log("die")) == len(workers.PAUSES)
        assert len(stage.log("drained")) == 1
    assert caplog.messages[-1].endswith("died again (exit status 3): giving up")


async def test_who_has_lived_for_a_while_is_started_again_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "QUICK", 0.0)
    async with staged(tmp_path, "die", count=1) as stage:
        await until(lambda: len(stage.log("die")) > 2 * len(workers.PAUSES))
        stage.plan.write_text("serve")
        await until(lambda: stage.ready)
        assert await stage.end() == 0


async def test_what_is_wrong_with_all_is_told_by_one(tmp_path: Path) -> None:
    async with staged(tmp_path, "wrong", count=3) as stage:
        await until(lambda: stage.status is not None)
        assert stage.status == 2
        assert len(stage.log("wrong")) == 1


async def test_who_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.3)
    monkeypatch.setattr(workers, "HEARING", 0.05)
    async with staged(tmp_path, "hang", count=1) as stage:
        await until(lambda: stage.log("hang"))
        stage.plan.write_text("serve")
        await until(lambda: stage.log("serve"))
        monkeypatch.setattr(workers, "PATIENCE", 60.0)
        assert await stage.end() == 0


async def test_who_could_not_be_heard_as_all_stood_still_is_not_killed(mock_clock: MockClock) -> None:
    told: list[int] = []

    class Silent(Worker):
        def tell(self, number: int) -> None:
            told.append(number)

    nowhere = SharedAddress.of([])
    with Notices() as notices:
        supervisor = Supervisor(
            [], nowhere, nowhere, notices, ServiceManager(), bool, hangup=False, drain_time=1.0
        )
        worker = supervisor._workers[0] = Silent(1, 0, 0.0)
        worker.hear({"READY": "1"}, trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor._kill_who_hangs)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(workers.PATIENCE + 100)
            await trio.testing.wait_all_tasks_blocked()
            worker.hear({"WATCHDOG": "1"}, trio.current_time())
            mock_clock.jump(workers.HEARING)
            await trio.testing.wait_all_tasks_blocked()
            assert told == []
            mock_clock.jump(workers.PATIENCE)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(workers.HEARING)
            await trio.testing.wait_all_tasks_blocked()
            assert told == [signal.SIGKILL]
            nursery.cancel_scope.cancel()


async def test_a_hangup_is_for_all(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await until(lambda: stage.ready)
        stage.send(signal.SIGHUP)
        await until(lambda: len(stage.log("SIGHUP")) == 2)
        assert await stage.end() == 0


async def test_one_after_the_other_is_replaced_and_nobody_is_refused(tmp_path: Path) -> None:
    async with staged(tmp_path, count=3) as stage:
        await until(lambda: stage.ready)
        before = stage.alive()
        answers = set()
        stage.send(signal.SIGUSR2)
        stage.send(signal.SIGUSR2)  # the same restart
        while len(stage.log("drained")) < 3:
            answers.add(await stage.ask())
        await until(lambda: len(stage.alive()) == 3)
        assert not {*before} & {*stage.alive()}
        assert answers <= {*before, *stage.alive()}
        order = [text.split()[0] for _, text in stage.log() if text != "SIGTERM"]
        assert order == ["serve"] * 3 + ["serve", "drained"] * 3
        assert await stage.end() == 0


async def test_who_drains_already_is_not_told_again(tmp_path: Path) -> None:
    async with staged(tmp_path, "slow") as stage:
        await until(lambda: stage.ready)
        stage.send(signal.SIGUSR2)
        await until(lambda: stage.log("SIGTERM"))  # the first one goes, and takes its time
        stage.send(signal.SIGTERM)
        await until(lambda: len(stage.log("SIGTERM")) == 3)
        assert sorted(pid for pid, _ in stage.log("SIGTERM")) == stage.alive()
        assert await stage.end() == 128 + signal.SIGTERM


@pytest.mark.parametrize("plan", ["die", "wrong", "mute"])
async def test_a_successor_that_is_of_no_use_replaces_nobody(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SUCCESSION", 0.5)
    async with staged(tmp_path) as stage:
        await until(lambda: stage.ready)
        before = stage.alive()
        stage.plan.write_text(plan)
        stage.send(signal.SIGUSR2)
        await until(lambda: stage.log(plan))
        await until(lambda: stage.alive() == before)
        assert {await stage.ask() for _ in range(20)} <= {*before}
        # And another try is possible.
        monkeypatch.setattr(workers, "SUCCESSION", 60.0)
        stage.plan.write_text("serve")
        stage.send(signal.SIGUSR2)
        await until(lambda: len(stage.log("drained")) == 2)
        assert await stage.end() == 0


async def test_workers_end_with_their_supervisor_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("serve")
    program = (
        "import os, sys, time, socket\n"
        "from trio_ws.cli.systemd import Handed\n"
        "from trio_ws.cli.worker import start\n"
        "sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]\n"
        "told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "told.bind('')\n"
        "command = [sys.executable, '-S', *sys.argv[1:]]\n"
        "notify = '@' + told.getsockname()[1:].decode()\n"
        "print(start(command, Handed(sockets[:1], sockets[1:]), {'NOTIFY_SOCKET': notify}), flush=True)\n"
        "told.recv(100)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", program, str(FAKE), str(tmp_path / "plan")]
    process = await trio.lowlevel.open_process(arguments, stdout=subprocess.PIPE)
    with trio.fail_after(60):
        text = b""
        assert process.stdout is not None
        while b"ready" not in text:
            text += await process.stdout.receive_some()
        process.kill()
        await process.wait()
        log = tmp_path / "plan.log"
        await until(lambda: log.read_text().endswith("drained\n"))
        await process.stdout.aclose()


async def test_that_it_is_ready_may_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(1, os.getpid(), 0.0)
    with Notices() as notices, trio.fail_after(60):
        manager = ServiceManager(notices.address, patience=60.0)
        while not caplog.records:  # until no more are taken
            manager.tell(STATUS="starting")
        manager.tell(READY=1, STATUS="serving")
        worker.hear((await notices.receive())[1], 1.0)  # there is room for one more
        manager.tell(WATCHDOG=1, STATUS="serving")
        while worker.status != "serving":
            worker.hear((await notices.receive())[1], 1.0)
    assert worker.ready.is_set()
    assert worker.heard == 1.0


def test_how_it_ended() -> None:
    assert [how_it_ended(status) for status in (0, 3, -9)] == [
        "exit status 0",
        "exit status 3",
        "killed by SIGKILL",
    ]


async def test_only_the_kernel_says_who_tells() -> None:
    with Notices() as notices:
        with trio.fail_after(5):
            ServiceManager(notices.address).tell(READY=1, STATUS="a = b")
            assert await notices.receive() == (os.getpid(), {"READY": "1", "STATUS": "a = b"})


def test_sockets_of_another_process_are_left_alone() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ws", "A": "b"}
    assert Handed.of(environ) == Handed()
    assert environ == {"A": "b"}


def test_a_socket_needs_a_name_that_is_known() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "trio-ws.socket"}
    with pytest.raises(Failure, match=r"is named 'trio-ws\.socket': name it ws or admin"):
        Handed.of(environ)


def test_a_port_that_somebody_has_is_not_shared_with_him() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        arguments = ("--workers", "2", "--store", "redis://localhost", "--insecure", "--port", str(port))
        status, _, err = finish(start("serve", *arguments, "--admin-port", "0"))
    assert (status, err) == (2, f"trio-ws: can't listen on 127.0.0.1:{port}: address already in use\n")


async def test_a_server_takes_the_sockets_that_it_is_handed(tmp_path: Path) -> None:
    file = tmp_path / "ws"
    tcp, unix = await SharedAddress.listen("127.0.0.1", 0), await SharedAddress.listen(f"unix:{file}", 0)
    admin = await SharedAddress.listen("127.0.0.1", 0)
    handed = Handed([*tcp.open(), *unix.open()], admin.open())
    command = [sys.executable, "-m", "trio_ws", "serve", "--store", "memory", "--insecure", "--port", "1"]
    with trio.fail_after(60), Notices() as notices:
        pid = start_worker(command, handed, {"NOTIFY_SOCKET": notices.address})
        for one in (*handed.ws, *handed.admin):
            one.close()
        worker = Worker(1, pid, trio.current_time())
        while not worker.ready.is_set():
            teller, told = await notices.receive()
            assert teller == pid
            worker.hear(told, trio.current_time())
        async with httpx.AsyncClient(trust_env=False) as client:
            host, port = admin.addresses[0]
            assert (await client.get(f"http://{host}:{port}/readyz")).status_code == 200
        for opened in (trio.open_tcp_stream(*tcp.addresses[0]), trio.open_unix_socket(str(file))):  # noqa: ASYNC105
            async with await opened as stream:
                await stream.send_all(b"GET /nowhere HTTP/1.1\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 4")
        worker.tell(signal.SIGTERM)
        await worker.watch()
        assert worker.exit_status == 0
    # The file is its maker's to remove.
    assert await trio.Path(file).exists()
    for address in (tcp, unix, admin):
        address.close()
    assert not await trio.Path(file).exists()
