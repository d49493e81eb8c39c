"""The files of docs/deploying that no proxy reads: each is what its reader takes, and fits this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trio_ws.cli.serve import CLOSING_TIME
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


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("SKIPPED, and nothing was shown: there is no systemd-analyze here")
    text = (DEPLOYING / "trio-ws.service").read_text()
    program = "/opt/trio-ws/bin/trio-ws"
    assert program in text
    file = tmp_path / "trio-ws.service"
    file.write_text(text.replace(program, sys.executable))
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
