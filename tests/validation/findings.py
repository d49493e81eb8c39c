"""Findings of a validation in which all went well, made by hand, for what judges and tells them."""

from __future__ import annotations

from trio_ws.validation.findings import Findings, Reuse, Sample, Side
from trio_ws.validation.journal import Cut, Journal, close_cut
from trio_ws.validation.plan import PHASES, QUICK, TYPES


def good() -> Findings:
    """All requirements met; times begin at 1000."""
    findings = Findings(plan=QUICK, began=1000.0, machine={"system": "Test"})
    for number, phase in enumerate(PHASES):
        findings.phases[phase] = (1000.0 + 100 * number, 1099.0 + 100 * number)
    findings.after = side(seqs=True)
    findings.before = side(seqs=False)
    findings.reuse = Reuse([400.0, 500.0, 450.0], [200.0, 220.0, 260.0], [0.1], [0.05], resumes=10, hits=10)
    findings.config = {"max_events": {"value": 1000, "from": "default"}}
    return findings


def side(*, seqs: bool) -> Side:
    """One user; a critical event each second under load, a cut, each type, a flood."""
    ada = Journal("ada")
    made = Side(journals=[ada])
    for n in range(40):
        publish(ada, "tool_completed", 1000.0 + n, "load", seqs=seqs)
        made.confirmations.append((1000.0 + n, 0.01))
    publish(ada, "token", 1039.2, "load", seqs=seqs)
    ada.cuts.append(Cut(user="ada", how="reset", at=1010.5, back=1010.7))
    ada.cuts.append(Cut(user="ada", how="half-open", at=1020.5, back=1024.6 if seqs else None))
    for cut in ada.cuts:
        close_cut(cut, ada)
    for type in TYPES:
        publish(ada, type, 1100.0, "types", seqs=seqs)
    publish(ada, "bulk", 1400.0, "stuck", seqs=seqs)
    made.samples = [
        Sample(at=1200.0, events=5, fullest=5, dropped=0, memory=2**25),
        Sample(at=1201.0, events=1000),
    ]
    made.samples.append(Sample(at=1202.0, events=900, fullest=200, dropped=300))
    names = ("accepted", "settled", "held", "evicted", "expired", "superseded")
    if seqs:
        made.stats = {"delivery": dict.fromkeys((f"events_{name}" for name in names), 0)}
    return made


def publish(journal: Journal, type: str, at: float, phase: str, *, seqs: bool, comes: bool = True) -> None:
    """An event that is accepted, confirmed if the server can, and comes 10 ms later."""
    critical = type not in ("token", "progress", "note", "bulk")
    sent = journal.publish(
        type, at, critical=critical, phase=phase, waited=seqs and (critical or phase == "types")
    )
    journal.answered(sent, 200 if sent.waited else 202, sent.n if seqs else None, at + 0.02)
    if comes:
        journal.given([sent.n], at + 0.01, sent.n if seqs else 0, sent.n if seqs else 0)
