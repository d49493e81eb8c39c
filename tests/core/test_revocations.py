"""Users that are revoked: since when, until when, and how many."""

from __future__ import annotations

import pytest

from trio_ws.core.revocations import Revocations, TooManyRevoked


def test_what_was_issued_before_is_not_taken() -> None:
    revocations = Revocations()
    revocations.revoke("ada", 1000, 60)
    assert revocations.covers("ada", 999, 1001)
    assert revocations.covers("ada", 1000, 1001)
    assert revocations.covers("ada", None, 1001)
    assert not revocations.covers("ada", 1000.5, 1001)
    assert not revocations.covers("bob", 999, 1001)


def test_it_ends() -> None:
    revocations = Revocations()
    revocations.revoke("ada", 1000, 60)
    assert revocations.covers("ada", 999, 1059)
    assert not revocations.covers("ada", 999, 1060)
    assert len(revocations) == 0


def test_a_second_one_shortens_nothing() -> None:
    revocations = Revocations()
    revocations.revoke("ada", 1000, 60)
    revocations.revoke("ada", 1010, 5)
    assert revocations.covers("ada", 1005, 1050)
    assert not revocations.covers("ada", 1011, 1050)
    assert not revocations.covers("ada", 1005, 1060)


def test_no_room_is_no_reason_to_forget_anybody() -> None:
    revocations = Revocations(limit=2)
    revocations.revoke("ada", 1000, 60)
    revocations.revoke("bob", 1000, 600)
    with pytest.raises(TooManyRevoked):
        revocations.revoke("eve", 1000, 60)
    revocations.revoke("ada", 1001, 60)
    revocations.revoke("eve", 1061, 60)
    assert revocations.covers("bob", 1, 1062)
    assert revocations.covers("eve", 1, 1062)
    assert not revocations.covers("ada", 1, 1062)


def test_old_ones_are_forgotten() -> None:
    revocations = Revocations()
    for n in range(10):
        revocations.revoke(f"user{n}", 1000, 10 + n)
    revocations.forget_old(1015)
    assert len(revocations) == 4
