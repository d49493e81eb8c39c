"""URLs of a Redis: what they mean, what is wrong with one, and that none of it tells a password."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.server.certificates import write_certificate
from trio_ws.errors import InvalidConfig
from trio_ws.redis.link import Redis
from trio_ws.redis.url import Login, Place, parse, redacted


@pytest.mark.parametrize(
    ("url", "places", "db", "login"),
    [
        ("redis://", "localhost:6379", 0, Login()),
        ("redis://host", "host:6379", 0, Login()),
        ("redis://host:7000/3", "host:7000", 3, Login()),
        ("redis://host/?db=4", "host:6379", 4, Login()),
        ("redis://[::1]:7000", "[::1]:7000", 0, Login()),
        ("redis://:secret@host", "host:6379", 0, Login(None, "secret")),
        ("redis://ada:s%40cret%2F@host", "host:6379", 0, Login("ada", "s@cret/")),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock", 2, Login()),
        ("unix://:secret@/run/redis%20x.sock", "/run/redis x.sock", 0, Login(None, "secret")),
        ("redis+sentinel://a,b:7000/events/1", "a:26379,b:7000", 1, Login()),
        ("redis+cluster://ada:secret@a,b", "a:6379,b:6379", 0, Login("ada", "secret")),
    ],
)
def test_what_it_means(url: str, places: str, db: int, login: Login) -> None:
    target = parse(url)
    assert ",".join(map(str, target.places)) == places
    assert (target.db, target.login, target.tls) == (db, login, None)


def test_sentinels() -> None:
    target = parse("redis+sentinel://:one@a/eve%20nts?sentinel_username=ada&sentinel_password=two")
    assert (target.kind, target.name, target.places) == ("sentinel", "eve nts", (Place("a", 26379),))
    assert (target.login, target.sentinel_login) == (Login(None, "one"), Login("ada", "two"))
    assert str(target) == "eve nts of a:26379"


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key)
    usual = parse("rediss://host").tls
    assert usual is not None
    assert usual.check_hostname
    assert usual.verify_mode is ssl.CERT_REQUIRED
    own = parse(f"rediss+cluster://host?ssl_ca_certs={cert}&ssl_certfile={cert}&ssl_keyfile={key}").tls
    assert own is not None
    assert len(own.get_ca_certs()) <= 1
    blind = parse("rediss://host?ssl_cert_reqs=none").tls
    assert blind is not None
    assert blind.verify_mode is ssl.CERT_NONE
    any_name = parse("rediss://host?ssl_check_hostname=false").tls
    assert any_name is not None
    assert (any_name.check_hostname, any_name.verify_mode) == (False, ssl.CERT_REQUIRED)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://:secret@host", "begins with one of redis://"),
        ("redis:host", "begins with one of redis://"),
        ("redis://:secret@host:port", "HOST:PORT, and number 1 is none"),
        ("redis+cluster://:secret@host,host:70000", "HOST:PORT, and number 2 is none"),
        ("redis://ada:secret", "HOST:PORT"),
        ("redis://:sec/ret@host", "percent-encoded"),
        ("redis://:secret@a,b", "one host"),
        ("redis://:secret@host/one", "number from 0, not 'one'"),
        ("redis://:secret@host?max=1", "no option 'max'"),
        ("redis://:secret@host?ssl_ca_certs=x", "ssl_ca_certs is for rediss://"),
        ("rediss://:secret@host?ssl_cert_reqs=maybe", "required or none"),
        ("rediss://:secret@host?ssl_check_hostname=maybe", "true or false"),
        ("rediss://:secret@host?ssl_ca_certs=/nowhere", "can't be read"),
        ("redis://:secret@host?sentinel_password=secret", r"for redis\+sentinel://"),
        ("redis+sentinel://:secret@host", "names the primary"),
        ("redis+cluster://:secret@host/1", "no databases"),
        ("unix://:secret@host", "absolute path"),
    ],
)
def test_what_is_wrong_with_it(url: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why) as caught:
        Redis(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host/1", "redis://host/1"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://ada:secret@host/1", "redis://ada:***@host/1"),
        (
            "redis+sentinel://a/b?sentinel_password=secret&db=1",
            "redis+sentinel://a/b?sentinel_password=***&db=1",
        ),
        ("redis://ada:se@cr:/et@host/1", "redis://ada:***@host/1"),
    ],
)
def test_how_it_is_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_no_secret_is_in_what_is_printed() -> None:
    url = "redis+sentinel://ada:secret@host/name?sentinel_password=secret"
    assert "secret" not in f"{Redis(url)!r} {parse(url)!r} {parse(url)}"
