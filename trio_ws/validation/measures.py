"""What is measured of either side, before and after by the same function; `requirements.py` has the titles.

None is: there is no such figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .findings import Findings, Side
from .journal import Cut, Sent
from .plan import TYPES

RECOVER_WITHIN: Final = 5.0
CONFIRM_WITHIN: Final = 5.0

Measure = Callable[[Findings, Side], float | None]


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


def response(findings: Findings, side: Side) -> float | None:
    return percentile([delay(sent) for sent in undisturbed(side)], 0.99)


def answer(findings: Findings, side: Side) -> float | None:
    answers = [s.answered - s.at for s in side.sent("load") if s.answered is not None and not s.waited]
    return percentile(answers, 0.99)


def recovered(findings: Findings, side: Side) -> float | None:
    took = [cut.took for cut in side.cuts]
    if not took:
        return None
    return 100 * sum(seconds is not None and seconds < RECOVER_WITHIN for seconds in took) / len(took)


def recovery(cuts: Iterable[Cut], how: str) -> list[float]:
    """The times of the recoveries from such cuts; infinite for those that did not come."""
    return [math.inf if cut.took is None else cut.took for cut in cuts if cut.how == how]


def median_of(how: str) -> Measure:
    return lambda findings, side: percentile(recovery(side.cuts, how), 0.5)


def critical_lost(findings: Findings, side: Side) -> float | None:
    return side.account.critical_lost


def silent(findings: Findings, side: Side) -> float | None:
    return side.account.silent


def wrong(findings: Findings, side: Side) -> float | None:
    return side.account.doubled + side.account.disordered + side.clients.get("violations", 0)


def _critical(side: Side) -> list[Sent]:
    """Critical events whose confirmation was waited for, or would have been if there were any."""
    return [sent for sent in side.sent("load", "types") if sent.critical]


def _share(events: Sequence[Sent], good: Callable[[Sent], bool]) -> float | None:
    return 100 * sum(map(good, events)) / len(events) if events else None


def confirmed(findings: Findings, side: Side) -> float | None:
    return _share(
        _critical(side),
        lambda s: s.confirmed and s.answered is not None and s.answered - s.at <= CONFIRM_WITHIN,
    )


def confirmed_at_last(findings: Findings, side: Side) -> float | None:
    return _share(_critical(side), lambda sent: sent.confirmed)


def types(findings: Findings, side: Side) -> float | None:
    """Types of which every event was confirmed, or where there is no confirmation, none."""
    sent = side.sent("types")
    return sum(
        bool(mine := [s for s in sent if s.type == type]) and all(s.confirmed for s in mine) for type in TYPES
    )


def fullest(findings: Findings, side: Side) -> float | None:
    return max((sample.fullest for sample in side.samples if sample.fullest is not None), default=None)


def all_events(findings: Findings, side: Side) -> float | None:
    return max((sample.events for sample in side.samples), default=None)


def room(findings: Findings, side: Side) -> float | None:
    return max((sample.dropped for sample in side.samples if sample.dropped is not None), default=None)


def reused(findings: Findings, side: Side) -> float | None:
    reuse = findings.reuse
    return 100 * reuse.hits / reuse.resumes if reuse.resumes else None


def saved(findings: Findings, side: Side) -> float | None:
    anew, resumed = (
        percentile(costs, 0.5) for costs in (findings.reuse.anew_cpu, findings.reuse.resumed_cpu)
    )
    return None if anew is None or resumed is None else 100 * (1 - resumed / anew)


def others(findings: Findings, side: Side) -> float | None:
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


def unbalanced(findings: Findings, side: Side) -> float | None:
    """How far the server's own books are from ``accepted = settled + held + evicted + expired + superseded``."""
    told = side.stats.get("delivery")
    if told is None:
        return None
    parts = ("settled", "held", "evicted", "expired", "superseded")
    return float(abs(told["events_accepted"] - sum(told[f"events_{part}"] for part in parts)))
