"""The accounting rule of the client: by example, and against a naive model that remembers every seq."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_ws.client.session import REMEMBERED_IDS, Overtaken, SavedSession, Session, Verdict, Violation
from trio_ws.event import Gap


def at(seq: int, head: int | None = None) -> Session:
    """A session that was welcomed at `seq`."""
    session = Session()
    session.welcome("s", "e", seq, seq if head is None else head, False)
    return session


def numbers(session: Session) -> tuple[object, ...]:
    """All that a refused frame must not change."""
    names = ("id", "epoch", "cursor", "received", "processed", "head", "life")
    return (*(getattr(session, name) for name in names), tuple(session._ids))


# --- Events and gaps ---


def test_each_seq_once_in_order() -> None:
    session = at(0)
    assert session.event(1, "a") is Verdict.NEW
    assert session.gap(2, 4)
    assert session.event(7, "b", merged=(5, 2)) is Verdict.NEW
    assert (session.cursor, session.received, session.head) == (7, 7, 7)


@pytest.mark.parametrize("base", [0, 5])
@pytest.mark.parametrize("offset", [-2, -1, 0, 2, 3])
def test_a_frame_that_does_not_go_on_at_the_next_seq_is_a_violation(base: int, offset: int) -> None:
    session = at(base)
    before = numbers(session)
    with pytest.raises(Violation):
        session.event(base + offset, "x")
    with pytest.raises(Violation):
        session.gap(base + offset, base + offset + 1)
    with pytest.raises(Violation):
        session.event(base + offset + 3, "x", merged=(base + offset, 3))
    assert numbers(session) == before


@pytest.mark.parametrize(
    ("seq", "merged"), [(3, (1, 1)), (3, (1, 3)), (3, (3, 0)), (1, (0, 1)), (1, (1, 0)), (2, (3, -1))]
)
def test_merged_must_add_up(seq: int, merged: tuple[int, int]) -> None:
    session = at(0)
    with pytest.raises(Violation, match="add up"):
        session.event(seq, "x", merged=merged)
    assert session.cursor == 0


def test_a_gap_must_not_be_empty() -> None:
    session = at(3)
    with pytest.raises(Violation):
        session.gap(4, 3)
    assert session.cursor == 3


def test_only_a_retry_repeats_and_never_runs_ahead() -> None:
    session = at(0)
    for seq in (1, 2, 3):
        session.event(seq, str(seq))
    assert session.event(2, "2", retry=1) is Verdict.REPEAT
    assert session.event(3, "3", retry=4) is Verdict.REPEAT
    assert session.event(3, "3", retry=1, merged=(2, 1)) is Verdict.REPEAT
    for seq, retry, merged in ((2, 0, None), (5, 1, None), (0, 1, None), (4, 1, (3, 1)), (2, -1, None)):
        before = numbers(session)
        with pytest.raises(Violation):
            session.event(seq, "x", retry=retry, merged=merged)
        assert numbers(session) == before
    assert session.event(4, "4", retry=1) is Verdict.NEW, "what was sent in vain before is new here"


def test_live_proves_that_nothing_is_missing() -> None:
    session = at(0, head=2)
    session.event(1, "a")
    session.live(0)
    session.live(1)
    with pytest.raises(Violation):
        session.live(2)


def test_behind_is_what_the_head_is_ahead() -> None:
    session = at(2, head=5)
    assert session.behind == 3
    session.gap(3, 4)
    assert session.behind == 1
    session.ping(9)
    session.ping(3)
    assert session.behind == 5
    session.event(11, "x", merged=(5, 6))
    assert (session.behind, session.head) == (0, 11)


# --- Processing ---


def test_done_moves_forward_only_and_in_its_life_only() -> None:
    session = at(0)
    session.gap(1, 5)
    assert session.done(0, 3)
    assert not session.done(0, 3)
    assert not session.done(0, 2)
    assert not session.done(1, 5)
    assert session.processed == 3
    assert session.done(0, 9)
    assert session.processed == 5, "never beyond what was received"


def test_saved_is_what_was_processed() -> None:
    session = Session()
    assert session.saved() is None
    session.welcome("s", "e", 4, 9, False)
    session.gap(5, 7)
    session.done(0, 6)
    saved = session.saved()
    assert saved == SavedSession(session="s", epoch="e", seq=6)
    assert Session(saved).saved() == saved


def test_a_session_that_leaves_out_what_was_not_processed_is_not_saved() -> None:
    session = at(0)
    session.gap(1, 5)
    session.done(0, 2)
    session.welcome("s2", "e", 5, 8, True)
    assert session.saved() == SavedSession(session="", epoch="e", seq=2)
    assert Session(session.saved()).saved() == session.saved()
    session.welcome("s2", "e", 5, 8, True)
    session.done(0, 4)
    assert session.saved() == SavedSession(session="", epoch="e", seq=4)
    session.done(0, 5)
    assert session.saved() == SavedSession(session="s2", epoch="e", seq=5)


def test_a_reset_is_told_to_the_next_client_where_the_application_had_not_come_to_it() -> None:
    session = at(0)
    session.gap(1, 5)
    session.done(0, 2)
    before = session.saved()
    session.welcome("s2", "e2", 3, 8, False)
    assert session.saved() == before
    assert not session.done(0, 4), "of the life that is over"
    assert session.saved() == before
    session.welcome("s3", "e3", 7, 8, False)
    assert session.saved() == before
    assert not session.done(2, 0), "the gap itself"
    assert session.saved() == SavedSession(session="s3", epoch="e3", seq=7)


# --- Welcome ---


def test_a_first_welcome_starts_where_it_says() -> None:
    for resumed in (False, True):
        session = Session()
        assert session.welcome("s", "e", 4, 9, resumed) is None
        assert (session.cursor, session.processed, session.head, session.life) == (4, 4, 9, 0)


def test_a_resume_goes_on_from_what_was_received() -> None:
    session = at(0)
    session.gap(1, 5)
    session.done(0, 2)
    assert session.welcome("s2", "e", 5, 8, True) is None
    assert (session.id, session.cursor, session.processed, session.head) == ("s2", 5, 2, 8)
    assert session.event(6, "a") is Verdict.NEW


def test_a_resume_that_does_not_go_on_from_here_is_refused_and_changes_nothing() -> None:
    session = at(0)
    session.gap(1, 5)
    before = numbers(session)
    for arguments, error in (
        (("s", "e", 6, 8, True), Overtaken),
        (("s", "e2", 5, 8, True), Violation),
        (("s", "e", 9, 8, True), Violation),
    ):
        with pytest.raises(error):
            session.welcome(*arguments)
        assert numbers(session) == before


def test_a_resume_that_goes_on_earlier_repeats_what_is_known() -> None:
    session = at(0)
    for seq in range(1, 6):
        session.event(seq, str(seq))
    session.done(0, 5)
    session.welcome("s", "e", 2, 9, True)
    assert (session.cursor, session.received, session.processed) == (2, 5, 5)
    assert session.event(3, "3") is Verdict.REPEAT
    assert not session.gap(4, 4)
    assert session.event(7, "7", merged=(5, 2)) is Verdict.NEW, "part of it is new"
    with pytest.raises(Violation):
        session.event(6, "6")


def test_a_saved_session_may_be_behind_what_its_client_acked() -> None:
    session = Session(SavedSession(session="s", epoch="e", seq=3))
    assert session.welcome("s", "e", 5, 8, True) is None
    assert (session.cursor, session.processed) == (5, 5)
    with pytest.raises(Violation):
        session.welcome("s", "e", 6, 8, True)


def test_a_reset_is_a_gap_over_all_that_was_known_and_not_received() -> None:
    session = at(0, head=9)
    session.gap(1, 5)
    assert session.welcome("s2", "e2", 0, 2, False) == Gap(
        first=6, last=9, reason="reset", lost={}, anew=True
    )
    assert (session.id, session.epoch, session.cursor, session.processed, session.head) == (
        "s2",
        "e2",
        0,
        0,
        2,
    )
    assert session.life == 1
    assert not session.done(0, 5), "acks of the earlier life are void"
    assert session.welcome("s3", "e2", 1, 2, False) == Gap(
        first=1, last=2, reason="reset", lost={}, anew=True
    ), "another session in the same epoch that was not resumed is another life too"


def test_an_event_of_the_old_life_is_known_again_until_the_replay_is_over() -> None:
    session = at(0)
    session.event(1, "a")
    session.event(2, "b")
    session.welcome("s2", "e2", 0, 4, False)
    assert session.event(1, "b") is Verdict.KNOWN
    assert session.event(2, "c") is Verdict.NEW
    session.live(2)
    assert session.event(3, "a") is Verdict.NEW, "after the replay it is another event with that id"


def test_ids_are_remembered_up_to_a_bound() -> None:
    session = at(0)
    for seq in range(1, REMEMBERED_IDS + 3):
        session.event(seq, str(seq))
    session.welcome("s2", "e2", 0, 9, False)
    assert session.event(1, "2") is Verdict.NEW
    assert session.event(2, "3") is Verdict.KNOWN


# --- Against a model ---


class Accounting(RuleBasedStateMachine):
    """The model keeps every seq that it was sent, and asks sets."""

    @initialize(seq=st.integers(0, 3), ahead=st.integers(0, 3))
    def first(self, seq: int, ahead: int) -> None:
        self.session = Session()
        self.session.welcome("s", "e0", seq, seq + ahead, False)
        self.start = seq
        self.on_connection: set[int] = set()
        self.ever = set(range(seq + 1))
        self.known_head = seq + ahead
        self.processed = seq
        self.lives = 0

    def _top(self) -> int:
        return self.start + len(self.on_connection)

    def _legal(self, first: int, last: int) -> bool:
        """Nothing twice, nothing left out: together they are all seqs from the start to `last`."""
        seqs = set(range(first, last + 1))
        union = self.on_connection | seqs
        return (
            bool(seqs)
            and not seqs & self.on_connection
            and union == set(range(self.start + 1, self.start + 1 + len(union)))
        )

    def _accept(self, first: int, last: int) -> None:
        self.on_connection |= set(range(first, last + 1))
        self.ever |= set(range(first, last + 1))
        self.known_head = max(self.known_head, last)

    @rule(offset=st.integers(-3, 3), n=st.integers(0, 4), retry=st.integers(0, 2))
    def event(self, offset: int, n: int, retry: int) -> None:
        first = max(0, self._top() + 1 + offset)
        seq = first + n
        news = not set(range(first, seq + 1)) <= self.ever
        before = numbers(self.session)
        merged = (first, n) if n else None
        try:
            verdict = self.session.event(seq, f"{self.lives}-{seq}", retry=retry, merged=merged)
        except Violation:
            assert not self._legal(first, seq)
            repeat = retry > 0 and seq in self.on_connection | set(range(1, self.start + 1)) and first > 0
            assert not repeat
            assert numbers(self.session) == before
            return
        if self._legal(first, seq):
            assert verdict is (Verdict.NEW if news else Verdict.REPEAT)
            self._accept(first, seq)
        else:
            assert retry > 0
            assert verdict is Verdict.REPEAT
            assert seq <= self._top()
            assert numbers(self.session) == before

    @rule(offset=st.integers(-2, 2), n=st.integers(-1, 4))
    def gap(self, offset: int, n: int) -> None:
        first = max(0, self._top() + 1 + offset)
        last = first + n
        news = not set(range(first, last + 1)) <= self.ever
        before = numbers(self.session)
        try:
            told = self.session.gap(first, last)
        except Violation:
            assert not self._legal(first, last)
            assert numbers(self.session) == before
            return
        assert self._legal(first, last)
        assert told == news
        self._accept(first, last)

    @rule(offset=st.integers(-2, 3))
    def live(self, offset: int) -> None:
        seq = max(0, self._top() + offset)
        try:
            self.session.live(seq)
        except Violation:
            assert seq not in self.on_connection | set(range(self.start + 1))
        else:
            assert seq in self.on_connection | set(range(self.start + 1))

    @rule(head=st.integers(0, 40))
    def ping(self, head: int) -> None:
        self.session.ping(head)
        self.known_head = max(self.known_head, head)

    @rule(offset=st.integers(-6, 3), life=st.integers(-1, 0))
    def done(self, offset: int, life: int) -> None:
        seq = max(self.ever) + offset
        news = self.session.done(self.lives + life, seq)
        if life == 0 and seq > self.processed:
            assert news
            self.processed = min(seq, max(self.ever))
        else:
            assert not news

    @rule(offset=st.integers(-3, 2), ahead=st.integers(-1, 3))
    def resume(self, offset: int, ahead: int) -> None:
        received = max(self.ever)
        seq = max(0, received + offset)
        before = numbers(self.session)
        try:
            reset = self.session.welcome("s", f"e{self.lives}", seq, seq + ahead, True)
        except Violation:
            assert seq > received or ahead < 0
            assert numbers(self.session) == before
            return
        assert reset is None
        assert seq <= received
        self.start, self.on_connection, self.known_head = seq, set(), seq + ahead

    @precondition(lambda self: self.lives < 3)
    @rule(seq=st.integers(0, 3), ahead=st.integers(0, 3))
    def reset(self, seq: int, ahead: int) -> None:
        received = max(self.ever)
        gap = self.session.welcome("s", f"e{self.lives + 1}", seq, seq + ahead, False)
        assert gap is not None
        assert gap.reason == "reset"
        assert gap.first == received + 1
        assert gap.last == max(received, self.known_head)
        self.lives += 1
        self.start, self.on_connection, self.known_head = seq, set(), seq + ahead
        self.ever = set(range(seq + 1))
        self.processed = seq

    @invariant()
    def numbers_agree(self) -> None:
        if not hasattr(self, "session"):
            return
        assert self.session.cursor == self._top()
        assert self.session.received == max(self.ever)
        assert self.session.processed == self.processed <= self.session.received
        assert self.session.life == self.lives
        assert self.session.behind == max(0, self.known_head - max(self.ever))


TestAccounting = Accounting.TestCase
