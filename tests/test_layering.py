"""Who may import whom: arrows point down only, as the design has them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trio_ws"
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {"addresses", "errors", "event", "config", "identity", "__version__", "COMPILED"}
# Each room, and the rooms and modules of the package that it may import besides its own.
MAY_IMPORT = {
    "core": BASE,
    "hub": BASE | {"core", "store"},
    "client": BASE | {"core"},
    "store": BASE | {"core"},
    "redis": BASE | {"core", "store"},
    "cluster": BASE | {"core", "hub", "store"},
    "server": BASE | {"core", "files", "hub", "store"},
    "admin": BASE | {"core", "files", "hub", "store"},
    "publisher": BASE | {"core"},
    "validation": BASE | {"client", "faults", "COMPILED"},
    "agui": BASE,
    "adapters": BASE | {"agui"},
}
NOT_IN_CORE = {
    "trio",
    "time",
    "os",
    "socket",
    "secrets",
    "threading",
    "asyncio",
    "subprocess",
    "selectors",
    "logging",
}
MAY_SIMULATE = {"cli/simulate.py"}
MAY_VALIDATE = {"cli/validate.py"}
WEBSOCKET_BORDERS = {"server/library.py", "client/transport.py"}
# What an extra brings; the base package works without it.
EXTRAS = (
    "click",
    "typed_settings",
    "hypercorn",
    "starlette",
    "structlog",
    "jwt",
    "rich",
    "httpx",
    "anyio",
    "hiredis",
    "pygal",
    "markdown_it",
    "prometheus_client",
    "opentelemetry",
    "pytest",
    "hypothesis",
    "ag_ui",
    "langgraph",
    "agents",
)


def imports(file: Path) -> Iterator[str]:
    """The absolute names of all that `file` imports, wherever in it, and also for the type checker only."""
    package = ["trio_ws", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def inner(imported: str) -> str | None:
    """The room or module of this package that `imported` is in."""
    parts = imported.split(".")
    return parts[1] if parts[0] == "trio_ws" and len(parts) > 1 else None


def test_there_are_files_to_look_at() -> None:
    assert {"core", "cli"} <= {file.parent.name for file in FILES}
    assert "trio_ws.core.backoff.Backoff" in imports(PACKAGE / "cli" / "outbox.py")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_arrows_point_down(file: Path) -> None:
    room = name(file).split("/")[0].removesuffix(".py")
    rooms = {inner(imported) for imported in imports(file)} - {None, room}
    if room in BASE:
        assert rooms <= BASE
    elif room in MAY_IMPORT:
        assert rooms <= MAY_IMPORT[room]
    if room != "testing" and name(file) not in MAY_SIMULATE:
        assert "testing" not in rooms
    if room != "validation" and name(file) not in MAY_VALIDATE:
        assert "validation" not in rooms


@pytest.mark.parametrize("file", [f for f in FILES if name(f).startswith(("agui/", "adapters/"))], ids=name)
def test_the_mappings_need_no_package(file: Path) -> None:
    assert {imported.split(".")[0] for imported in imports(file)} <= {
        *sys.stdlib_module_names,
        "attrs",
        "msgspec",
        "trio_ws",
    }
    assert not {"trio", "asyncio"} & {imported.split(".")[0] for imported in imports(file)}


@pytest.mark.parametrize("file", [f for f in FILES if name(f).startswith("core/")], ids=name)
def test_the_core_is_pure(file: Path) -> None:
    roots = {imported.split(".")[0] for imported in imports(file)}
    assert not roots & NOT_IN_CORE
    # Randomness is an argument: of `random` the core knows the type, and makes none.
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random", f"line {node.lineno}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "random.Random", f"line {node.lineno}"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            pytest.fail(f"line {node.lineno}: the core is sync")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_trio_websocket_has_two_borders(file: Path) -> None:
    if name(file) not in WEBSOCKET_BORDERS:
        assert "trio_websocket" not in {imported.split(".")[0] for imported in imports(file)}


def test_the_command_line_imports_the_simulator_only_when_it_is_run() -> None:
    code = (
        "import sys, trio_ws.cli; print([name for name in sys.modules if name.startswith('trio_ws.testing')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"


def test_the_base_package_needs_no_extra() -> None:
    code = f"import sys, trio_ws; print(sorted(set({EXTRAS!r}) & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"
