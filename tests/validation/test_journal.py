"""The account of what was published and what came: nothing that is missing, doubled or swapped goes unseen."""

from __future__ import annotations

import pytest

from trio_ws.validation.journal import Cut, Journal, close_cut, total


def journal(count: int = 5, *, seqs: bool = True, critical: frozenset[int] = frozenset({2})) -> Journal:
    """One to whose user so many events were published, a second apart, all accepted."""
    made = Journal("ada")
    for n in range(1, count + 1):
        sent = made.publish("note", float(n), critical=n in critical, phase="load")
        made.answered(sent, 202, n if seqs else None, n + 0.1)
    return made


def test_all_that_came_in_order_is_delivered() -> None:
    ada = journal()
    assert not ada.complete
    ada.given([1], 1.2, 1, 1)
    ada.given([2, 3, 4], 4.2, 2, 4)  # joined deltas
    ada.given([5], 5.2, 5, 5)
    account = ada.account()
    assert ada.complete
    assert (account.accepted, account.delivered, account.critical, account.critical_lost) == (5, 5, 1, 0)
    assert (account.silent, account.doubled, account.disordered) == (0, 0, 0)
    assert ada.sent[3].processed == 4.2


def test_what_a_gap_tells_of_is_explained_and_a_critical_event_in_it_is_lost_all_the_same() -> None:
    ada = journal()
    ada.given([1], 1.2, 1, 1)
    ada.gap(2, 4, "evicted")
    ada.given([5], 5.2, 5, 5)
    account = ada.account()
    assert ada.complete
    assert account.explained == {"evicted": 3}
    assert (account.silent, account.critical_lost, account.disordered) == (0, 1, 0)


def test_a_gap_may_come_before_the_answer_that_tells_the_seq() -> None:
    ada = Journal("ada")
    sent = ada.publish("progress", 1.0, critical=False, phase="load")
    ada.gap(1, 1, "superseded")
    ada.answered(sent, 202, 1, 1.5)
    assert ada.complete
    assert ada.account().explained == {"superseded": 1}


def test_what_is_missing_without_a_word_is_silent_and_leaves_a_hole() -> None:
    ada = journal()
    for n in (1, 3, 4, 5):
        ada.given([n], n + 0.2, n, n)
    account = ada.account()
    assert not ada.complete
    assert (account.silent, account.critical_lost, account.disordered) == (1, 1, 1)


@pytest.mark.parametrize(
    ("given", "doubled", "disordered"),
    [
        ([(1, 1), (2, 2), (2, 2), (3, 3), (4, 4), (5, 5)], 1, 1),
        ([(2, 2), (1, 1), (3, 3), (4, 4), (5, 5)], 0, 3),
        ([(1, 1), (3, 2), (2, 3), (4, 4), (5, 5)], 0, 2),  # right seqs, each with the other's content
    ],
)
def test_what_is_doubled_or_swapped_is_seen(
    given: list[tuple[int, int]], doubled: int, disordered: int
) -> None:
    ada = journal()
    for n, seq in given:
        ada.given([n], 9.0, seq, seq)
    assert (ada.account().doubled, ada.account().disordered) == (doubled, disordered)


def test_joined_deltas_that_lack_one_are_seen() -> None:
    ada = journal()
    ada.given([1, 2, 4, 5], 5.2, 1, 5)
    assert ada.account().disordered == 1
    assert ada.account().silent == 1


def test_a_server_without_seqs_is_judged_by_our_numbers() -> None:
    ada = journal(seqs=False)
    for n in (1, 3, 5):
        ada.given([n], n + 0.2)
    assert (ada.account().silent, ada.account().disordered) == (2, 0)


def test_refusals_are_no_losses() -> None:
    ada = journal()
    ada.answered(ada.publish("note", 9.0, critical=True, phase="load"), 503, None, 9.1)
    assert (ada.account().accepted, ada.account().refused, ada.account().critical) == (5, 1, 1)


def test_a_call_that_waited_in_vain_was_accepted_and_not_confirmed() -> None:
    ada = Journal("ada")
    sent = ada.publish("note", 1.0, critical=True, phase="load", waited=True)
    ada.answered(sent, 504, 1, 31.0)
    assert (sent.accepted, sent.confirmed) == (True, False)


def test_accounts_add_up() -> None:
    account = total([journal(), journal(3)])
    assert (account.accepted, account.silent) == (8, 8)


def test_a_recovery_ends_with_the_last_event_that_was_missed() -> None:
    ada = journal()
    ada.given([1], 1.2, 1, 1)
    cut = Cut(user="ada", how="reset", at=1.5, back=3.1)
    ada.given([2], 3.2, 2, 2)
    ada.given([3], 3.4, 3, 3)  # sent at 3.0, while it was away
    ada.given([4], 4.2, 4, 4)  # new
    close_cut(cut, ada)
    assert cut.took == pytest.approx(1.9)


def test_a_client_that_never_came_back_has_not_recovered() -> None:
    cut = Cut(user="ada", how="half-open", at=1.5, given_up=60.0)
    close_cut(cut, journal())
    assert cut.took is None


async def test_completion_can_be_waited_for(nursery) -> None:  # type: ignore[no-untyped-def]
    ada = journal(1)
    nursery.start_soon(ada.wait_complete)
    ada.given([1], 1.2, 1, 1)
    await ada.wait_complete()
