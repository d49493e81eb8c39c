"""What is pinned, and the bill of what a server needs, are as pyproject.toml asks: `scripts/lock` makes both again."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WHERE = ROOT / "scripts" / "requirements"


def asked_for(*extras: str) -> Iterator[Requirement]:
    """What the package and these extras of it need; an extra may name others."""
    listed = [
        *PROJECT["dependencies"],
        *(line for e in extras for line in PROJECT["optional-dependencies"][e]),
    ]
    for requirement in map(Requirement, listed):
        if requirement.name == PROJECT["name"]:
            yield from asked_for(*requirement.extras)
        else:
            yield requirement


def pinned() -> dict[str, str]:
    """The version of each package in dev.txt."""
    text = (WHERE / "dev.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE))


def billed() -> dict[str, str]:
    """The version of each package in sbom.json."""
    components = json.loads((WHERE / "sbom.json").read_text())["components"]
    return {component["name"]: component["version"] for component in components}


@pytest.mark.parametrize(
    ("versions", "extras"),
    [(pinned(), ("server", "test", "lint", "compile")), (billed(), ("server",))],
    ids=["dev.txt", "sbom.json"],
)
def test_it_holds_all_that_is_asked_for(versions: dict[str, str], extras: tuple[str, ...]) -> None:
    known = {canonicalize_name(name): version for name, version in versions.items()}
    asked = list(asked_for(*extras))
    assert len(asked) > 10
    unfit = [
        str(requirement)
        for requirement in asked
        if known.get(canonicalize_name(requirement.name), "") not in requirement.specifier
        or canonicalize_name(requirement.name) not in known
    ]
    assert not unfit, f"run scripts/lock: {unfit}"


def test_each_file_is_pinned_by_its_hash() -> None:
    entries = re.split(r"(?m)^(?=\S+==)", (WHERE / "dev.txt").read_text())[1:]
    assert len(entries) == len(pinned())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_bill_has_the_versions_that_are_pinned() -> None:
    known = pinned()
    assert {name: known.get(name) for name in billed()} == billed()
