"""JSON Web Tokens: every kind of key, and everything that can be wrong with a token."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from trio.testing import MockClock

from trio_ws.errors import InvalidConfig, InvalidEvent, StoreError, StoreUnavailable
from trio_ws.files import LOOK_INTERVAL
from trio_ws.identity import Identity
from trio_ws.server.auth import Authenticate, Credentials, SharedTickets, Tickets, checked, first_of
from trio_ws.server.tokens import PublicKeyFile, jwt_authenticator, public_keys
from trio_ws.store import Place

from .tokens import SECRET, pem, private_key, token


async def who(authenticate: Authenticate, given: str | None) -> str | None:
    """Whom the server takes the bearer for."""
    identity = await checked(authenticate, Credentials(token=given))
    return None if identity is None else identity.user


def forged(header: dict[str, Any], claims: Any = None, signature: bytes = b"") -> str:
    """A token with parts of one's own."""
    claims = {"sub": "ada", "exp": time.time() + 60} if claims is None else claims
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "PS256", "RS512"])
async def test_each_kind_of_public_key(algorithm: str) -> None:
    kind = "RS256" if algorithm[1] == "S" and algorithm[0] in "RP" else algorithm
    authenticate = jwt_authenticator(public_keys(pem(kind)), algorithms=[algorithm])
    assert await who(authenticate, token(private_key(kind), algorithm)) == "ada"
    assert await who(authenticate, token(private_key(kind, "another"), algorithm)) is None


async def test_a_shared_secret() -> None:
    authenticate = jwt_authenticator(SECRET)
    assert await who(authenticate, token()) == "ada"
    assert await who(authenticate, token(SECRET + "!")) is None


async def test_what_is_known_of_the_bearer() -> None:
    now = time.time()
    identity = await jwt_authenticator(SECRET, leeway=7)(Credentials(token=token(exp=now + 30, iat=now - 5)))
    assert isinstance(identity, Identity)
    assert identity.user == "ada"
    assert identity.expires == pytest.approx(int(now + 30) + 7, abs=1.1)
    assert identity.issued == pytest.approx(now - 5, abs=1.1)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 129},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"nbf": 4e9},
        {"iat": 4e9},
        {"aud": "somebody else"},
        {"aud": None},
        {"aud": 7},
        {"iss": "another"},
        {"iss": None},
    ],
    ids=str,
)
async def test_claims_that_are_not_taken(claims: dict[str, Any]) -> None:
    authenticate = jwt_authenticator(SECRET, audience="us", issuer="them")
    good: dict[str, Any] = {"aud": "us", "iss": "them"}
    assert await who(authenticate, token(**good)) == "ada"
    assert await who(authenticate, token(**{**good, **claims})) is None


async def test_an_audience_that_nobody_asked_for_is_another_s() -> None:
    assert await who(jwt_authenticator(SECRET), token(aud="another service")) is None


async def test_clocks_may_differ_a_little() -> None:
    authenticate = jwt_authenticator(SECRET, leeway=10)
    now = time.time()
    assert await who(authenticate, token(exp=now - 5)) == "ada"
    assert await who(authenticate, token(exp=now - 15)) is None
    assert await who(authenticate, token(nbf=now + 5)) == "ada"
    assert await who(authenticate, token(nbf=now + 15)) is None
    assert await who(jwt_authenticator(SECRET, leeway=0), token(exp=now - 2)) is None


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        ".",
        "..",
        "...",
        "no token",
        "x" * 20_000,
        "é.é.é",
        forged({"alg": "none"}),
        forged({"alg": "None", "typ": "JWT"}),
        forged({"alg": ["HS256"]}),
        forged({"alg": "HS256", "crit": ["exp"]}),
        forged({"alg": "HS256", "b64": False}),
        forged({"alg": "HS256", "kid": {"$ne": None}}),
        forged({"alg": "HS256"}, [1, 2]),
        token()[:-2],
        token() + "A",
        token().replace(".", ".A", 1),
    ],
    ids=range(18),
)
async def test_what_is_no_token_of_ours(given: str | None) -> None:
    assert await who(jwt_authenticator(SECRET), given) is None


