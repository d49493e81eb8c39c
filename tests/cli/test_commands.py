"""The command as a whole: help, what is imported when, `config` and `status`."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_ws import __version__
from trio_ws.cli import COMMANDS, cli, main
from trio_ws.cli.options import HELP
from trio_ws.settings import FIELDS, flag

from .fake_admin import ROOT, FakeAdmin, environment, finish, start, trio_ws


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; sys.argv = ['trio-ws', '--help']\n"
        "from trio_ws.__main__ import main\n"
        "try: main()\n"
        "finally: print(sorted({'httpx', 'rich', 'structlog', 'typed_settings', 'starlette'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[-1] == "[]"
    for name, text in COMMANDS.items():
        assert f"  {name} " in out
        assert text in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert f"trio-ws {name}" in result.output or f"cli {name}" in result.output


def test_every_setting_has_a_flag_with_help() -> None:
    assert set(HELP) == set(FIELDS)
    output = CliRunner().invoke(cli, ["serve", "--help"], terminal_width=200).output
    for name in HELP:
        assert flag(name) in output
    for shown in (
        "--allowed-origin ORIGIN",
        "--critical-ttl SECONDS",
        "--connect-rate N",
        "--retry-intervals JSON",
    ):
        assert shown in output


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"trio-ws {__version__}\n"


def test_an_unknown_command_exits_2() -> None:
    assert CliRunner().invoke(cli, ["fly"]).exit_code == 2


def test_without_the_extra_one_line_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['click'] = None; sys.argv = ['trio-ws', 'serve']\n"
        "from trio_ws.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "trio-ws: the command line needs click, which the server extra brings: pip install 'trio-ws[server]'\n"
    )


def test_a_part_of_the_extra_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None; sys.argv = ['trio-ws', 'publish', 'ada', 'token']\n"
        "from trio_ws.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "trio-ws: publish needs httpx, which the server extra brings: pip install 'trio-ws[server]'\n"
    )


def test_config_shows_values_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("max_events = 300\n")
    runner = CliRunner(env={"TRIO_WS_API_KEY": "hunter2", "TRIO_WS_CONFIG": str(file)})
    arguments = ["config", "--preset", "development", "--insecure", "--allowed-origin", "https://a.example"]
    result = runner.invoke(cli, arguments)
    assert result.exit_code == 0
    rows = {
        line.split()[0]: line.split(None, 1)[1].split() for line in result.output.splitlines() if line.strip()
    }
    assert set(rows) == {"setting", *FIELDS}
    assert rows["max_events"] == ["300", "file", str(file)]
    assert rows["max_connections"] == ["50", "preset", "development"]
    assert rows["api_key"] == ["********", "environment", "TRIO_WS_API_KEY"]
    assert rows["insecure"] == ["1", "flag", "--insecure"]
    assert rows["allowed_origins"] == ["https://a.example", "flag", "--allowed-origin"]
    assert rows["port"] == ["8765", "default"]

    value = json.loads(runner.invoke(cli, [*arguments, "--json"]).output)
    assert value["max_events"] == {"value": 300, "from": f"file {file}"}
    assert value["api_key"]["value"] == "********"
    assert set(value) == set(FIELDS)


@pytest.mark.parametrize("command", ["config", "serve"])
@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        (
            ["--port", "http"],
            {},
            "port must be a whole number from 0 to 65535, not 'http' (from flag --port)",
        ),
        ([], {"TRIO_WS_PROT": "1"}, "unknown environment variable TRIO_WS_PROT; did you mean TRIO_WS_PORT?"),
        (["--config", "/no/such"], {}, "the configuration file /no/such: No such file or directory"),
        (["--insecure", "--host", "0.0.0.0"], {}, None),
        (
            ["--store", "redis://x:y"],
            {},
            "store: a Redis URL has hosts as HOST or HOST:PORT, and number 1 is none (from flag --store)",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_2(
    command: str, arguments: list[str], env: dict[str, str], told: str | None
) -> None:
    result = CliRunner(env=env).invoke(cli, [command, *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("trio-ws: ")
    assert result.stderr.count("\n") == 1
    assert told is None or result.stderr == f"trio-ws: {told}\n"


STATS = {
    "connections": {"current": 2, "total": 1234567},
    "delivery": {"confirmation_rate": 0.98765432, "confirmation_p50": None},
    "alerts": [{"name": "recovery", "value": 4.5}, {"name": "response"}],
    "draining": False,
}


def test_status_as_tables(admin: FakeAdmin) -> None:
    admin.figures = STATS
    result = CliRunner().invoke(cli, ["status", "--url", admin.url])
    assert result.exit_code == 0
    words = result.output.split()
    for word in ("connections", "1234567", "0.9877", "-", "recovery", "4.5", "no"):
        assert word in words
    assert admin.requests[0][1] == "/v1/stats"


def test_status_as_json_and_of_a_user(admin: FakeAdmin) -> None:
    admin.figures = STATS
    result = CliRunner().invoke(cli, ["status", "a b", "--json", "--url", admin.url, "--api-key", "k"])
    assert json.loads(result.output) == STATS
    assert admin.requests[0][1] == "/v1/users/a%20b"
    assert admin.requests[0][2]["authorization"] == "Bearer k"


def test_status_of_a_cluster_has_its_nodes_first(admin: FakeAdmin) -> None:
    nodes = [
        {"node": "n1", "state": "serving", "users": 3},
        {"node": "n2", "state": "missing", "users": None},
    ]
    admin.figures = {**STATS, "nodes": nodes}
    result = CliRunner().invoke(cli, ["status", "--cluster", "--url", admin.url])
    assert admin.requests[0][1] == "/v1/stats?scope=cluster"
    words = result.output.split()
    assert words.index("n1") < words.index("n2") < words.index("missing") < words.index("1234567")
    wrong = CliRunner().invoke(cli, ["status", "ada", "--cluster", "--url", admin.url])
    assert (wrong.exit_code, len(admin.requests)) == (2, 1)


def test_status_tells_first_what_fires(admin: FakeAdmin) -> None:
    alert = {"name": "slow_recovery", "state": "firing", "since": 1.5, "value": 4.51234, "threshold": 4.0}
    summary = {"unit": "seconds", "summary": "clients are not back within 4 s"}
    admin.figures = {**STATS, "alerts": [{"name": "critical_loss", "state": "ok"}, {**alert, **summary}]}
    result = CliRunner().invoke(cli, ["status", "--url", admin.url])
    first = result.output.splitlines()[0]
    told = "ALERT slow_recovery: clients are not back within 4 s (4.512 seconds, threshold 4, since "
    assert first.startswith(told)
    assert "ALERT critical_loss" not in result.output


def test_status_of_a_user_has_the_newest_events(admin: FakeAdmin) -> None:
    event = {"seq": 7, "id": "i7", "type": "agent_started", "state": "sent", "ts": 1700000000.25}
    admin.figures = {"user": "a/b", "sessions": [], "events": [event]}
    result = CliRunner().invoke(cli, ["status", "a/b", "--url", admin.url])
    assert [path for _, path, _ in admin.requests] == ["/v1/users/a%2Fb", "/v1/users/a%2Fb/events?limit=20"]
    assert {"7", "i7", "agent_started", "sent"} <= set(result.output.split())
    assert ":20.250" in result.output  # the moment, as a clock shows it
    assert "1700000000" not in result.output


def test_status_of_an_event_is_its_story(admin: FakeAdmin) -> None:
    steps = [{"at": 1700000000.0, "step": "accepted"}, {"at": 1700000001.0, "step": "sent", "session": "s1"}]
    admin.figures = {"user": "a/b", "id": "i/7", "seq": 7, "state": "sent", "steps": steps}
    result = CliRunner().invoke(cli, ["status", "a/b", "i/7", "--url", admin.url])
    assert [path for _, path, _ in admin.requests] == ["/v1/users/a%2Fb/events/i%2F7"]
    lines = [line.split() for line in result.output.splitlines()]
    assert [line[2] for line in lines if len(line) > 2 and line[0][:4] == "2023"] == ["accepted", "sent"]


def test_status_of_nobody(admin: FakeAdmin) -> None:
    admin.status = 404
    admin.figures = {"error": {"code": "not_found", "message": "no such user"}}
    result = CliRunner().invoke(cli, ["status", "bob", "--url", admin.url])
    assert (result.exit_code, result.stderr) == (1, "trio-ws: no such user (not_found)\n")


def test_status_without_a_server(admin: FakeAdmin) -> None:
    admin.stop()
    result = CliRunner().invoke(cli, ["status", "--url", admin.url])
    assert result.exit_code == 1
    assert result.stderr == f"trio-ws: no server answers at {admin.url}: connection refused\n"


def test_status_of_another_kind_of_server(admin: FakeAdmin) -> None:
    admin.figures = ["not", "ours"]  # type: ignore[assignment]
    result = CliRunner().invoke(cli, ["status", "--url", admin.url])
    assert result.exit_code == 1
    assert result.stderr == f"trio-ws: {admin.url} does not answer as a trio-ws server\n"


def test_watching_until_ctrl_c(admin: FakeAdmin) -> None:
    admin.figures = STATS
    process = start("status", "--watch", "--json", "--url", admin.url)
    assert process.stdout is not None
    for _ in range(2):
        assert json.loads(process.stdout.readline()) == STATS
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, err) == (130, "")


def test_watching_goes_on_when_no_answer_comes(admin: FakeAdmin) -> None:
    admin.figures = STATS
    admin.script = ["drop"]
    process = start("status", "--watch", "--url", admin.url, env=environment(TERM="dumb"))
    admin.wait_for(lambda: len(admin.requests) > 1)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_watching_outlives_the_server(admin: FakeAdmin) -> None:
    admin.figures = STATS
    admin.stop()
    process = start("status", "--watch", "--json", "--url", admin.url)
    assert process.stdout is not None
    assert process.stderr is not None
    told = process.stderr.readline().decode()
    assert told == f"trio-ws: no server answers at {admin.url}: connection refused\n"
    admin.start()
    assert json.loads(process.stdout.readline()) == STATS
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


def test_python_dash_m_is_the_same_command() -> None:
    assert trio_ws("--version")[1].decode() == f"trio-ws {__version__}\n"


def test_the_runs_of_a_user(admin: FakeAdmin) -> None:
    run = {
        "run": "r",
        "status": "running",
        "started": 1e9,
        "text": "",
        "calls": 1,
        "questions": [],
        "tools": [],
    }
    asking = run | {"run": "q", "name": "critic", "questions": [{"prompt": "Deploy?\nReally?"}]}
    failed = run | {
        "run": "f",
        "ended": 1e9 + 2.5,
        "status": "failed",
        "error": {"kind": "E", "message": "no"},
    }
    admin.figures = {
        "runs": [run | {"tools": [{"tool": "search"}]}, asking, failed, run | {"text": "x" * 99}]
    }
    status, out, err = trio_ws("runs", "a/b", "--url", admin.url)
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.decode().splitlines()]
    assert rows[0] == ["run", "name", "status", "seconds", "at"]
    assert rows[1][:3] + rows[1][4:] == ["r", "-", "running", "tool:", "search"]
    assert rows[2][:3] + rows[2][4:] == ["q", "critic", "running", "asks:", "Deploy?", "Really?"]
    assert rows[3] == ["f", "-", "failed", "2.5", "E:", "no"]
    assert rows[4][4] == "…" + "x" * 59
    assert admin.requests[0][1] == "/v1/users/a%2Fb/runs"
    status, out, _ = trio_ws("runs", "ada", "--json", "--url", admin.url)
    assert [json.loads(line)["run"] for line in out.splitlines()] == ["r", "q", "f", "r"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["backup", "x", "--store", "memory"], "there is nothing to copy: the store is in memory"),
        (
            ["backup", "x", "--store", "redis://h"],
            "a Redis is copied by its own means: its RDB file, or a replica",
        ),
        (
            ["demo", "--workers", "2", "--store", "redis://h"],
            "the demo is one process: workers are for trio-ws serve",
        ),
    ],
)
def test_what_is_for_another_store_or_command(arguments: list[str], line: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stderr) == (2, f"trio-ws: {line}\n")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])
def test_ctrl_c_is_130_and_no_traceback_wherever_a_command_is(
    interruption: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def callback(**_: object) -> None:
        raise interruption

    monkeypatch.setattr(importlib.import_module("trio_ws.cli.config").command, "callback", callback)
    with pytest.raises(SystemExit) as ended:
        main(["config"])
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
