"""What a server says no with, in the words of each version that was asked."""

from __future__ import annotations

import hiredis
import pytest

from trio_ws.redis.refusals import is_refusal, refused

BEFORE_7 = "ERR Error running script (call to f_492690f94c6c): @user_script:1: @user_script: 1: "
SINCE_7 = " script: 492690f94c6c, on @user_script:1."


@pytest.mark.parametrize("passing", ["OOM", "NOREPLICAS", "READONLY", "MISCONF"])
@pytest.mark.parametrize(
    "text",
    ["{} it takes no writes.", "{} it takes no writes." + SINCE_7, BEFORE_7 + "-{} it takes no writes."],
)
def test_a_script_is_refused_as_a_call_is(text: str, passing: str) -> None:
    error = hiredis.ReplyError(text.format(passing))
    found = refused(error, "x:1")
    assert (found.code, found.passes) == (passing, True)
    assert is_refusal(error, passing)
    assert not is_refusal(error, "ERR")


@pytest.mark.parametrize(
    "text",
    [
        "NOPERM this user has no permissions to run the 'publish' command",
        BEFORE_7 + "The user executing the script can't run this command or subcommand",
        "ERR The user executing the script can't access at least one of the keys" + SINCE_7,
        "ERR ACL failure in script: User u has no permissions to run the 'set' command" + SINCE_7,
    ],
)
def test_what_a_user_may_not_do(text: str) -> None:
    found = refused(hiredis.ReplyError(text), "x:1")
    assert (found.code, found.passes) == ("NOPERM", False)
    assert "its user may not do this" in str(found)


@pytest.mark.parametrize("text", ["ERR syntax error" + SINCE_7, BEFORE_7 + "ERR syntax error"])
def test_what_is_wrong_with_a_script_itself(text: str) -> None:
    found = refused(hiredis.ReplyError(text), "x:1")
    assert (found.code, found.passes) == ("ERR", False)
