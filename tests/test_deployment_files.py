"""The files of docs/deploying that no proxy reads: each is what its reader takes, and fits this package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trio_ws.cli.systemd import CLOSING_TIME
from trio_ws.config import Config
from trio_ws.settings import ENV_PREFIX, FIELDS, load

ROOT = Path(__file__).resolve().parents[1]
DEPLOYING = ROOT / "docs" / "deploying"
SHUTDOWN = Config().drain_timeout + CLOSING_TIME
"""Seconds after which a server that was told to go has gone."""


def unit() -> dict[str, str]:
    """The settings of the systemd unit."""
    lines = (DEPLOYING / "trio-ws.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))


@pytest.mark.parametrize(
    ("unit", "drop_in"),
    [
        ("trio-ws.service", None),
        ("trio-ws.service", "trio-ws-workers.conf"),
        ("trio-ws@.service", "trio-ws-node.conf"),
    ],
)
def test_the_unit_is_one_that_systemd_takes(unit: str, drop_in: str | None, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SKIPPED, and nothing was shown: there is no systemd-analyze here")
    program = "/opt/trio-ws/bin/trio-ws"

    def put(source: str, file: Path) -> None:
        text = (DEPLOYING / source).read_text()
        assert program in text
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.replace(program, sys.executable))

    file = tmp_path / unit
    put("trio-ws.service", file)
    if drop_in is not None:
        put(drop_in, tmp_path / f"{unit}.d" / "own.conf")
    file = file if "@" not in unit else tmp_path / unit.replace("@", "@1")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_waits_for_the_drain_and_asks_for_what_serve_tells() -> None:
    settings = unit()
    assert settings["Type"] == "notify"
    assert float(settings["TimeoutStopSec"].removesuffix("s")) > SHUTDOWN
    assert float(settings["WatchdogSec"].removesuffix("s")) >= 10
    assert settings["RestartPreventExitStatus"] == "2"
    command = settings["ExecStart"].split()
    assert command[1:] == ["serve", "--config", "/etc/trio-ws/trio-ws.toml"]


def test_the_configuration_is_one_that_serve_takes() -> None:
    settings = load({}, {}, file=DEPLOYING / "trio-ws.toml").settings
    assert settings.allowed_origins == ("https://app.example.com",)
    assert settings.log_format == "json"


def test_the_image_is_made_of_what_there_is_and_its_settings_are_known() -> None:
    text = (DEPLOYING / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())
    variables = dict(re.findall(rf"({ENV_PREFIX}\w+)=(\S+)", text))
    assert variables
    settings = load({}, variables).settings
    assert settings.log_format == "json"
    ports = re.search(r"^EXPOSE (\d+) (\d+)$", text, re.MULTILINE)
    assert ports is not None
    assert [int(port) for port in ports.groups()] == [FIELDS["port"].default, FIELDS["admin_port"].default]
    [command] = re.findall(r"^\s+CMD (\[.*\])$", text, re.MULTILINE)
    compile(json.loads(command)[2], "HEALTHCHECK", "exec")


def test_the_cluster_probes_what_there_is_and_waits_for_the_drain() -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOYING / "kubernetes.yaml").read_text()))
    workload, *services = documents
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + SHUTDOWN
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"ws": FIELDS["port"].default, "admin": FIELDS["admin_port"].default}
    assert {port["targetPort"] for service in services for port in service["spec"]["ports"]} == ports.keys()
    command, *flags = container["args"]
    assert command == "serve"
    flags = dict(zip(flags[::2], flags[1::2], strict=True))
    given = {"allowed_origins": (flags.pop("--allowed-origin"),)}
    given |= {name.removeprefix("--").replace("-", "_"): value for name, value in flags.items()}
    load(given, {})


def test_workers_are_reloaded_by_the_signal_of_a_rolling_restart() -> None:
    text = (DEPLOYING / "trio-ws-workers.conf").read_text()
    assert "\nExecReload=/bin/kill -USR2 $MAINPID\n" in text
    assert "serve --config /etc/trio-ws/trio-ws.toml --workers auto\n" in text


def test_the_nodes_of_the_composition_share_a_redis_that_loses_nothing() -> None:
    composition = yaml.safe_load((DEPLOYING / "compose.yaml").read_text())
    services = composition["services"]
    names = set()
    for name in ("node1", "node2", "node3"):
        node = services[name]
        settings = load({}, {key: value or "k" for key, value in node["environment"].items()}).settings
        assert settings.is_shared
        names.add(settings.node)
        assert float(node["stop_grace_period"].removesuffix("s")) > SHUTDOWN
    assert len(names) == 3
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    volumes = {
        volume.partition(":")[0] for name in ("redis", "caddy") for volume in services[name]["volumes"]
    }
    assert volumes >= composition["volumes"].keys()


def test_the_proxy_of_the_composition_finds_its_nodes() -> None:
    if shutil.which("caddy") is None:
        pytest.skip("SKIPPED, and nothing was shown: there is no caddy here (apt-get install caddy)")
    composition = yaml.safe_load((DEPLOYING / "compose.yaml").read_text())
    given = composition["services"]["caddy"]["environment"]
    command = ["caddy", "adapt", "--config", str(DEPLOYING / "Caddyfile"), "--adapter", "caddyfile"]
    for environment, hosts in ((given, ("node1", "node2", "node3")), ({}, ("127.0.0.1",))):
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment, "SITE": "localhost"}
        )
        assert done.returncode == 0, done.stderr
        dialed = set(re.findall(r'"dial":"([^"]+)"', done.stdout))
        assert dialed == {f"{host}:{port}" for host in hosts for port in (8765, 8766)}
        assert '"host":["localhost"]' in done.stdout
        networks = re.search(r'"ranges":(\[[^]]+\])', done.stdout)
        assert networks is not None
        assert json.loads(networks[1]) == environment.get("BACKENDS", "10.0.0.0/8").split()
