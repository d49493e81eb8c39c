"""Why a connection could not be made, in the words of the system."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from trio_ws.addresses import cause_of


def wrapped(cause: Exception) -> Exception:
    error = RuntimeError("a layer")
    error.__cause__ = ExceptionGroup("all attempts", [cause, ValueError("another")])
    return error


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.ECONNREFUSED, "Error connecting to ('::1', 1)"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (untrusted(), "its certificate is not trusted: self-signed certificate"),
        (ssl.SSLError(1, "Wrong version number"), "wrong version number"),
    ],
)
def test_the_cause_is_found_under_the_layers_that_wrap_it(cause: Exception, words: str) -> None:
    assert cause_of(cause) == words
    assert cause_of(wrapped(cause)) == words


def test_without_one_what_is_there_speaks_for_itself() -> None:
    assert cause_of(RuntimeError("it broke")) == "it broke"
    assert cause_of(EOFError()) == "EOFError"
