"""The close codes are the table of docs/protocol.md, "Closing", row by row."""

from __future__ import annotations

import pytest

from trio_ws.core import closing
from trio_ws.core.closing import Reaction

PROTOCOL = {
    1000: Reaction.STOP,
    1006: Reaction.RETRY,
    1007: Reaction.STOP,
    1009: Reaction.STOP,
    4400: Reaction.STOP,
    4401: Reaction.FRESH_TOKEN,
    4403: Reaction.STOP,
    4409: Reaction.STOP,
    4429: Reaction.STOP,
    4500: Reaction.RETRY,
    4501: Reaction.RETRY,
    4502: Reaction.RETRY,
    4503: Reaction.RETRY,
}


def test_the_table_is_the_protocols() -> None:
    assert {code: row.reaction for code, row in closing.TABLE.items()} == PROTOCOL


def test_each_row_is_under_its_own_code_and_names_are_unique() -> None:
    assert all(code == row.code for code, row in closing.TABLE.items())
    assert len({row.name for row in closing.TABLE.values()}) == len(closing.TABLE)


@pytest.mark.parametrize("code", PROTOCOL)
def test_a_known_code_has_the_tables_reaction(code: int) -> None:
    assert closing.reaction(code) is PROTOCOL[code]


@pytest.mark.parametrize(
    ("code", "reaction"),
    [
        (1001, Reaction.RETRY),
        (1011, Reaction.RETRY),
        (4399, Reaction.RETRY),
        (4402, Reaction.STOP),
        (4499, Reaction.STOP),
        (4504, Reaction.RETRY),
        (4599, Reaction.RETRY),
    ],
)
def test_an_unknown_code_goes_by_its_range(code: int, reaction: Reaction) -> None:
    assert closing.reaction(code) is reaction


def test_every_code_and_reason_fits_a_close_frame() -> None:
    for row in closing.TABLE.values():
        assert 1000 <= row.code <= 4999
        assert len(f"{row.name}: {row.meaning}".encode()) <= 123
