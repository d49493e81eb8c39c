"""Reads the HTTP request that opens a WebSocket, strictly: RFC 6455 section 4.2.1 and nothing more lenient.

Pure and synchronous. Everything a client may say in its request is judged here, and answered; the WebSocket library
sees none of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs

from ..errors import RemoteError

MAX_HEAD_BYTES: Final = 16 * 1024
"""How long a request's head may be, its final empty line included."""

MAX_HEADER_LINES: Final = 100
"""How many header lines a request may have."""

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE: Final = re.compile(rf"({_TOKEN}):(.*)")
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://[^/?#]+", re.IGNORECASE)
_HOST: Final = re.compile(r"[0-9A-Za-z.\-_~%!$&'()*+,;=:\[\]]+")
_ILLEGAL: Final = re.compile(rb"[^\t\r\n -~]")
_WORD: Final = re.compile(_TOKEN)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455 has a server put behind the key before it is hashed."""

_ONCE: Final = frozenset(
    (
        "authorization",
        "content-length",
        "host",
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
    )
)
"""Headers that say nothing clear when they are there twice."""

_ONCE_IN_QUERY: Final = frozenset(("token", "user"))
"""Parameters that carry an identity: two of them would be two identities."""

_UPGRADE_HEADERS: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


class Refusal(RemoteError):
    """A request that is answered in HTTP and goes no further.

    Attributes:
      status: the HTTP status of the answer.
      message: a sentence for a human; it repeats nothing that the client sent.
      headers: (name, value) pairs for the answer.
    """

    def __init__(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.headers = tuple(headers)

    def answer(self, request: bytes) -> bytes:
        """The whole HTTP answer to `request`, of which only the beginning need be there: HEAD has no body."""
        return http_answer(
            self.status, self.message, self.headers, with_body=not request.startswith(b"HEAD ")
        )


@attrs.frozen(kw_only=True)
class UpgradeRequest:
    """A valid request to open a WebSocket. Its repr shows nothing that may hold a token.

    Attributes:
      target: the request target as it came, in origin form.
      path: the target's path, percent-decoded; no control characters.
      query: the target's parameters, decoded; the first value of a name counts.
      headers: (lower-case name, value) pairs, in order.
      key: the `Sec-WebSocket-Key`.
      subprotocols: what the client offers, in its order of preference, without repeats.
      origin: the `Origin` header, if any.
      bearer: the credentials of an `Authorization: Bearer` header, if any; unverified.
    """

    target: str = attrs.field(repr=False)
    path: str
    query: dict[str, str] = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    key: str = attrs.field(repr=False)
    subprotocols: tuple[str, ...]
    origin: str | None
    bearer: str | None = attrs.field(repr=False)

    def header(self, name: str) -> str | None:
        """The first value of the header `name`, in any case of letters; None where there is none."""
        name = name.lower()
        return next((value for key, value in self.headers if key == name), None)


def parse_request(head: bytes) -> UpgradeRequest:
    """The request in `head`, which runs from the request line to the empty line, both included.

    Raises:
      Refusal: it is no proper HTTP/1.1 (400), too long (431), or does not ask for version 13 of WebSocket
      (426).
    """
    method, target, headers = _parse_http(head)
    values: dict[str, str] = {}
    for name, value in headers:
        # A list may come in several lines; what must not is there once (see `_ONCE`).
        values[name] = f"{values[name]},{value}" if name in values else value
    if method != "GET":
        raise Refusal(400, "Only GET is understood here.", [("Allow", "GET")])
    _refuse_body(values)
    host = values.get("host")
    if host is None or not _HOST.fullmatch(host):
        raise Refusal(400, "There must be one Host header, with a legal value.")
    _check_upgrade(values)
    path, query = _parse_target(target)
    return UpgradeRequest(
        target=target,
        path=path,
        query=query,
        headers=headers,
        key=_check_key(values.get("sec-websocket-key")),
        subprotocols=_subprotocols(values),
        origin=values.get("origin"),
        bearer=_bearer(values),
    )


def _parse_http(head: bytes) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Method, target in origin form, and headers of `head`."""
    if len(head) > MAX_HEAD_BYTES:
        raise too_long()
    if not head.endswith(b"\r\n\r\n"):
        raise Refusal(400, "The request has no end.")
    if _ILLEGAL.search(head):
        raise Refusal(400, "A request consists of printable ASCII characters.")
    request_line, *lines = head[:-4].decode("ascii").split("\r\n")
    if len(lines) > MAX_HEADER_LINES:
        raise Refusal(431, f"More than {MAX_HEADER_LINES} header lines.")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise Refusal(400, "The first line is no HTTP request line.")
    method, target, major, minor = match.groups()
    if (major, minor) != ("1", "1"):
        raise Refusal(400, "Only HTTP/1.1 is understood here.")
    headers = []
    seen = set()
    for line in lines:
        # A line that starts with a blank (an obsolete folding) is no header line either. A stray CR or LF
        # would be in the value, since the pattern's dot stops only at LF.
        match = _HEADER_LINE.fullmatch(line)
        if match is None or "\r" in line:
            raise Refusal(400, "A line is no HTTP header.")
        name = match[1].lower()
        if name in _ONCE and name in seen:
            raise Refusal(400, f"The header {name} is there twice.")
        seen.add(name)
        headers.append((name, match[2].strip(" \t")))
    return method, _origin_form(target), tuple(headers)


