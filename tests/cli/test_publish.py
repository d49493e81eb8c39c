"""`trio-ws publish` against a small admin API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.cli.fake_admin import ROOT, FakeAdmin, environment, finish, start, trio_ws
from trio_ws.cli import cli


def publish(admin: FakeAdmin, *arguments: str) -> Result:
    return CliRunner(env={"TRIO_WS_API_KEY": None}).invoke(cli, ["publish", *arguments, "--url", admin.url])


def lines(output: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_one_event(admin: FakeAdmin) -> None:
    result = publish(admin, "ada", "agent_started", '{"run": 7}')
    assert (result.exit_code, result.stderr) == (0, "")
    [event] = admin.accepted
    assert (event["user"], event["type"], event["payload"]) == ("ada", "agent_started", {"run": 7})
    assert lines(result.stdout) == [
        {"id": event["id"], "seq": 1, "epoch": "e", "state": "held", "duplicate": False}
    ]


def test_every_option_is_in_the_body(admin: FakeAdmin) -> None:
    options = ["--id=i", "--priority=high", "--key=k", "--merge=append", "--ttl=5", "--confirm"]
    assert publish(admin, "a/b ü", "token", *options).exit_code == 0
    assert admin.accepted == [
        {
            "user": "a%2Fb%20%C3%BC",
            "type": "token",
            "id": "i",
            "priority": "high",
            "key": "k",
            "merge": "append",
            "ttl": 5.0,
            "confirm": True,
        }
    ]


def test_without_options_the_body_is_bare(admin: FakeAdmin) -> None:
    publish(admin, "ada", "token")
    assert set(admin.accepted[0]) == {"user", "type", "id"}


def test_waiting_for_the_confirmation(admin: FakeAdmin) -> None:
    publish(admin, "ada", "token", "--wait", "--timeout", "7")
    publish(admin, "ada", "token")
    assert [path for _, path, _ in admin.requests] == [
        "/v1/users/ada/events?wait=confirmed&timeout=7.0",
        "/v1/users/ada/events",
    ]


@pytest.mark.parametrize("status", [413, 422, 504, 401])
def test_a_refusal_is_told_and_exits_1(admin: FakeAdmin, status: int) -> None:
    admin.status = status
    result = publish(admin, "ada", "token", "1")
    assert result.exit_code == 1
    assert result.stderr == f"trio-ws: refused: said {status} (no)\n"
    assert lines(result.stdout) == [{"error": {"code": "no", "message": f"said {status}"}}]
    assert len(admin.requests) == 1


def test_what_is_refused_for_now_is_sent_again_under_the_same_id(admin: FakeAdmin) -> None:
    seen: list[str] = []

    def drop(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        seen.extend(line["id"] for line in batch)
        return [admin.accept(line) for line in batch]

    admin.script = [503, drop, 200]
    result = publish(admin, "ada", "token", "1")
    assert result.exit_code == 0
    assert len(admin.requests) == 2
    assert [event["id"] for event in admin.accepted] == seen


def test_an_answer_that_is_lost_is_asked_for_again(admin: FakeAdmin) -> None:
    admin.script = ["drop"]
    result = publish(admin, "ada", "token", "1")
    assert result.exit_code == 0
    assert len(admin.accepted) == 1
    assert lines(result.stdout)[0]["duplicate"] is True


def test_patience_ends(admin: FakeAdmin) -> None:
    admin.status = 503
    result = publish(admin, "ada", "token", "1", "--retry-for", "0.3")
    assert result.exit_code == 1
    assert result.stderr == "trio-ws: refused: said 503 (overloaded)\n"
    assert 2 <= len(admin.requests) <= 4


def test_no_server(admin: FakeAdmin) -> None:
    admin.stop()
    result = publish(admin, "ada", "token", "1")
    assert result.exit_code == 1
    assert result.stderr == f"trio-ws: no server answers at {admin.url}: connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{a"], "PAYLOAD is not JSON: "),
        (["hello"], '; a text is given as "\\"hello\\""'),
        (["NaN"], "PAYLOAD is not JSON; a text is given as"),
        (["1e999"], "PAYLOAD holds a number out of range"),
        (['"\\ud800"'], "PAYLOAD is not JSON"),
        (["[" * 5000], "PAYLOAD is nested too deeply"),
        (["\udcff"], "PAYLOAD is not JSON"),
        (["1", "--id", "\udcff"], "--id must be UTF-8"),
        (["1", "--api-key", "a\nb"], "--api-key must not hold control characters"),
        (["1", "--url", "ftp://x"], "--url must be such as http://"),
    ],
)
def test_a_wrong_argument_exits_2(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, ["publish", "ada", "token", *arguments])
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "option", [["--ttl", "nan"], ["--ttl", "inf"], ["--ttl", "0"], ["--retry-for", "nan"]]
)
def test_what_is_no_time_exits_2(option: list[str]) -> None:
    assert CliRunner().invoke(cli, ["publish", "ada", "token", "1", *option]).exit_code == 2


@pytest.mark.parametrize(
    "command", [["publish", "\udcff", "token"], ["publish", "ada", "\udcff"], ["tail", "\udcff"]]
)
def test_a_name_that_is_not_utf_8_exits_2(command: list[str]) -> None:
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert result.stderr.endswith("must be UTF-8\n")


def test_a_key_may_be_any_text(admin: FakeAdmin) -> None:
    assert publish(admin, "ada", "token", "1", "--api-key", "schlüssel").exit_code == 0
    [(_, _, headers)] = admin.requests
    assert headers["authorization"].encode("latin-1").decode() == "Bearer schlüssel"


def test_the_key_comes_from_the_environment_too(admin: FakeAdmin) -> None:
    CliRunner(env={"TRIO_WS_API_KEY": "k"}).invoke(cli, ["publish", "ada", "token", "--url", admin.url])
    [(_, _, headers)] = admin.requests
    assert headers["authorization"] == "Bearer k"


def test_the_address_comes_from_the_environment(admin: FakeAdmin) -> None:
    port = admin.url.rpartition(":")[2]
    env = {"TRIO_WS_ADMIN_HOST": "0.0.0.0", "TRIO_WS_ADMIN_PORT": port}
    assert CliRunner(env=env).invoke(cli, ["publish", "ada", "token"]).exit_code == 0
    assert len(admin.accepted) == 1


def test_lines_of_standard_input(admin: FakeAdmin) -> None:
    stdin = b"".join(b'{"n": %d}\n' % n for n in range(1000)) + b"\n  \nnull"
    status, out, err = trio_ws("publish", "ada", "token", "-", "--id", "x", "--url", admin.url, stdin=stdin)
    assert (status, err) == (0, "")
    assert [event["payload"] for event in admin.accepted] == [*({"n": n} for n in range(1000)), None]
    assert [event["id"] for event in admin.accepted] == [f"x-{n}" for n in range(1, 1002)]
    assert [line["seq"] for line in lines(out)] == list(range(1, 1002))
    assert len(admin.requests) < 200


def test_a_line_is_sent_when_it_comes(admin: FakeAdmin) -> None:
    process = start("publish", "ada", "token", "-", "--url", admin.url, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for n in range(3):
        process.stdin.write(b"%d\n" % n)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["seq"] == n + 1
    assert finish(process)[0] == 0


def test_one_bad_line_spoils_no_other(admin: FakeAdmin) -> None:
    status, out, err = trio_ws("publish", "ada", "token", "-", "--url", admin.url, stdin=b"1\n{x\n\xff\n2\n")
    assert status == 1
    assert [event["payload"] for event in admin.accepted] == [1, 2]
    assert ["error" in line for line in lines(out)] == [False, True, True, False]
    assert "line 2 is not JSON" in err
    assert "line 3 is not JSON" in err


def test_lines_that_are_refused_for_now_are_sent_again(admin: FakeAdmin) -> None:
    def second_full(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        full = {"error": {"code": "overloaded", "message": "full", "retry_after": 0}}
        return [full if line["payload"] == 2 else admin.accept(line) for line in batch]

    admin.script = [503, second_full, "drop"]
    status, out, err = trio_ws("publish", "ada", "token", "-", "--url", admin.url, stdin=b"1\n2\n3\n")
    assert (status, err) == (0, "")
    assert sorted(event["payload"] for event in admin.accepted) == [1, 2, 3]
    assert all("seq" in line for line in lines(out))


def test_waiting_with_lines_confirms_each_before_the_next(admin: FakeAdmin) -> None:
    status, _, _ = trio_ws("publish", "ada", "token", "-", "--wait", "--url", admin.url, stdin=b"1\n2\n")
    assert status == 0
    assert [path for _, path, _ in admin.requests] == ["/v1/users/ada/events?wait=confirmed&timeout=5.0"] * 2


def test_ctrl_c_while_standard_input_is_silent(admin: FakeAdmin) -> None:
    process = start("publish", "ada", "token", "-", "--url", admin.url, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"1\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130  # with our side of its input still open
    assert finish(process)[2] == ""


def test_a_reader_of_the_answers_that_goes_away(admin: FakeAdmin) -> None:
    process = start("publish", "ada", "token", "-", "--url", admin.url, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b"1\n" * 10)
    process.stdin.flush()
    assert process.wait(30) == 0
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()


def test_a_progress_bar_on_a_terminal(admin: FakeAdmin, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    file = tmp_path / "lines"
    file.write_bytes(b"1\n" * 500)
    ours, theirs = pty.openpty()
    with file.open("rb") as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "trio_ws", "publish", "ada", "token", "-", "--url", admin.url],
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment(TERM="xterm"),
        )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # Linux, when the other side is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    assert b"events" in shown
    assert len(admin.accepted) == 500
