"""What the documentation says is so: its programs run, and it names every limit, setting and command."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from trio_ws import Config
from trio_ws.cli import COMMANDS
from trio_ws.core import closing
from trio_ws.settings import FIELDS

ROOT = Path(__file__).resolve().parents[1]


def programs() -> list[tuple[str, str]]:
    """The Python blocks of the documentation that are whole programs."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            if "trio.run(" in block:
                found.append((page.name, block))
    return found


def test_every_limit_is_documented_with_its_name() -> None:
    text = (ROOT / "docs" / "limits.md").read_text()
    missing = [field.name for field in attrs.fields(Config) if f"`{field.name}`" not in text]
    assert not missing


def test_the_defaults_of_limits_are_documented() -> None:
    """A row may have several limits; where their defaults are numbers, they stand in the same order."""
    units = {"": 1, "KiB": 1024, "MiB": 1024**2}
    checked = 0
    for row in (ROOT / "docs" / "limits.md").read_text().splitlines():
        names = re.findall(r"`(\w+)`", row.split("|")[1]) if row.startswith("| `") else []
        defaults = [getattr(Config(), name) for name in names]
        if len(names) > 1 or (names and isinstance(defaults[0], int | float)):
            told = re.findall(r"([\d.]+)(?: ([KM]iB))?", row.split("|")[2])
            assert [float(number) * units[unit] for number, unit in told] == defaults, names
            checked += len(names)
    assert checked > 20


def test_every_setting_is_documented_with_its_name() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    own = FIELDS.keys() - attrs.fields_dict(Config).keys()
    assert own
    assert not [name for name in own if f"`{name}`" not in text]


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert not [name for name in COMMANDS if f"| `trio-ws {name}" not in text]


def test_every_page_and_every_script_is_in_a_list() -> None:
    front, scripts = (ROOT / "README.md").read_text(), ROOT / "scripts"
    assert [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name})" not in front] == []
    commands = {path.name for path in scripts.iterdir() if path.is_file() and not path.suffix}
    assert commands == set(
        re.findall(r"^\| `([\w-]+)` \|", (scripts / "README.md").read_text(), re.MULTILINE)
    )


def test_every_close_code_is_documented() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert not [code for code in closing.TABLE if str(code) not in text]


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.integration
@pytest.mark.parametrize(("page", "program"), programs(), ids=lambda x: x if x.endswith(".md") else "")
def test_programs_of_the_documentation_run(page: str, program: str) -> None:
    # A program of the README waits for a client; it gets one that says who it is, and port 0 instead of a fixed one.
    if "trio_ws.connect" not in program:
        program = program.replace(
            "        receipt = ", "        nursery.start_soon(watch, addresses[0])\n        receipt = ", 1
        ).replace(
            "trio_ws.serve, hub)", "lambda task_status: trio_ws.serve(hub, port=0, task_status=task_status))"
        )
        program = program.replace(
            "trio.run(main)",
            "async def watch(address):\n"
            "    async with trio_ws.connect('ws://%s:%d/ws' % address, user='ada') as client:\n"
            "        async for event in client:\n"
            "            pass\n\n\n"
            "trio.run(main)",
        )
        program = program.replace('.after, "s")', '.after, "s")\n        nursery.cancel_scope.cancel()')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "processed after" in done.stdout
