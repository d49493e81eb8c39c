"""What is required, as one table that the report, the terminal and the exit status share.

Each requirement is measured by the same function before and after. Thresholds are the mission's; `aim` is what this
project wants of itself, and decides nothing.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from .findings import Findings, Side
from .journal import Cut, Sent
from .plan import PHASES, TYPES

RECOVER_WITHIN: Final = 5.0
CONFIRM_WITHIN: Final = 5.0

Measure = Callable[[Findings, Side], float | None]


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


# --- What is measured ---


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that at least `share` of them do not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def undisturbed(side: Side) -> list[Sent]:
    """What was sent and processed under load while its user's connection was not cut."""
    windows = {
        journal.user: [(cut.at, cut.recovered or cut.given_up or math.inf) for cut in journal.cuts]
        for journal in side.journals
    }
    return [
        sent
        for journal in side.journals
        for sent in journal.sent.values()
        if sent.phase == "load"
        and sent.accepted
        and sent.processed is not None
        and not any(sent.at <= end and sent.processed >= begin for begin, end in windows[journal.user])
    ]


def delay(sent: Sent) -> float:
    """Seconds from the call that published it to its processing in the client."""
    assert sent.processed is not None
    return sent.processed - sent.at


def _response(findings: Findings, side: Side) -> float | None:
    return percentile([delay(sent) for sent in undisturbed(side)], 0.99)


def _answer(findings: Findings, side: Side) -> float | None:
    answers = [s.answered - s.at for s in side.sent("load") if s.answered is not None and not s.waited]
    return percentile(answers, 0.99)


def _recovered(findings: Findings, side: Side) -> float | None:
    took = [cut.took for cut in side.cuts]
    if not took:
        return None
    return 100 * sum(seconds is not None and seconds < RECOVER_WITHIN for seconds in took) / len(took)


def recovery(cuts: Iterable[Cut], how: str) -> list[float]:
    """The times of the recoveries from such cuts; infinite for those that did not come."""
    return [math.inf if cut.took is None else cut.took for cut in cuts if cut.how == how]


def _median_of(how: str) -> Measure:
    return lambda findings, side: percentile(recovery(side.cuts, how), 0.5)


def _critical_lost(findings: Findings, side: Side) -> float | None:
    return side.account.critical_lost


def _silent(findings: Findings, side: Side) -> float | None:
    return side.account.silent


def _wrong(findings: Findings, side: Side) -> float | None:
    return side.account.doubled + side.account.disordered + side.clients.get("violations", 0)


def _critical(side: Side) -> list[Sent]:
    """Critical events whose confirmation was waited for, or would have been if there were any."""
    return [sent for sent in side.sent("load", "types") if sent.critical]


def _share(events: Sequence[Sent], good: Callable[[Sent], bool]) -> float | None:
    return 100 * sum(map(good, events)) / len(events) if events else None


def _confirmed(findings: Findings, side: Side) -> float | None:
    return _share(
        _critical(side),
        lambda s: s.confirmed and s.answered is not None and s.answered - s.at <= CONFIRM_WITHIN,
    )


def _confirmed_at_last(findings: Findings, side: Side) -> float | None:
    return _share(_critical(side), lambda sent: sent.confirmed)


def _types(findings: Findings, side: Side) -> float | None:
    """Types of which every event was confirmed, or where there is no confirmation, none."""
    sent = side.sent("types")
    return sum(
        bool(mine := [s for s in sent if s.type == type]) and all(s.confirmed for s in mine) for type in TYPES
    )


def _fullest(findings: Findings, side: Side) -> float | None:
    return max((sample.fullest for sample in side.samples if sample.fullest is not None), default=None)


def _all_events(findings: Findings, side: Side) -> float | None:
    return max((sample.events for sample in side.samples), default=None)


def _room(findings: Findings, side: Side) -> float | None:
    return max((sample.dropped for sample in side.samples if sample.dropped is not None), default=None)


def _reused(findings: Findings, side: Side) -> float | None:
    reuse = findings.reuse
    return 100 * reuse.hits / reuse.resumes if reuse.resumes else None


