"""Planted bugs: a green simulator proves nothing until each of these has turned it red.

Every bug is a function that patches the code of today, one at a time and in one process, by `pytest.MonkeyPatch`; its
docstring says what it breaks, and which invariant should see it. A campaign must catch each within `WITHIN` seeds:

    python -m tests.simulation.bugs             # a table: bug, first seed, what did not hold
    python -m tests.simulation.bugs no_replay   # some of them

What is not caught shows a checker that is blind, or a state that no plan reaches: mend that, and leave the bug subtle.
"""

from __future__ import annotations

from . import ends, hub, log, runs, sessions, store
from .planting import Bug, bugs_in, purpose
from .trial import WITHIN, Trial, try_all

BUGS: dict[str, Bug] = {
    bug.__name__: bug for module in (log, sessions, hub, ends, runs, store) for bug in bugs_in(module)
}
"""All of them, by name."""

OF_RUNS = frozenset(bug.__name__ for bug in bugs_in(runs))
"""Those that show in simulations of agents' runs only."""

OVER_DISK = frozenset(bug.__name__ for bug in bugs_in(store)) | {
    "a_block_is_not_lost_by_a_crash",
    "runs_are_not_recorded",
    "a_record_is_one_event_behind",
    "what_is_not_committed_is_in_a_snapshot",
}
"""Those that show in runs with a disk only."""

__all__ = ["BUGS", "OF_RUNS", "OVER_DISK", "WITHIN", "Bug", "Trial", "purpose", "try_all"]