def _origin_form(target: str) -> str:
    """`target` without the scheme and host that an absolute form has."""
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = "/" + target
    if not target.startswith("/") or "#" in target:
        raise Refusal(400, "The request target must be a path.")
    return target


def _parse_target(target: str) -> tuple[str, dict[str, str]]:
    """The path, decoded, and the parameters of `target`."""
    raw_path, _, raw_query = target.partition("?")
    try:
        path = unquote(raw_path, errors="strict")
        pairs = parse_qsl(raw_query, keep_blank_values=True, errors="strict", max_num_fields=MAX_HEADER_LINES)
    except ValueError:  # invalid UTF-8, or too many parameters
        raise Refusal(400, "The request target can't be decoded.") from None
    if _CONTROL.search(path):
        raise Refusal(400, "The path has control characters.")
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query and name in _ONCE_IN_QUERY:
            raise Refusal(400, f"The parameter {name} is there twice.")
        query.setdefault(name, value)
    return path, query


def _refuse_body(values: dict[str, str]) -> None:
    """A request to upgrade has no body: its bytes would be taken for frames."""
    if "transfer-encoding" in values or values.get("content-length", "0") != "0":
        raise Refusal(400, "The request must not have a body.")


def _check_upgrade(values: dict[str, str]) -> None:
    """That it asks for a WebSocket of version 13."""
    if "websocket" not in _list(values.get("upgrade", "").lower()):
        raise Refusal(
            426, "This is a WebSocket endpoint: connect to it with a WebSocket client.", _UPGRADE_HEADERS
        )
    if "upgrade" not in _list(values.get("connection", "").lower()):
        raise Refusal(
            400, "The Connection header does not say Upgrade: a proxy on the way may have dropped it."
        )
    if values.get("sec-websocket-version") != "13":
        raise Refusal(426, "Only version 13 of WebSocket is understood here.", _UPGRADE_HEADERS)


def _check_key(key: str | None) -> str:
    """The Sec-WebSocket-Key: 16 bytes in base64."""
    try:
        valid = key is not None and len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        valid = False
    if key is None or not valid:
        raise Refusal(400, "There must be one Sec-WebSocket-Key of 16 bytes in base64.")
    return key


def _subprotocols(values: dict[str, str]) -> tuple[str, ...]:
    """What Sec-WebSocket-Protocol offers, in order; each once."""
    offered = _list(values.get("sec-websocket-protocol", ""))
    if not all(_WORD.fullmatch(name) for name in offered):
        raise Refusal(400, "Sec-WebSocket-Protocol must be a list of names.")
    return tuple(dict.fromkeys(offered))


def _bearer(values: dict[str, str]) -> str | None:
    """The credentials of `Authorization: Bearer …`; another scheme is none of ours."""
    scheme, _, credentials = values.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def _list(value: str) -> list[str]:
    """The elements of a header that is a list."""
    return [element for element in map(str.strip, value.split(",")) if element]


def accepting_answer(key: str, subprotocol: str | None) -> bytes:
    """The answer that opens the WebSocket.

    Args:
      key: the client's `Sec-WebSocket-Key`.
      subprotocol: the one that is selected, of those that the client offered; None for none.
    """
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
    selected = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, selected)
    )


def http_answer(
    status: int, message: str, headers: Iterable[tuple[str, str]] = (), *, with_body: bool = True
) -> bytes:
    """A whole HTTP answer that says `message` and that it is the last.

    Args:
      status: the HTTP status.
      message: a sentence for a human: the body.
      headers: more (name, value) pairs.
      with_body: False for an answer to HEAD, which tells of a body that is not there (RFC 9110, 9.3.2).

    Raises: ValueError for what can't be a header.
    """
    body = (message + "\n").encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    for name, value in headers:
        if not _WORD.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ValueError("a header must be printable ASCII")
        lines.append(f"{name}: {value}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head + body if with_body else head


def too_long() -> Refusal:
    """The refusal of a head over `MAX_HEAD_BYTES`."""
    return Refusal(431, f"The request's head is over {MAX_HEAD_BYTES} bytes.")
