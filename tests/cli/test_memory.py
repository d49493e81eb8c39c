"""The memory that the limits add up to, and what there is: told where it is too little."""

from __future__ import annotations

import logging
import os
import resource
import sys
from pathlib import Path

import pytest

from trio_ws.cli import memory
from trio_ws.config import MIB, Config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bounds of other systems are not known")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 4 GiB without limits; gives the folder where its control groups are to be."""
    pages = {"SC_PHYS_PAGES": 4 * 1024 * MIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    return tmp_path


def in_groups(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path: text if path == Path("/proc/self/cgroup") else read(path)
    )


def limit(folder: Path, name: str, value: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{value}\n")


def test_the_limits_add_up() -> None:
    config = Config()
    assert 100 * MIB < memory.needed(config) < 200 * MIB
    assert memory.needed(Config(max_bytes=1024 * MIB)) - memory.needed(config) == 960 * MIB
    assert memory.needed(Config(max_connections=10_000)) > 1000 * MIB
    assert memory.needed(Config(max_connections=1000, max_message_bytes=MIB)) > 1000 * MIB


def test_a_machine_without_limits(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_groups(monkeypatch, "")
    assert memory.available() == (4096 * MIB, "the machine's")


def test_a_limited_address_space(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (400 * MIB if kind == resource.RLIMIT_AS else -1, -1)
    )
    have, source = memory.available()
    assert have == 400 * MIB - memory.RESERVED
    assert "RLIMIT_AS" in source


@pytest.mark.parametrize(
    ("groups", "name", "folder"),
    [
        ("0::/outer/inner\n", "memory.max", ""),
        ("3:cpu:/\n7:memory:/outer/inner\n0::/\n", "memory.limit_in_bytes", "memory"),
    ],
)
def test_the_narrowest_control_group(
    groups: str, name: str, folder: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_groups(monkeypatch, groups)
    root = machine / folder
    limit(root / "outer" / "inner", name, "max")
    limit(root / "outer", name, str(128 * MIB))
    limit(root, name, str(256 * MIB))
    assert memory.available() == (128 * MIB, str(root / "outer" / name))


def test_it_is_told(machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    in_groups(monkeypatch, "0::/\n")
    with caplog.at_level(logging.WARNING):
        memory.warn_of_memory(Config())
        assert not caplog.records
        limit(machine, "memory.max", str(128 * MIB))
        memory.warn_of_memory(Config())
    assert "and there are 128 MiB" in caplog.text
    assert "lower max_bytes" in caplog.text
