"""`trio-ws serve` and `tail` as processes, on real sockets of this machine, with the other commands against them."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import time
from typing import Any

import attrs
import httpx
import jwt
import pytest
import trio
from click.testing import CliRunner

from trio_ws.addresses import netloc, reachable
from trio_ws.cli import cli
from trio_ws.cli.serve import Extension, run_server
from trio_ws.hub import Hub
from trio_ws.settings import load

from .fake_admin import environment, finish, start, trio_ws

pytestmark = pytest.mark.integration


@attrs.frozen
class Server:
    process: subprocess.Popen[bytes]
    ws: str
    admin: str

    def publish(self, *arguments: str) -> dict[str, Any]:
        result = CliRunner().invoke(cli, ["publish", *arguments, "--url", self.admin])
        assert (result.exit_code, result.stderr) == (0, "")
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def tail(self, *arguments: str) -> subprocess.Popen[bytes]:
        return start("tail", *arguments, "--url", self.ws)

    def wait_for_line(self, part: str) -> str:
        assert self.process.stderr is not None
        for line in iter(self.process.stderr.readline, b""):
            if part in line.decode():
                return line.decode()
        pytest.fail(f"the server ended without a line on {part}")


def serve(*arguments: str, **options: Any) -> Server:
    process = start("serve", "--store", "memory", "--port", "0", "--admin-port", "0", *arguments, **options)
    assert process.stderr is not None
    lines = []
    while not (lines and lines[-1].startswith("admin on ")):
        line = process.stderr.readline().decode()
        assert line, f"the server ended: {lines}"
        lines.append(line)
    ws, admin = lines[-2].split(), lines[-1].split()
    assert ws[:2] == ["listening", "on"]
    assert admin[:2] == ["admin", "on"]
    return Server(process, ws[2], admin[2])


def stop(server: Server, number: int = signal.SIGTERM) -> tuple[int, str]:
    server.process.send_signal(number)
    status, _, err = finish(server.process)
    return status, err


@pytest.fixture
def server() -> Server:
    return serve("--insecure")


def read(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    value: dict[str, Any] = json.loads(process.stdout.readline())
    return value


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    return status, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_on_a_signal(server: Server, number: int) -> None:
    host, _, port = server.ws.removeprefix("ws://").removesuffix("/ws").rpartition(":")
    assert host == "127.0.0.1"
    socket.create_connection((host, int(port))).close()
    assert httpx.get(f"{server.admin}/readyz", trust_env=False).status_code == 200
    status, err = stop(server, number)
    assert status == 0
    assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once(server: Server) -> None:
    # A client that acks nothing: the drain gives it a moment.
    tail = server.tail("ada", "--no-ack")
    server.publish("ada", "agent_started")
    read(tail)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("draining")
    status, err = stop(server, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in err
    end(tail)


def test_readiness_goes_first(server: Server) -> None:
    tail = server.tail("ada", "--no-ack")
    server.publish("ada", "agent_started")
    read(tail)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("draining")
    assert httpx.get(f"{server.admin}/readyz", trust_env=False).status_code == 503
    assert finish(server.process)[0] == 0
    end(tail)


def test_clients_are_told_before_it_ends(server: Server) -> None:
    tail = server.tail("ada", "--state")
    assert tail.stderr is not None
    assert any(line == b"trio-ws: live\n" for line in iter(tail.stderr.readline, b""))
    server.process.send_signal(signal.SIGTERM)
    assert tail.stderr.readline().startswith(b"trio-ws: offline: the server is going away; next try in ")
    assert finish(server.process)[0] == 0


@pytest.mark.parametrize("flag", ["port", "admin-port"])
def test_a_port_in_use_is_one_line_and_exit_2(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"port": "0", "admin-port": "0", flag: str(port)}
        arguments = [part for name, value in ports.items() for part in (f"--{name}", value)]
        status, out, err = trio_ws("serve", "--insecure", "--store", "memory", *arguments)
    assert (status, out) == (2, b"")
    assert err == f"trio-ws: can't listen on 127.0.0.1:{port}: address already in use\n"


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid", "x" * 70])
def test_an_address_that_cannot_be_had(host: str) -> None:
    status, out, err = trio_ws(
        "serve",
        *("--insecure", "--insecure", "--store", "memory"),
        *("--host", host, "--port", "0", "--admin-port", "0"),
    )
    assert (status, out) == (2, b"")
    assert err.startswith(f"trio-ws: can't listen on {host}:0: ")
    assert err.count("\n") == 1


def test_ipv6_is_in_brackets() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = serve("--insecure", "--host", "::1", "--admin-host", "::1")
    assert server.ws.startswith("ws://[::1]:")
    assert server.admin.startswith("http://[::1]:")
    tail = server.tail("ada")
    server.publish("ada", "token", "1")
    assert read(tail)["payload"] == 1
    assert end(tail) == (130, "")
    assert stop(server)[0] == 0


def test_a_listener_on_any_address_is_reached_on_this_machine() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "[::]", "::1", "h")] == [
        *("127.0.0.1", "::1", "::1", "::1", "h")
    ]


def test_netloc() -> None:
    assert [netloc(host, 1) for host in ("::1", "[::1]", "fe80::1%eth0", "h")] == [
        "[::1]:1",
        "[::1]:1",
        "[fe80::1]:1",
        "h:1",
    ]


def test_from_publish_to_tail_and_back(server: Server) -> None:
    tail = server.tail("ada")
    accepted = server.publish(
        "ada", "agent_started", '{"run": 7, "name": "ü\\u2028"}', "--wait", "--timeout", "20"
    )
    assert accepted["confirmed_after"] >= 0
    event = read(tail)
    assert event == {
        "seq": 1,
        "id": accepted["id"],
        "type": "agent_started",
        "payload": {"run": 7, "name": "ü\u2028"},
        "ts": event["ts"],
        "critical": True,
    }
    assert abs(event["ts"] - time.time()) < 60
    assert trio_ws("publish", "ada", "token", "-", "--url", server.admin, stdin=b"1\n2\n3\n")[0] == 0
    assert [read(tail)["payload"] for _ in range(3)] == [1, 2, 3]
    assert end(tail) == (130, "")


def test_looking_only_confirms_nothing(server: Server) -> None:
    tail = server.tail("ada", "--no-ack")
    server.publish("ada", "agent_started")
    read(tail)
    status, out, err = trio_ws(
        "publish", "ada", "token", "--confirm", "--wait", "--timeout", "0.5", "--url", server.admin
    )
    assert status == 1
    assert "error" in json.loads(out)
    assert err.startswith("trio-ws: refused: ")
    end(tail)


def test_gaps_are_lines(server: Server) -> None:
    server.publish("ada", "token", "0")
    for n in (1, 2):
        server.publish("ada", "progress", str(n), "--key", "k")
    tail = server.tail("ada")
    assert read(tail)["payload"] == 0
    gap = {"from": 2, "to": 2, "reason": "superseded", "lost": {"progress": 1}, "critical": 0}
    assert read(tail) == {"gap": gap}
    assert read(tail)["payload"] == 2
    end(tail)


def test_gaps_may_be_left_out(server: Server) -> None:
    server.publish("ada", "token", "0")
    for n in (1, 2):
        server.publish("ada", "progress", str(n), "--key", "k")
    tail = server.tail("ada", "--no-gaps")
    assert [read(tail)["payload"] for _ in range(2)] == [0, 2]
    end(tail)


def test_starting_with_what_is_to_come(server: Server) -> None:
    server.publish("ada", "token", '"old"')
    tail = server.tail("ada", "--from", "now", "--state")
    assert tail.stderr is not None
    assert next(line for line in iter(tail.stderr.readline, b"") if line == b"trio-ws: live\n")
    server.publish("ada", "token", '"new"')
    assert read(tail)["payload"] == "new"
    end(tail)


def test_tail_waits_for_a_server_and_says_so_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tail = start("tail", "ada", "--url", f"ws://127.0.0.1:{port}/ws")
    assert tail.stderr is not None
    line = tail.stderr.readline().decode()
    assert line.startswith("trio-ws: not connected")
    assert line.endswith("trying until it works\n")
    server = serve("--insecure", "--port", str(port))
    server.publish("ada", "token", "1")
    assert read(tail)["payload"] == 1
    assert end(tail) == (130, "")
    stop(server)


def test_a_reader_of_tail_that_goes_away_ends_it_quietly(server: Server) -> None:
    tail = server.tail("ada")
    server.publish("ada", "token", "1")
    read(tail)
    assert tail.stdout is not None
    tail.stdout.close()
    server.publish("ada", "token", "2")
    assert tail.wait(30) == 0
    assert tail.stderr is not None
    assert tail.stderr.read() == b""
    tail.stderr.close()


def test_without_insecure_a_name_is_not_enough() -> None:
    server = serve()
    status, out, err = trio_ws("tail", "ada", "--url", server.ws)
    assert (status, out) == (1, b"")
    assert err.startswith("trio-ws: the server ended the session: ")
    assert "4401" in err
    assert err.count("\n") == 1
    status, err = stop(server)
    assert status == 0


def test_a_token_says_who_one_is() -> None:
    key = "k" * 32
    server = serve("--jwt-audience", "ui", env=environment(TRIO_WS_JWT_SECRET=key))
    claims = {"sub": "ada", "aud": "ui", "exp": time.time() + 600}
    token = jwt.encode(claims, key, algorithm="HS256")
    tail = start("tail", "ada", "--url", server.ws, env=environment(TRIO_WS_TOKEN=token))
    server.publish("ada", "token", "1")
    assert read(tail)["payload"] == 1
    end(tail)
    foreign = jwt.encode(claims, "x" * 32, algorithm="HS256")
    status, _, err = trio_ws("tail", "ada", "--url", server.ws, "--token", foreign)
    assert status == 1
    assert foreign not in err
    status, err = stop(server)
    assert status == 0
    assert token not in err


def test_the_admin_api_asks_for_the_key() -> None:
    server = serve("--insecure", env=environment(TRIO_WS_API_KEY="hunter2"))
    status, _, err = trio_ws("publish", "ada", "token", "--url", server.admin)
    assert status == 1
    assert err.startswith("trio-ws: refused: ")
    status, out, _ = trio_ws("status", "--json", "--url", server.admin, "--api-key", "hunter2")
    assert status == 0
    assert json.loads(out)["connections"]["current"] == 0
    assert stop(server)[0] == 0


def test_status_of_a_server_and_a_user(server: Server) -> None:
    server.publish("ada", "token", "1")
    for arguments in ((), ("ada",)):
        status, out, err = trio_ws("status", *arguments, "--url", server.admin)
        assert (status, err) == (0, "")
        assert out.count(b"\n") > 5
    status, _, err = trio_ws("status", "nobody", "--url", server.admin)
    assert status == 1
    assert err.count("\n") == 1


def test_a_run_is_seen_by_tail(server: Server) -> None:
    tail = server.tail("ada")
    script = "for n in 1 2 3; do echo line $n; sleep 0.1; done; exit 9"
    status, out, _ = trio_ws("run", "ada", "--url", server.admin, "--", "sh", "-c", script)
    assert status == 9
    text, types = "", []
    while "agent_completed" not in types:
        event = read(tail)
        types.append(event["type"])
        text += event["payload"].get("text", "")
    assert text.encode() == out
    assert [type_ for type_ in types if type_ != "tool_output"] == [
        "agent_started",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]
    end(tail)


def test_json_logs_are_json(server: Server) -> None:
    server = serve("--insecure", "--log-format", "json")
    status, err = stop(server)
    assert status == 0
    [line] = [json.loads(line) for line in err.splitlines()]
    assert line["event"] == "draining"
    assert line["signal"] == "SIGTERM"


async def test_an_extension_is_served_announced_and_cancelled_at_the_drain(
    capfd: pytest.CaptureFixture[str],
) -> None:
    told: list[object] = []

    async def extend(hub: Hub, nursery: trio.Nursery, ws: tuple[str, int]) -> Extension:
        async def work() -> None:
            await hub.publish("ada", "token", 1)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.sleep_forever()
            finally:
                told.append("cancelled")

        told.append(ws)
        return Extension(work=work, announcement=lambda admin: f"more on {admin}/more")

    flags = {"port": "0", "admin_port": "0", "insecure": 1, "store": "memory"}
    with trio.fail_after(30):
        run = functools.partial(run_server, load(flags, {}).settings, extend=extend)
        assert await run() == 0
    (host, port), cancelled = told
    assert cancelled == "cancelled"
    listening, admin, more = capfd.readouterr().err.splitlines()[:3]
    assert listening == f"listening on ws://{host}:{port}/ws"
    assert more == f"more on {admin.removeprefix('admin on ')}/more"
