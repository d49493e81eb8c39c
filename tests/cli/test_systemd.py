"""What a service manager is told, over a real socket; and a real server that tells it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trio_ws.cli.systemd import ServiceManager

from .fake_admin import ROOT, environment, finish, start


class Manager:
    """The other end: a datagram socket, and what came on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(30)

    def receive(self) -> dict[str, str]:
        """The next datagram, waited for."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = request.param == "abstract"
    found = Manager(f"@trio-ws-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify"))
    yield found
    found.close()


def test_what_is_told_is_one_datagram_without_line_ends_in_it(manager: Manager) -> None:
    ServiceManager(manager.address).tell(READY=1, STATUS="a\nSTOPPING=1")
    assert manager.receive() == {"READY": "1", "STATUS": "a STOPPING=1"}


def test_the_environment_is_read_and_cleared() -> None:
    environ = {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    assert ServiceManager.of(environ) == ServiceManager("/s", 3.0)
    assert environ == {"A": "b"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_of_nobody_or_of_another_process(variables: dict[str, str]) -> None:
    assert ServiceManager.of({"NOTIFY_SOCKET": "/s", **variables}).patience is None


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@", "/" + "x" * 200, "@\0\0", ""])
def test_a_manager_that_cannot_be_told_ends_nothing(address: str, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(address).tell(READY=1)
    assert "can't be told" in caplog.text


def test_one_whose_queue_is_full_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = Manager(str(tmp_path / "notify"))
    for _ in range(10_000):
        ServiceManager(full.address).tell(WATCHDOG=1)
        if caplog.records:
            break
    full.close()
    assert "can't be told" in caplog.text


async def test_it_is_told_twice_as_often_as_it_asks(tmp_path: Path, autojump_clock: MockClock) -> None:
    manager = Manager(str(tmp_path / "notify"))
    states = iter(("one", "two", "three", "four"))
    with trio.move_on_after(3.1):
        await ServiceManager(manager.address, 2.0).keep_informed(lambda: next(states))
    assert [manager.receive()["STATUS"] for _ in range(4)] == ["one", "two", "three", "four"]
    manager.close()


async def test_nobody_who_watches_is_nobody_to_inform() -> None:
    await ServiceManager(None, 2.0).keep_informed(lambda: "")
    await ServiceManager("/s").keep_informed(lambda: "")


@pytest.mark.integration
def test_a_server_tells_of_its_start_its_life_and_its_end(manager: Manager) -> None:
    variables = environment(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000")
    variables.pop("WATCHDOG_PID", None)
    process = start(
        "serve", "--store", "memory", "--insecure", "--port", "0", "--admin-port", "0", env=variables
    )
    ready = manager.receive()
    while "READY" not in ready:
        assert ready.keys() == {"WATCHDOG", "STATUS"}
        ready = manager.receive()
    assert ready == {"READY": "1", "STATUS": "serving: 0 connections, 0 users, 0 events held"}
    # Both addresses are listened on by then.
    assert process.stderr is not None
    assert [process.stderr.readline().split(b" on ")[0] for _ in range(2)] == [b"listening", b"admin"]
    for _ in range(3):
        assert manager.receive()["WATCHDOG"] == "1"
    process.send_signal(signal.SIGTERM)
    told = manager.receive()
    while "STOPPING" not in told:
        told = manager.receive()
    assert told == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "18000000"}
    assert finish(process)[0] == 0


@pytest.mark.integration
def test_a_loop_that_hangs_is_noticed(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    program = (
        "import os, time, trio\n"
        "from trio_ws.cli.systemd import ServiceManager\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(ServiceManager.of(os.environ).keep_informed, lambda: 'alive')\n"
        "        await trio.sleep(0.5)\n"
        "        ServiceManager(os.environ['SAME']).tell(HUNG=1)\n"
        "        time.sleep(60)\n"
        "trio.run(main)\n"
    )
    variables = environment(NOTIFY_SOCKET=manager.address, SAME=manager.address, WATCHDOG_USEC="100000")
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=variables)
    try:
        while "HUNG" not in manager.receive():
            pass
        manager._socket.settimeout(1)
        with pytest.raises(TimeoutError):
            manager.receive()
    finally:
        process.kill()
        process.wait()
        manager.close()
