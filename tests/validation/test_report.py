"""The report: it tells what was found, in a form that can be read anywhere, and nothing of the machine's names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

from trio_ws.validation.findings import Findings
from trio_ws.validation.page import page
from trio_ws.validation.plan import QUICK
from trio_ws.validation.report import headline, write

from .findings import good, publish


def test_it_is_complete_and_its_parts_find_each_other(tmp_path: Path) -> None:
    rows = write(good(), tmp_path / "deep" / "report")
    directory = tmp_path / "deep" / "report"
    text = (directory / "report.md").read_text()
    images = re.findall(r"!\[[\w-]+\]\(([^)]+)\)", text)
    assert len(images) == 6
    assert all((directory / image).read_text().startswith("<svg") for image in images)
    assert "All requirements met" in text
    for row in rows:
        assert row.requirement.title in text
    results = json.loads((directory / "results.json").read_text())
    assert results["passed"] is True
    assert len(results["requirements"]) == len(rows)
    assert results["trio-ws"]["account"]["silent"] == 0


def test_the_page_is_one_file(tmp_path: Path) -> None:
    write(good(), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 6
    assert "<img" not in html
    assert not re.search(r"""(?:src|href)=["'](?!#)""", html)
    assert "prefers-color-scheme: dark" in html
    assert '<td class="met">' in html
    assert '<td class="missed">' not in html


def test_what_is_missed_is_told_first() -> None:
    findings = good()
    publish(findings.after.journals[0], "tool_completed", 1039.5, "load", seqs=True, comes=False)
    from trio_ws.validation.requirements import judge

    assert headline(findings, judge(findings)) == "2 of 18 requirements missed"


def test_a_miss_is_red_in_the_page(tmp_path: Path) -> None:
    findings = good()
    findings.reuse.hits = 0
    write(findings, tmp_path)
    assert '<td class="missed">✗ <strong>missed</strong></td>' in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["passed"] is False


def test_an_interrupted_one_tells_what_there_is(tmp_path: Path) -> None:
    findings = good()
    findings.interrupted = True
    findings.phases = {"load": findings.phases["load"], "types": (1100.0, None)}
    write(findings, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**Interrupted: 0 requirements missed so far" in text
    assert "It was not finished" in text
    assert json.loads((tmp_path / "results.json").read_text())["passed"] is False


def test_nothing_at_all_can_be_told_too(tmp_path: Path) -> None:
    write(attrs.evolve(Findings(plan=QUICK), interrupted=True), tmp_path)
    assert list(tmp_path.glob("*.svg")) == []


def test_what_never_came_is_valid_json(tmp_path: Path) -> None:
    write(good(), tmp_path)

    def no_constants(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    json.loads((tmp_path / "results.json").read_text(), parse_constant=no_constants)


def test_settings_are_text_whatever_is_in_them() -> None:
    html = page("| a |\n| --- |\n| <script>alert(1)</script> |\n", {})
    assert "<script" not in html
