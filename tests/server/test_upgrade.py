"""The request to upgrade, by a table: RFC 6455 section 4.2.1, and what a hostile client makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.server.upgrade import (
    MAX_HEAD_BYTES,
    MAX_HEADER_LINES,
    Refusal,
    accepting_answer,
    http_answer,
    parse_request,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
BASE = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(line: str = "GET /ws HTTP/1.1", *extra: str, without: str | None = None, **changed: str) -> bytes:
    """A request's head: the base headers, some changed (`Sec_WebSocket_Key=…`) or left out, and extra lines."""
    headers = BASE | {name.replace("_", "-"): value for name, value in changed.items()}
    if without is not None:
        del headers[without]
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def refusal(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_request(data)
    return caught.value


class TestAccepted:
    def test_what_a_browser_sends(self) -> None:
        request = parse_request(
            head(
                "GET /ws?token=abc.def&user=a%20b&flag HTTP/1.1",
                "Origin: https://app.example.com",
                "Sec-WebSocket-Protocol: trio-ws.v1, other",
                "Sec-WebSocket-Protocol: trio-ws.v1,third",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
                "Authorization: bEARER secret.token",
                "X-Tab:\t tabbed value \t",
            )
        )
        assert request.target == "/ws?token=abc.def&user=a%20b&flag"
        assert request.path == "/ws"
        assert request.query == {"token": "abc.def", "user": "a b", "flag": ""}
        assert request.subprotocols == ("trio-ws.v1", "other", "third")
        assert request.origin == "https://app.example.com"
        assert request.bearer == "secret.token"
        assert request.key == KEY
        assert request.header("HOST") == "example.com"
        assert request.header("x-tab") == "tabbed value"
        assert request.header("absent") is None

    @pytest.mark.parametrize(
        "changed",
        [
            {"Connection": "keep-alive, UPGRADE"},
            {"Upgrade": "WebSocket"},
            {"Upgrade": "h2c, websocket"},
            {"Host": "[::1]:8765"},
            {"Host": "xn--a.example"},
            {"Host": "a..b"},
            {"Host": "a" * 300},
            {"Content_Length": "0"},
            {"Authorization": "Basic dTpw"},
        ],
    )
    def test_legal_variants(self, changed: dict[str, str]) -> None:
        request = parse_request(head(**changed))
        assert request.bearer is None
        assert request.origin is None
        assert request.subprotocols == ()

    def test_connection_in_two_lines(self) -> None:
        parse_request(head("GET / HTTP/1.1", "Connection: keep-alive"))

    @pytest.mark.parametrize("prefix", ["http://example.com", "https://example.com:8443", "WS://h"])
    def test_absolute_form(self, prefix: str) -> None:
        assert parse_request(head(f"GET {prefix}/ws?a=1 HTTP/1.1")).target == "/ws?a=1"
        assert parse_request(head(f"GET {prefix} HTTP/1.1")).path == "/"

    def test_the_path_is_decoded_and_the_first_parameter_counts(self) -> None:
        request = parse_request(head("GET /%C3%A4/b?x=1&x=2 HTTP/1.1"))
        assert request.path == "/ä/b"
        assert request.query == {"x": "1"}

    def test_as_many_lines_as_may_be(self) -> None:
        extra = [f"X-{n}: {n}" for n in range(MAX_HEADER_LINES - len(BASE))]
        assert len(parse_request(head("GET / HTTP/1.1", *extra)).headers) == MAX_HEADER_LINES


class TestRefused:
    @pytest.mark.parametrize(
        "line",
        [
            "POST /ws HTTP/1.1",
            "get /ws HTTP/1.1",
            "GET /ws HTTP/1.0",
            "GET /ws HTTP/2.0",
            "GET /ws HTTP/1.2",
            "GET /ws",
            "GET  /ws HTTP/1.1",
            "GET /ws HTTP/1.1 ",
            " GET /ws HTTP/1.1",
            "GET /w s HTTP/1.1",
            "GET ws HTTP/1.1",
            "GET * HTTP/1.1",
            "GET example.com:80 HTTP/1.1",
            "GET /ws#part HTTP/1.1",
            "GET ftp://example.com/ws HTTP/1.1",
            "GET /%FF HTTP/1.1",
            "GET /%00 HTTP/1.1",
            "GET /%0d%0aX HTTP/1.1",
            "GET /%C2%85 HTTP/1.1",
            "GET /?a=%FF HTTP/1.1",
            "GET /?token=a&token=b HTTP/1.1",
            "GET /?user=a&%75ser=b HTTP/1.1",
            "GET /?" + "&".join("abcdefgh" * 30) + " HTTP/1.1",
            "",
        ],
    )
    def test_request_lines(self, line: str) -> None:
        assert refusal(head(line)).status == 400

    @pytest.mark.parametrize(
        "name", [name for name in BASE if name not in ("Upgrade", "Sec-WebSocket-Version")]
    )
    def test_a_header_is_missing(self, name: str) -> None:
        assert refusal(head(without=name)).status == 400

    @pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    def test_a_header_is_there_twice(self, name: str) -> None:
        answer = refusal(head("GET / HTTP/1.1", f"{name.upper()}: {BASE[name]}"))
        assert answer.status == 400

    @pytest.mark.parametrize("name", ["Origin", "Authorization"])
    def test_an_optional_header_is_there_twice(self, name: str) -> None:
        assert refusal(head("GET / HTTP/1.1", f"{name}: a", f"{name}: b")).status == 400

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "short",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25j!Q==",
            "dGhlIHNhbXBsZSB ub25jZQ=",
            "========================",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
        ],
    )
    def test_keys(self, key: str) -> None:
        assert refusal(head(Sec_WebSocket_Key=key)).status == 400

    @pytest.mark.parametrize(
        "changed",
        [
            {"Content_Length": "1"},
            {"Content_Length": "-1"},
            {"Content_Length": "0x0"},
            {"Transfer_Encoding": "chunked"},
            {"Transfer_Encoding": ""},
            {"Host": ""},
            {"Host": "a b"},
            {"Host": "a/b"},
            {"Connection": "close"},
            {"Connection": "notupgrade"},
            {"Sec_WebSocket_Protocol": "a b"},
            {"Sec_WebSocket_Protocol": 'a"b'},
        ],
    )
    def test_header_values(self, changed: dict[str, str]) -> None:
        assert refusal(head(**changed)).status == 400

    @pytest.mark.parametrize(
        "line",
        [
            " folded: obsolete",
            "\tfolded",
            "no colon",
            ": no name",
            "blank : before",
            "na me: x",
            "nul: a\0b",
            "escape: \x1b[31m",
            "stray: a\rb",
            "stray: a\nb",
            "high: \xff",
            "del: \x7f",
            "n\xe4me: x",
            "",
        ],
    )
    def test_header_lines(self, line: str) -> None:
        assert refusal(head("GET / HTTP/1.1", line)).status == 400

    @pytest.mark.parametrize(
        "name", [*BASE, "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Origin", "Cookie"]
    )
    def test_byte_ff_in_any_header(self, name: str) -> None:
        assert refusal(head(**{name.replace("-", "_"): "\xff"})).status == 400

    @pytest.mark.parametrize("version", ["", "8", "12", "14", "13, 8", "+13", "013"])
    def test_other_versions_are_told_which_one_would_do(self, version: str) -> None:
        answer = refusal(head(Sec_WebSocket_Version=version))
        assert answer.status == 426
        assert ("Sec-WebSocket-Version", "13") in answer.headers

    @pytest.mark.parametrize("upgrade", ["", "h2c", "websockets", "web socket"])
    def test_no_websocket_is_asked_for(self, upgrade: str) -> None:
        answer = refusal(head(Upgrade=upgrade))
        assert answer.status == 426
        assert ("Upgrade", "websocket") in answer.headers

    def test_a_plain_get_is_told_what_this_is(self) -> None:
        answer = refusal(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.status == 426
        assert "WebSocket client" in answer.message

    def test_no_version_is_426(self) -> None:
        assert refusal(head(without="Sec-WebSocket-Version")).status == 426

    def test_too_many_lines(self) -> None:
        extra = [f"X-{n}: {n}" for n in range(MAX_HEADER_LINES + 1 - len(BASE))]
        assert refusal(head("GET / HTTP/1.1", *extra)).status == 431

    def test_too_many_bytes(self) -> None:
        room = MAX_HEAD_BYTES - len(head("GET / HTTP/1.1", "X: "))
        parse_request(head("GET / HTTP/1.1", "X: " + "a" * room))
        assert refusal(head("GET / HTTP/1.1", "X: " + "a" * (room + 1))).status == 431

    @pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\n\n"])
    def test_no_head_at_all(self, data: bytes) -> None:
        assert refusal(data).status == 400


class TestSecrets:
    def test_no_token_shows(self) -> None:
        request = parse_request(
            head("GET /ws?token=SECRET HTTP/1.1", "Authorization: Bearer SECRET", "Cookie: SECRET")
        )
        assert "SECRET" not in repr(request)
        assert "SECRET" not in str(request)

    def test_a_refusal_repeats_nothing(self) -> None:
        for data in (head("GET /?token=SECRET&token=SECRET HTTP/1.1"), head(Sec_WebSocket_Key="SECRET")):
            answer = refusal(data)
            assert "SECRET" not in f"{answer!r} {answer} {answer.message}"


class TestAccepting:
    def test_the_example_of_the_rfc(self) -> None:
        assert accepting_answer(KEY, "trio-ws.v1").split(b"\r\n") == [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            b"Sec-WebSocket-Protocol: trio-ws.v1",
            b"",
            b"",
        ]

    def test_no_subprotocol_is_selected_unless_told(self) -> None:
        assert b"Sec-WebSocket-Protocol" not in accepting_answer(KEY, None)


class TestAnswer:
    def test_it_is_http(self) -> None:
        answer = http_answer(426, "Grüße", [("Upgrade", "websocket")])
        before, body = answer.split(b"\r\n\r\n")
        lines = before.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 426 Upgrade Required"
        assert b"Content-Length: %d" % len(body) in lines
        assert b"Upgrade: websocket" in lines
        assert b"Connection: close" in lines
        assert body.decode() == "Grüße\n"

    @pytest.mark.parametrize(
        "header", [("A", "b\r\nC: d"), ("A\r\n", "b"), ("A", "\xff"), ("A:", "b"), ("", "b")]
    )
    def test_no_header_is_injected(self, header: tuple[str, str]) -> None:
        with pytest.raises(ValueError, match="printable ASCII"):
            http_answer(400, "no", [header])


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    assert 400 <= refusal(data + b"\r\n\r\n").status < 500


@given(st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=3)), max_size=4))
def test_a_damaged_request_is_read_or_refused(damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(head("GET /ws?token=a HTTP/1.1", "Sec-WebSocket-Protocol: trio-ws.v1"))
    for at, piece in damage:
        data[at : at + len(piece)] = piece
    try:
        request = parse_request(bytes(data))
    except Refusal as answer:
        http_answer(answer.status, answer.message, answer.headers)
    else:
        assert accepting_answer(request.key, *request.subprotocols[:1] or [None]).count(b"\r\n") in (5, 6)
