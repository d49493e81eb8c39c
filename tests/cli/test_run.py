"""`trio-ws run`: real commands, and a server that is there, away, or in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.fake_admin import FakeAdmin, finish, start, trio_ws

LIFECYCLE = ["agent_started", "tool_executing", "tool_completed", "agent_completed"]


def without_output(admin: FakeAdmin) -> list[str]:
    return [type_ for type_ in admin.types() if type_ != "tool_output"]


def payload(admin: FakeAdmin, type_: str) -> dict[str, object]:
    [event] = [event for event in admin.accepted if event["type"] == type_]
    return event["payload"]


def test_a_run_is_told_from_start_to_end(admin: FakeAdmin) -> None:
    script = "echo one; echo two >&2; exit 3"
    status, out, err = trio_ws("run", "ada", "--url", admin.url, "--", "sh", "-c", script)
    assert (status, out, err) == (3, b"one\n", "two\n")
    types = admin.types()
    assert types[:2] == LIFECYCLE[:2]
    assert types[-2:] == LIFECYCLE[2:]
    assert set(types[2:-2]) == {"tool_output"}
    assert sorted(admin.text().split()) == ["one", "two"]
    assert {event["user"] for event in admin.accepted} == {"ada"}
    [run] = admin.runs
    assert {event["run"] for event in admin.accepted[1:-1]} == {run}
    started, executing = payload(admin, "agent_started"), payload(admin, "tool_executing")
    command = "sh -c 'echo one; echo two >&2; exit 3'"
    assert started == {"run": run, "lease": 30, "name": command, "input": {"command": command}}
    assert executing == {"call": 1, "tool": "sh", "input": {"command": command}}
    completed = payload(admin, "tool_completed")
    assert 0 <= completed.pop("duration") < 30
    error = {"kind": "ExitStatus", "message": "exit status 3"}
    told = {"outcome": "failed", "error": error}
    assert completed == {"call": 1, "tool": "sh", "output": {"exit_status": 3}, **told}
    assert payload(admin, "agent_completed") == {"result": {"exit_status": 3}, **told}


def test_output_passes_unchanged_whatever_its_bytes(admin: FakeAdmin) -> None:
    data = bytes(range(256)) * 300 + "é…𝄞".encode() * 20_000
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    status, out, _ = trio_ws("run", "ada", "--url", admin.url, "--", sys.executable, "-c", code, stdin=data)
    assert status == 0
    assert out == data
    assert admin.text() == data.decode("utf-8", "replace")
    assert payload(admin, "agent_completed")["outcome"] == "completed"


def test_quiet_keeps_the_output_to_the_events(admin: FakeAdmin) -> None:
    status, out, err = trio_ws(
        "run", "ada", "--quiet", "--url", admin.url, "--", "sh", "-c", "echo a; echo b >&2"
    )
    assert (status, out, err) == (0, b"", "")
    assert sorted(admin.text().split()) == ["a", "b"]


@pytest.mark.parametrize(("command", "expected"), [("/no/such/command", 127), ("/", 126)])
def test_a_command_that_cannot_be_started(admin: FakeAdmin, command: str, expected: int) -> None:
    status, _, err = trio_ws("run", "ada", "--url", admin.url, "--", command)
    assert status == expected
    assert err.startswith(f"trio-ws: {command}: ")
    assert err.count("\n") == 1
    assert admin.types() == LIFECYCLE
    assert payload(admin, "tool_completed")["output"] == {"exit_status": expected}
    error = payload(admin, "tool_completed")["error"]
    assert error["message"].startswith(f"{command}: ")
    assert payload(admin, "agent_completed")["error"] == error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_command_and_the_run_still_ends(admin: FakeAdmin, number: int) -> None:
    # A session of its own: no terminal has handed the signal to the command already.
    process = start("run", "ada", "--url", admin.url, "--", "sleep", "60", start_new_session=True)
    admin.wait_for(lambda: "tool_executing" in admin.types())
    process.send_signal(number)
    status, _, _ = finish(process)
    assert status == 128 + number
    assert admin.types() == LIFECYCLE
    assert payload(admin, "tool_completed")["output"] == {"exit_status": 128 + number}
    assert payload(admin, "agent_completed")["outcome"] == "cancelled"


def test_a_command_may_outlive_a_signal(admin: FakeAdmin) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = start("run", "ada", "--url", admin.url, "--", "sh", "-c", script, start_new_session=True)
    admin.wait_for(lambda: "ready" in admin.text())
    process.send_signal(signal.SIGTERM)
    status, out, _ = finish(process)
    assert (status, out) == (5, b"ready\ngot it\n")
    assert admin.text() == "ready\ngot it\n"


def test_the_server_is_away_at_first(admin: FakeAdmin) -> None:
    admin.stop()
    process = start("run", "ada", "--url", admin.url, "--", "sh", "-c", "echo one; exit 4")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"one\n"
    assert b"connection refused; the run goes on" in process.stderr.readline()
    admin.start()
    status, _, err = finish(process)
    assert status == 4
    assert err == "trio-ws: the server takes events again\n"
    assert without_output(admin) == LIFECYCLE
    assert admin.text() == "one\n"


def test_the_server_goes_away_in_the_middle_and_comes_back(admin: FakeAdmin) -> None:
    script = "echo one; read line; echo $line; read line; echo $line"
    process = start("run", "ada", "--url", admin.url, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    admin.wait_for(lambda: admin.text() == "one\n")
    admin.stop()
    process.stdin.write(b"two\n")
    process.stdin.flush()
    assert b"connection refused" in process.stderr.readline()
    admin.start()
    status, out, _ = finish(process, b"three\n")
    assert (status, out) == (0, b"one\ntwo\nthree\n")
    assert without_output(admin) == LIFECYCLE
    assert admin.text() == "one\ntwo\nthree\n"


def test_an_answer_that_is_lost_loses_and_doubles_nothing(admin: FakeAdmin) -> None:
    admin.script = ["drop", 200, "drop", 503, "drop"]
    status, _, _ = trio_ws(
        "run", "ada", "--url", admin.url, "--", "sh", "-c", "echo one; sleep 0.2; echo two"
    )
    assert status == 0
    assert not admin.script
    assert without_output(admin) == LIFECYCLE
    assert admin.text() == "one\ntwo\n"


def test_a_line_that_is_refused_for_now_is_sent_again(admin: FakeAdmin) -> None:
    def full(lines: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{"error": {"code": "overloaded", "message": "full", "status": 503}} for _ in lines]

    admin.script = [full, full]
    status, _, err = trio_ws("run", "ada", "--url", admin.url, "--", "echo", "one")
    assert status == 0
    assert "full (overloaded)" in err
    assert without_output(admin) == LIFECYCLE


def test_a_refusal_for_good_is_told_once_and_the_command_runs(admin: FakeAdmin) -> None:
    admin.status = 401
    status, out, err = trio_ws(
        "run", "ada", "--url", admin.url, "--", "sh", "-c", "echo one; sleep 0.2; exit 6"
    )
    assert (status, out) == (6, b"one\n")
    assert err == "trio-ws: the server refuses events of this run: said 401 (no)\n"
    assert len(admin.requests) == 1


def test_giving_up(admin: FakeAdmin) -> None:
    admin.stop()
    status, _, err = trio_ws(
        "run", "ada", "--url", admin.url, "--give-up-after", "0.2", "--", "sh", "-c", "exit 7"
    )
    assert status == 7
    assert "trio-ws: gave up: 4 events of this run were not delivered\n" in err


def test_a_signal_after_the_end_gives_up(admin: FakeAdmin) -> None:
    admin.stop()
    process = start("run", "ada", "--url", admin.url, "--", "sh", "-c", "echo $$", start_new_session=True)
    assert process.stdout is not None
    command = int(process.stdout.readline())
    with pytest.raises(ProcessLookupError):  # once it was waited for
        while True:
            os.kill(command, 0)
            time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 0
    assert "trio-ws: gave up: " in err


def test_the_key_is_sent(admin: FakeAdmin) -> None:
    trio_ws("run", "ada", "--url", admin.url, "--api-key", "k", "--", "true")
    assert {headers["authorization"] for _, _, headers in admin.requests} == {"Bearer k"}


def test_what_the_command_leaves_running_is_not_waited_for(admin: FakeAdmin) -> None:
    status, out, _ = trio_ws("run", "ada", "--url", admin.url, "--", "sh", "-c", "sleep 600 & echo $!")
    os.kill(int(out), signal.SIGKILL)
    assert status == 0


def test_a_reader_that_goes_away_is_seen_by_the_command(admin: FakeAdmin) -> None:
    process = start("run", "ada", "--url", admin.url, "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_the_user_stops_the_command(admin: FakeAdmin) -> None:
    process = start("run", "ada", "--url", admin.url, "--", "sleep", "60", start_new_session=True)
    admin.wait_for(lambda: "tool_executing" in admin.types())
    with admin.changed:
        admin.cancelling = True
        admin.changed.notify_all()
    status, _, _ = finish(process)
    assert status == 128 + signal.SIGTERM
    assert admin.types() == LIFECYCLE
    assert payload(admin, "tool_completed")["outcome"] == "cancelled"
    assert payload(admin, "agent_completed")["outcome"] == "cancelled"


def test_a_run_that_the_server_has_forgotten_is_begun_again(admin: FakeAdmin) -> None:
    script = "echo one; read line; echo $line"
    process = start("run", "ada", "--url", admin.url, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    admin.wait_for(lambda: admin.text() == "one\n")
    with admin.changed:
        admin.runs.clear()
        admin.changed.notify_all()
    admin.wait_for(lambda: admin.runs)
    status, out, err = finish(process, b"two\n")
    assert (status, out) == (0, b"one\ntwo\n")
    assert "the server has lost the run (no such run); it is begun again" in err
    assert without_output(admin) == [*LIFECYCLE[:2], *LIFECYCLE]
    assert admin.text() == "one\ntwo\n"
    assert {event["run"] for event in admin.accepted[-2:-1]} == admin.runs