async def test_a_header_that_is_nested_deeply_is_just_refused(caplog: pytest.LogCaptureFixture) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000).decode().rstrip("=")
    assert await who(jwt_authenticator(SECRET), f"{head}.e30.e30") is None
    assert not caplog.records


async def test_a_public_key_is_no_secret() -> None:
    """The classic: a token signed by HMAC with the text of the public key."""
    public = pem("RS256")
    signed = forged({"alg": "HS256", "typ": "JWT"}).rpartition(".")[0]
    import hashlib
    import hmac

    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), hashlib.sha256)).decode().rstrip("=")
    authenticate = jwt_authenticator(public_keys(public))
    assert await who(authenticate, f"{signed}.{mac}") is None


async def test_only_the_algorithms_that_were_named() -> None:
    both = public_keys(pem("RS256") + pem("ES256"))
    authenticate = jwt_authenticator(both, algorithms=["ES256"])
    assert await who(authenticate, token(private_key("ES256"), "ES256")) == "ada"
    assert await who(authenticate, token(private_key("RS256"), "RS256")) is None
    with pytest.raises(InvalidConfig, match="none"):
        jwt_authenticator(SECRET, algorithms=["none"])


async def test_several_public_keys_while_one_takes_the_place_of_another() -> None:
    authenticate = jwt_authenticator(
        public_keys(pem("ES256", "old") + b"\n# the next\n" + pem("ES256", "new"))
    )
    for name in ("old", "new"):
        assert await who(authenticate, token(private_key("ES256", name), "ES256")) == "ada"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "can't be read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private"),
    ],
)
def test_what_is_no_public_key(text: bytes, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        public_keys(text)


async def test_a_file_of_keys_that_is_replaced(
    autojump_clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, next = tmp_path / "key.pem", tmp_path / "next.pem"
    old, new = (token(private_key("ES256", name), "ES256") for name in ("old", "new"))
    file.write_bytes(pem("ES256", "old"))
    keys = PublicKeyFile(file)
    authenticate = jwt_authenticator(keys)

    async def good() -> list[bool]:
        await trio.sleep(LOOK_INTERVAL)
        return [await who(authenticate, given) == "ada" for given in (old, new)]

    assert await good() == [True, False]
    next.write_bytes(pem("ES256", "old") + pem("ES256", "new"))
    next.replace(file)
    assert await good() == [True, True]
    for torn in (pem("ES256", "new")[:60], b"", pem("weak")):
        file.write_bytes(torn)
        assert await good() == [True, True]
    assert "the new public key can't be used, the old one stays: there is no public key in PEM" in caplog.text
    file.unlink()
    assert await good() == [True, True]
    file.write_bytes(pem("ES256", "new"))
    assert await good() == [False, True]
    before = file.stat()
    file.write_bytes(pem("ES256", "old"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await good() == [False, True]  # nobody can see that it is another one
    assert keys.reload()
    assert await good() == [True, False]


def test_what_is_no_file_of_keys_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"the public key .*nowhere can't be used: no such file"):
        PublicKeyFile(tmp_path / "nowhere")


def test_a_weak_key_is_none() -> None:
    with pytest.raises(InvalidConfig, match="2048"):
        public_keys(pem("weak"))


async def test_tickets_next_to_tokens() -> None:
    tickets = Tickets()
    authenticate = first_of(tickets.authenticate, jwt_authenticator(SECRET))
    ticket, _ = tickets.issue("bob")
    assert await who(authenticate, token()) == "ada"
    assert await who(authenticate, ticket) == "bob"
    assert await who(authenticate, ticket) is None


async def test_a_ticket_says_when_it_was_issued() -> None:
    now = 1000.0
    tickets = Tickets(lambda: now)
    ticket, _ = tickets.issue("bob", ttl=10)
    now = 1005.0
    identity = await tickets.authenticate(Credentials(token=ticket))
    assert identity == Identity("bob", issued=1000.0)
    late, _ = tickets.issue("bob", ttl=10)
    now = 1015.0
    assert await tickets.authenticate(Credentials(token=late)) is None


class TestSharedTickets:
    async def test_issued_at_one_node_and_used_once_at_another(self, autojump_clock: MockClock) -> None:
        place = Place()
        here, there = (SharedTickets(place.node(name), lambda: 1000.0) for name in "ab")
        ticket, expires = await here.issue("bob", ttl=10)
        assert expires == 1010.0
        assert not any(
            ticket in name or ticket.encode() in value for name, (value, _) in place.values.items()
        )
        assert await there.authenticate(Credentials(token=ticket)) == Identity("bob", issued=1000.0)
        assert await here.authenticate(Credentials(token=ticket)) is None
        late, _ = await here.issue("bob", ttl=10)
        await trio.sleep(10)
        assert await there.authenticate(Credentials(token=late)) is None

    async def test_a_race_for_one_has_one_winner(self) -> None:
        place = Place()
        tickets = [SharedTickets(place.node(name)) for name in "abc"]
        ticket, _ = await tickets[0].issue("bob")
        winners = []

        async def use(desk: SharedTickets) -> None:
            winners.append(await desk.authenticate(Credentials(token=ticket)))

        async with trio.open_nursery() as nursery:
            for desk in tickets:
                nursery.start_soon(use, desk)
        assert sum(winner is not None for winner in winners) == 1

    async def test_a_clock_that_is_ahead_and_what_is_no_ticket(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = Place().node("a")
        ticket, _ = await SharedTickets(store, lambda: 1000.0).issue("bob", ttl=10)
        assert await SharedTickets(store, lambda: 1011.0).authenticate(Credentials(token=ticket)) is None
        with pytest.raises(InvalidEvent):
            await SharedTickets(store).issue("\0")
        monkeypatch.setattr(store, "take", None)  # is not asked
        authenticate = first_of(SharedTickets(store).authenticate, jwt_authenticator(SECRET))
        assert await who(authenticate, token()) == "ada"
        assert await who(authenticate, None) is None

    async def test_where_the_store_fails_it_can_not_be_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> None:
            raise StoreError("away")

        store = Place().node("a")
        monkeypatch.setattr(store, "take", fail)
        monkeypatch.setattr(store, "put", fail)
        with pytest.raises(StoreUnavailable):
            await checked(SharedTickets(store).authenticate, Credentials(token="a" * 32))
        with pytest.raises(StoreError):
            await SharedTickets(store).issue("bob")


class TestWhatIsLogged:
    async def test_a_check_that_fails_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def authenticate(credentials: Credentials) -> str:
            raise OSError("the directory is away")

        assert await checked(authenticate, Credentials(token="top secret")) is None
        assert "the directory is away" in caplog.text

    async def test_but_never_with_the_token(self, caplog: pytest.LogCaptureFixture) -> None:
        async def authenticate(credentials: Credentials) -> str:
            raise OSError(f"GET https://directory.example.com/?token={credentials.token}")

        with caplog.at_level(logging.DEBUG):
            assert await checked(authenticate, Credentials(token="top secret")) is None
        assert "OSError" in caplog.text
        assert "top secret" not in caplog.text

    def test_credentials_do_not_show_them(self) -> None:
        headers = (("authorization", "Bearer top secret"),)
        assert "top secret" not in repr(Credentials(token="top secret", headers=headers))


def test_pyjwt_knows_all_that_we_do() -> None:
    from trio_ws.server.tokens import ASYMMETRIC, SYMMETRIC

    assert set(jwt.algorithms.get_default_algorithms()) >= ASYMMETRIC | SYMMETRIC
