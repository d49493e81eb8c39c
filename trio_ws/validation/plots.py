"""The plots of a report, as SVG files that follow the reader's light or dark scheme.

Times that range from milliseconds to never are on a logarithmic axis, which pygal has only for both axes at once: so
their logarithms are plotted, on a plain axis with labels of our own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pygal
from pygal.style import Style

from .findings import Findings, Side
from .measures import RECOVER_WITHIN, delay, percentile, undisturbed
from .requirements import judge

# pygal hooks all imports of the process, to find maps that are packages of their own; each import would warn.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]

AFTER: Final = "trio-ws"
BEFORE: Final = "stock"
BINS: Final = 120
NEVER: Final = 100.0
"""Seconds at which what never came is drawn."""

Point = tuple[float, float]

# Colours that can be told apart by people who see red and green alike, on white and on black.
_SCHEME: Final = """inline:
svg { --ink: #1f2933; --grid: #d5dbe1; --c0: #0072b2; --c1: #d55e00; --c2: #56a0d3; --c3: #e69f00; --c4: #8a939c;
  font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) {
  svg { --ink: #d7dde3; --grid: #3b444d; --c0: #58b0f0; --c1: #f08a4b; --c2: #2f78b0; --c3: #c98a1c; --c4: #8a939c }
}
{{ id }}.axis .guides .line { stroke: var(--grid) !important; stroke-width: 1px }
{{ id }}.legends .legend text, {{ id }}.axis text { font-size: 13px }
{{ id }}.title { font-size: 13px }
"""

_STYLE: Final = {
    "background": "transparent",
    "plot_background": "transparent",
    "foreground": "var(--ink)",
    "foreground_strong": "var(--ink)",
    "foreground_subtle": "var(--ink)",
    "guide_stroke_color": "var(--grid)",
    "major_guide_stroke_color": "var(--grid)",
    "guide_stroke_dasharray": "2,4",
    "major_guide_stroke_dasharray": "2,4",
    "opacity": ".9",
    "opacity_hover": "1",
    "title_font_size": 13,
    "legend_font_size": 13,
    "label_font_size": 13,
    "major_label_font_size": 13,
    "value_font_size": 12,
    "font_family": "system-ui, sans-serif",
}


def plots(findings: Findings) -> dict[str, str]:
    """All plots for which something was measured: name to SVG."""
    makers: dict[str, Callable[[Findings], Any]] = {
        "latency": _latency,
        "distribution": _distribution,
        "recovery": _recovery,
        "buffer": _buffer,
        "confirmation": _confirmation,
        "before-after": _before_after,
    }
    made = {name: maker(findings) for name, maker in makers.items()}
    return {name: chart.render(is_unicode=True) for name, chart in made.items() if chart is not None}


def _chart(hues: Sequence[int], kind: Any = pygal.XY, **options: Any) -> Any:
    """A chart whose series have these colours of the scheme, in their order."""
    common = {
        "style": Style(**_STYLE, colors=tuple(f"var(--c{hue})" for hue in hues)),
        "css": ["file://style.css", "file://graph.css", _SCHEME],
        "js": [],
        "width": 900,
        "height": 340,
        "margin": 12,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "legend_box_size": 12,
        "dots_size": 2.5,
        "disable_xml_declaration": True,
        "truncate_legend": -1,
        "truncate_label": -1,
    }
    return kind(**{**common, **options})


def _log(seconds: float) -> float:
    return math.log10(max(seconds, 1e-4))


def _time_axis(values: Iterable[float]) -> list[dict[str, Any]]:
    """Labels for powers of ten that hold all of `values`, which are seconds."""
    logs = [_log(value) for value in values] or [-3.0, 0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return [{"value": n, "label": _power(n)} for n in range(low, max(high, low + 1) + 1)]


def _power(n: int) -> str:
    if 10.0**n >= NEVER:
        return "never"
    return f"{10**n} s" if n >= 0 else f"{10.0 ** (n + 3):g} ms"


def _line(chart: Any, name: str, points: Sequence[Point], **options: Any) -> None:
    """Adds a series that is a line, without dots."""
    chart.add(name, points, show_dots=False, stroke_style={"width": 2, **options})


def _latency(findings: Findings) -> Any:
    """The slowest event of each bin, and the cuts."""
    if not undisturbed(findings.after):
        return None
    began, _ = findings.phases["load"]
    slowest = {}
    for name, side in ((AFTER, findings.after), (BEFORE, findings.before)):
        sent = [s for s in side.sent("load") if s.processed is not None]
        slowest[name] = _bins([(s.at - began, delay(s)) for s in sent], findings.plan.duration)
    axis = _time_axis(seconds for points in slowest.values() for _, seconds in points)
    chart = _series_chart([0, 1, 4], axis, "seconds of load")
    _line(chart, f"{AFTER}, slowest", _logged(slowest[AFTER]))
    _line(chart, f"{BEFORE}, slowest", _logged(slowest[BEFORE]))
    low, high = axis[0]["value"], axis[-1]["value"]
    teeth = [point for cut in findings.after.cuts for point in _tooth(cut.at - began, low, high)]
    _line(chart, "a connection is cut", teeth, width=1, dasharray="3,4")
    return chart


def _series_chart(hues: Sequence[int], axis: list[dict[str, Any]], x_title: str, **options: Any) -> Any:
    ends = (axis[0]["value"], axis[-1]["value"])
    return _chart(hues, y_labels=axis, range=ends, x_title=x_title, **options)


def _bins(points: Sequence[Point], length: float) -> list[Point]:
    """The largest value of each of so many parts of the time."""
    width = max(length / BINS, 0.1)
    largest: dict[int, float] = {}
    for at, value in points:
        number = int(at / width)
        largest[number] = max(value, largest.get(number, 0.0))
    return [((number + 0.5) * width, value) for number, value in sorted(largest.items())]


def _logged(points: Sequence[Point]) -> list[Point]:
    return [(at, _log(value)) for at, value in points]


def _tooth(at: float, low: float, high: float) -> list[Point]:
    """Up and down again: a vertical line in a series that may not be interrupted."""
    return [(at, low), (at, high), (at, low)]


def _distribution(findings: Findings) -> Any:
    """Which share of events took at most so long."""
    delays = {
        name: [delay(sent) for sent in undisturbed(side)]
        for name, side in ((AFTER, findings.after), (BEFORE, findings.before))
    }
    if not delays[AFTER]:
        return None
    axis = _time_axis(value for values in delays.values() for value in values)
    chart = _cumulative_chart([0, 1], axis, "from the call to the client")
    for name, values in delays.items():
        _line(chart, name, _cumulative(values))
    return chart


def _cumulative_chart(hues: Sequence[int], axis: list[dict[str, Any]], x_title: str) -> Any:
    ends = (axis[0]["value"], axis[-1]["value"])
    shares = [{"value": share, "label": f"{share} %"} for share in (0, 25, 50, 75, 90, 100)]
    return _chart(
        hues,
        x_labels=axis,
        xrange=ends,
        x_title=x_title,
        y_labels=shares,
        range=(0, 100),
        y_title="share of events",
    )


def _cumulative(values: Sequence[float]) -> list[Point]:
    shares = [*range(100), 99.5, 99.9, 100]
    found = [(percentile(values, share / 100), share) for share in shares] if values else []
    return [(_log(value), share) for value, share in found if value is not None]


def _recovery(findings: Findings) -> Any:
    """Each cut, and how long it took."""
    cuts = findings.after.cuts
    if not cuts:
        return None
    began, _ = findings.phases["load"]
    axis = [{"value": n, "label": _power(n)} for n in range(-2, 3)]
    chart = _series_chart([0, 2, 1, 3, 4], axis, "seconds of load", dots_size=5, legend_at_bottom_columns=5)
    for name, side in ((AFTER, findings.after), (BEFORE, findings.before)):
        for how in ("reset", "half-open"):
            points = [(cut.at - began, _log(cut.took or NEVER)) for cut in side.cuts if cut.how == how]
            chart.add(f"{name}, {how}", points, stroke=False)
    bound = _log(RECOVER_WITHIN)
    _line(chart, "5 s", [(0.0, bound), (findings.plan.duration, bound)], width=1.5, dasharray="6,4")
    return chart


def _buffer(findings: Findings) -> Any:
    """How full the buffers were while users were away, and what made room."""
    if "overflow" not in findings.phases:
        return None
    began, end = findings.phases["overflow"]
    end = end or math.inf
    sides = [
        [sample for sample in side.samples if began <= sample.at <= end]
        for side in (findings.after, findings.before)
    ]
    after, before = sides
    if not after:
        return None
    chart = _chart([0, 1, 2, 3], x_title="seconds of the phase", y_title="events", legend_at_bottom_columns=2)
    dropped = after[0].dropped or 0
    mine = [(s.at - began, float(s.fullest)) for s in after if s.fullest is not None]
    gone = [(s.at - began, float(s.dropped - dropped)) for s in after if s.dropped is not None]
    _line(chart, f"{AFTER}, held in all", [(s.at - began, s.events) for s in after])
    _line(chart, f"{BEFORE}, held in all", [(s.at - began, s.events) for s in before])
    chart.add(f"{AFTER}, held for one user", mine, stroke=False)
    _line(chart, f"{AFTER}, let go to make room", gone)
    return chart


def _confirmation(findings: Findings) -> Any:
    """Which share of critical events was confirmed after at most so long."""
    after = [seconds for _, seconds in findings.after.confirmations]
    if not after:
        return None
    calls = [
        s.answered - s.at
        for s in findings.after.sent("load", "types")
        if s.confirmed and s.answered is not None
    ]
    chart = _cumulative_chart([0, 3], _time_axis([*after, *calls]), "until confirmed")
    chart.config.legend_at_bottom_columns = 2
    _line(chart, "accepted to confirmed, in the server", _cumulative(after))
    _line(chart, "the publisher's whole call", _cumulative(calls))
    return chart


def _before_after(findings: Findings) -> Any:
    """Shares of what should be all of it."""
    rows = {row.requirement.name: row for row in judge(findings)}
    bars: dict[str, tuple[float | None, float | None]] = {}
    for name, title in (
        ("recovery", "drops recovered within 5 s"),
        ("confirmed", "critical events confirmed in 5 s"),
    ):
        bars[title] = (rows[name].measured, rows[name].before)
    bars["critical events delivered"] = (_critical_share(findings.after), _critical_share(findings.before))
    bars["events delivered or accounted for"] = (_told_share(findings.after), _told_share(findings.before))
    bars = {title: pair for title, pair in bars.items() if None not in pair}
    if not bars:
        return None
    chart = _chart(
        [0, 1],
        pygal.HorizontalBar,
        x_labels=list(bars),
        x_title="share",
        range=(0, 100),
        print_values=True,
        print_values_position="center",
        value_formatter=lambda value: f"{value:.4g} %",
        rounded_bars=2,
    )
    for number, name in enumerate((AFTER, BEFORE)):
        chart.add(name, [pair[number] for pair in bars.values()])
    return chart


def _critical_share(side: Side) -> float | None:
    account = side.account
    return 100 * (1 - account.critical_lost / account.critical) if account.critical else None


def _told_share(side: Side) -> float | None:
    account = side.account
    return 100 * (1 - account.silent / account.accepted) if account.accepted else None
