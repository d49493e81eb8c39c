"""What is required, as one table that the report, the terminal and the exit status share.

Thresholds are the mission's; `aim` is what this project wants of itself, and decides nothing.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from . import measures
from .findings import Findings
from .measures import RECOVER_WITHIN, Measure
from .plan import PHASES, TYPES


class Verdict(enum.Enum):
    """What became of a requirement."""

    MET = "met"
    MISSED = "missed"
    SKIPPED = "skipped"
    UNMEASURED = "not measured"


@attrs.frozen(kw_only=True)
class Requirement:
    """One line of the table.

    Attributes:
      name: for programs.
      title: what is measured, for people.
      unit: ``s``, ``%``, or what is counted.
      relation, bound: what the figure has to be.
      aim: what we want it to be.
      phases: that it is measured in.
      measure: the figure, of either side; None where there is none.
      compared: whether the figure means something for the stock server.
    """

    name: str
    title: str
    unit: str
    relation: str
    bound: float
    aim: str = ""
    phases: Sequence[str]
    measure: Measure
    compared: bool = True

    def holds(self, value: float) -> bool:
        """Whether that is good enough."""
        return bool(_RELATIONS[self.relation](value, self.bound))


_RELATIONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "≤": operator.le,
    "≥": operator.ge,
    "=": operator.eq,
}


@attrs.frozen(kw_only=True)
class Row:
    """A requirement and what became of it."""

    requirement: Requirement
    measured: float | None
    before: float | None
    verdict: Verdict


def judge(findings: Findings, requirements: Sequence[Requirement] | None = None) -> list[Row]:
    """Measures and judges all of them."""
    return [_judge(findings, requirement) for requirement in requirements or REQUIREMENTS]


def _judge(findings: Findings, requirement: Requirement) -> Row:
    needed = [phase for phase in requirement.phases if phase not in findings.skipped]
    measured = before = None
    if any(phase in findings.phases for phase in needed):
        measured = requirement.measure(findings, findings.after)
        before = requirement.measure(findings, findings.before) if requirement.compared else None
    if not needed:
        verdict = Verdict.SKIPPED
    elif measured is None or not all(findings.done(phase) for phase in needed):
        verdict = Verdict.UNMEASURED
    else:
        verdict = Verdict.MET if requirement.holds(measured) else Verdict.MISSED
    return Row(requirement=requirement, measured=measured, before=before, verdict=verdict)


def passed(rows: Iterable[Row]) -> bool:
    """Whether nothing was missed: what could not be measured is missed, what was left out with a word is not."""
    return all(row.verdict in (Verdict.MET, Verdict.SKIPPED) for row in rows)


ALL: Final = tuple(PHASES)

REQUIREMENTS: Final = (
    Requirement(
        name="response",
        title="Under load, published to processed in the client: 99 % of events",
        unit="s",
        relation="<",
        bound=2.0,
        aim="< 0.1 s",
        phases=["load"],
        measure=measures.response,
    ),
    Requirement(
        name="answer",
        title="Under load, a call that publishes is answered: 99 % of calls",
        unit="s",
        relation="<",
        bound=2.0,
        aim="< 0.1 s",
        phases=["load"],
        measure=measures.answer,
    ),
    Requirement(
        name="recovery",
        title="Drops after which all that was missed is processed within 5 s",
        unit="%",
        relation="≥",
        bound=95.0,
        aim="100 %",
        phases=["load"],
        measure=measures.recovered,
    ),
    Requirement(
        name="recovery_reset",
        title="Recovery from a reset, median",
        unit="s",
        relation="<",
        bound=RECOVER_WITHIN,
        aim="< 0.5 s",
        phases=["load"],
        measure=measures.median_of("reset"),
    ),
    Requirement(
        name="recovery_half_open",
        title="Recovery from a half-open connection, median",
        unit="s",
        relation="<",
        bound=RECOVER_WITHIN,
        phases=["load"],
        measure=measures.median_of("half-open"),
    ),
    Requirement(
        name="critical_lost",
        title="Critical events accepted and lost, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=measures.critical_lost,
    ),
    Requirement(
        name="silent",
        title="Events neither delivered nor accounted for by a gap, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=measures.silent,
    ),
    Requirement(
        name="wrong",
        title="Events doubled, out of order, or under another's seq, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=measures.wrong,
        compared=False,
    ),
    Requirement(
        name="confirmed",
        title="Critical events confirmed by the client within 5 s",
        unit="%",
        relation="≥",
        bound=95.0,
        aim="100 %",
        phases=["load", "types"],
        measure=measures.confirmed,
    ),
    Requirement(
        name="confirmed_at_last",
        title="Critical events confirmed by the client, drops and all",
        unit="%",
        relation="=",
        bound=100.0,
        phases=["load", "types"],
        measure=measures.confirmed_at_last,
    ),
    Requirement(
        name="types",
        title=f"Types of event delivered and confirmed, of {len(TYPES)}",
        unit="types",
        relation="=",
        bound=float(len(TYPES)),
        phases=["types"],
        measure=measures.types,
    ),
    Requirement(
        name="per_user",
        title="Most events held for one user",
        unit="events",
        relation="≤",
        bound=200.0,
        phases=["overflow"],
        measure=measures.fullest,
        compared=False,
    ),
    Requirement(
        name="in_all",
        title="Most events held in all",
        unit="events",
        relation="≤",
        bound=1000.0,
        phases=ALL,
        measure=measures.all_events,
    ),
    Requirement(
        name="room",
        title="Not critical events that made room for others",
        unit="events",
        relation="≥",
        bound=1.0,
        phases=["overflow"],
        measure=measures.room,
        compared=False,
    ),
    Requirement(
        name="reused",
        title="Reconnections that found their session in the pool",
        unit="%",
        relation="≥",
        bound=95.0,
        aim="100 %",
        phases=["pool"],
        measure=measures.reused,
        compared=False,
    ),
    Requirement(
        name="saved",
        title="CPU that resuming saves, against a new session that is sent a full mailbox",
        unit="%",
        relation="≥",
        bound=30.0,
        phases=["pool"],
        measure=measures.saved,
        compared=False,
    ),
    Requirement(
        name="others",
        title="Published to processed while another client is stuck: 99 % of events",
        unit="s",
        relation="<",
        bound=2.0,
        aim="< 0.1 s",
        phases=["stuck"],
        measure=measures.others,
    ),
    Requirement(
        name="balance",
        title="Events that the server's own books can't place",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=measures.unbalanced,
        compared=False,
    ),
)


def shown(value: float | None, unit: str) -> str:
    """A figure with its unit, without digits that say nothing."""
    if value is None:
        return "-"
    if value == math.inf:
        return "never"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.2f} s"
    if unit == "%":
        return f"{value:.4g} %"
    return f"{value:,.0f}"