def _saved(findings: Findings, side: Side) -> float | None:
    anew, resumed = (
        percentile(costs, 0.5) for costs in (findings.reuse.anew_cpu, findings.reuse.resumed_cpu)
    )
    return None if anew is None or resumed is None else 100 * (1 - resumed / anew)


def _others(findings: Findings, side: Side) -> float | None:
    """How long the others waited; for what did not come, as long as the phase went on."""
    end = findings.phases["stuck"][1]
    waits = [
        (sent.processed or end or sent.at) - sent.at
        for journal in side.journals
        if journal.user not in findings.stuck_users
        for sent in journal.sent.values()
        if sent.phase == "stuck"
    ]
    return percentile(waits, 0.99)


def _unbalanced(findings: Findings, side: Side) -> float | None:
    """How far the server's own books are from ``accepted = settled + held + evicted + expired + superseded``."""
    told = side.stats.get("delivery")
    if told is None:
        return None
    parts = ("settled", "held", "evicted", "expired", "superseded")
    return float(abs(told["events_accepted"] - sum(told[f"events_{part}"] for part in parts)))


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
        measure=_response,
    ),
    Requirement(
        name="answer",
        title="Under load, a call that publishes is answered: 99 % of calls",
        unit="s",
        relation="<",
        bound=2.0,
        aim="< 0.1 s",
        phases=["load"],
        measure=_answer,
    ),
    Requirement(
        name="recovery",
        title="Drops after which all that was missed is processed within 5 s",
        unit="%",
        relation="≥",
        bound=95.0,
        aim="100 %",
        phases=["load"],
        measure=_recovered,
    ),
    Requirement(
        name="recovery_reset",
        title="Recovery from a reset, median",
        unit="s",
        relation="<",
        bound=RECOVER_WITHIN,
        aim="< 0.5 s",
        phases=["load"],
        measure=_median_of("reset"),
    ),
    Requirement(
        name="recovery_half_open",
        title="Recovery from a half-open connection, median",
        unit="s",
        relation="<",
        bound=RECOVER_WITHIN,
        phases=["load"],
        measure=_median_of("half-open"),
    ),
    Requirement(
        name="critical_lost",
        title="Critical events accepted and lost, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=_critical_lost,
    ),
    Requirement(
        name="silent",
        title="Events neither delivered nor accounted for by a gap, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=_silent,
    ),
    Requirement(
        name="wrong",
        title="Events doubled, out of order, or under another's seq, in all phases",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=_wrong,
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
        measure=_confirmed,
    ),
    Requirement(
        name="confirmed_at_last",
        title="Critical events confirmed by the client, drops and all",
        unit="%",
        relation="=",
        bound=100.0,
        phases=["load", "types"],
        measure=_confirmed_at_last,
    ),
    Requirement(
        name="types",
        title=f"Types of event delivered and confirmed, of {len(TYPES)}",
        unit="types",
        relation="=",
        bound=float(len(TYPES)),
        phases=["types"],
        measure=_types,
    ),
    Requirement(
        name="per_user",
        title="Most events held for one user",
        unit="events",
        relation="≤",
        bound=200.0,
        phases=["overflow"],
        measure=_fullest,
        compared=False,
    ),
    Requirement(
        name="in_all",
        title="Most events held in all",
        unit="events",
        relation="≤",
        bound=1000.0,
        phases=ALL,
        measure=_all_events,
    ),
    Requirement(
        name="room",
        title="Not critical events that made room for others",
        unit="events",
        relation="≥",
        bound=1.0,
        phases=["overflow"],
        measure=_room,
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
        measure=_reused,
        compared=False,
    ),
    Requirement(
        name="saved",
        title="CPU that resuming saves, against a new session that is sent a full mailbox",
        unit="%",
        relation="≥",
        bound=30.0,
        phases=["pool"],
        measure=_saved,
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
        measure=_others,
    ),
    Requirement(
        name="balance",
        title="Events that the server's own books can't place",
        unit="events",
        relation="=",
        bound=0.0,
        phases=ALL,
        measure=_unbalanced,
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
