"""Where Redis is and how it lets one in, of a URL as users know it from redis-cli and redis-py.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]              one server; port 6379, database 0
    rediss://…                                              the same by TLS
    unix://[[USER]:PASSWORD@]/PATH[?db=DB]                  the same on this machine
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/NAME[/DB]   the primary that sentinels tell; port 26379
    redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],…         a cluster, of which some servers are named
    rediss+sentinel://…, rediss+cluster://…                 by TLS

What is in `[[USER]:PASSWORD@]` is percent-encoded. Options, after a ``?`` (docs/redis.md): `db`, `ssl_ca_certs`,
`ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`, `sentinel_username`, `sentinel_password`.
"""

from __future__ import annotations

import re
import ssl
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

import attrs

from ..errors import InvalidConfig

SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
"""What a URL of a Redis begins with, before ``://``."""

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_URL: Final = re.compile(r"([a-z+]+)://(?:([^/?#]*)@)?([^/?#]*)(/[^?#]*)?(?:\?(.*))?", re.ASCII | re.DOTALL)
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]@\s]+))(?::([0-9]{1,5}))?", re.ASCII)
_YES: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_OPTIONS: Final = ("db", "sentinel_username", "sentinel_password", *_TLS_OPTIONS)


@attrs.frozen
class Place:
    """One server: a host and its port, or the path of a socket (then the port is 0)."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Login:
    """Who one is for a server; neither is ever shown."""

    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Target:
    """What a URL says.

    Attributes:
      kind: what the places are: the ``server`` itself, ``sentinel``s that know it, some of a ``cluster``.
      places: at least one.
      name: what the sentinels call the primary.
      db: which of its numbered databases.
      login: for the server.
      sentinel_login: for the sentinels.
      tls: how its certificate is looked at; None without TLS.
    """

    kind: Literal["server", "sentinel", "cluster"]
    places: tuple[Place, ...]
    name: str
    db: int
    login: Login
    sentinel_login: Login
    tls: ssl.SSLContext | None = attrs.field(repr=False)

    def __str__(self) -> str:
        """For messages and logs: without a secret."""
        places = ",".join(map(str, self.places))
        return {"server": places, "sentinel": f"{self.name} of {places}", "cluster": places}[self.kind]


def parse(url: str) -> Target:
    """What `url` says.

    Raises:
      InvalidConfig: it is no URL of a Redis; the message says why, and holds no secret.
    """
    found = _URL.fullmatch(url)
    if found is None or found[1] not in SCHEMES:
        raise InvalidConfig(f"a Redis URL begins with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    scheme, login, hosts, path, query = found.groups()
    if "@" in f"{path}{query}" and scheme != "unix":
        raise InvalidConfig(
            "a password in a Redis URL is percent-encoded: / is %2F, ? is %3F, # is %23, @ is %40"
        )
    options = _options(query or "")
    tls = _tls(options, wanted=scheme.startswith("rediss"))
    name = ""
    places: tuple[Place, ...]
    match scheme.rpartition("+")[2]:
        case "unix":
            kind: Literal["server", "sentinel", "cluster"] = "server"
            if hosts or not path:
                raise InvalidConfig("a Redis URL of a socket has an absolute path: unix:///run/redis.sock")
            places, db = (Place(unquote(path), 0),), ""
        case "sentinel":
            kind, places = "sentinel", _places(hosts, SENTINEL_PORT)
            name, _, db = (path or "")[1:].partition("/")
            if not name:
                raise InvalidConfig("a Redis URL of sentinels names the primary: redis+sentinel://HOST/NAME")
        case "cluster":
            kind, places, db = "cluster", _places(hosts, PORT), (path or "")[1:]
        case _:
            kind, places, db = "server", _places(hosts, PORT), (path or "")[1:]
            if len(places) > 1:
                raise InvalidConfig("a redis:// URL has one host; several are for +sentinel and +cluster")
    number = _db(options.get("db", db))
    if kind == "cluster" and number:
        raise InvalidConfig("a Redis cluster has no databases by number")
    if kind != "sentinel" and ("sentinel_username" in options or "sentinel_password" in options):
        raise InvalidConfig("sentinel_username and sentinel_password are for redis+sentinel://")
    return Target(
        kind=kind,
        places=places,
        name=unquote(name),
        db=number,
        login=_login(login),
        sentinel_login=Login(options.get("sentinel_username"), options.get("sentinel_password")),
        tls=tls,
    )


def redacted(url: str) -> str:
    """`url` as it may be shown: without passwords."""
    url = re.sub(r"(?<=://)([^/?#@:]*):.*@", r"\1:***@", url, count=1)
    return re.sub(r"([?&](?:sentinel_)?password=)[^&#]*", r"\1***", url)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in _OPTIONS:
            raise InvalidConfig(f"a Redis URL has no option {option!r}; it has {', '.join(_OPTIONS)}")
    return options


def _login(text: str | None) -> Login:
    if text is None:
        return Login()
    username, _, password = text.partition(":")
    return Login(unquote(username) or None, unquote(password) or None)


def _places(hosts: str, port: int) -> tuple[Place, ...]:
    places = []
    for n, host in enumerate(hosts.split(",") if hosts else ["localhost"], 1):
        found = _HOST.fullmatch(host)
        number = int(found[3] or port) if found else 0
        if found is None or not 0 < number < 65536:
            # It is not shown: without an @ behind it, a password would be a host.
            raise InvalidConfig(f"a Redis URL has hosts as HOST or HOST:PORT, and number {n} is none")
        places.append(Place(unquote(found[1] or found[2]), number))
    return tuple(places)


def _db(text: str) -> int:
    if not re.fullmatch("[0-9]{0,9}", text):
        raise InvalidConfig(f"a Redis database is a number from 0, not {text!r}")
    return int(text or 0)


def _tls(options: dict[str, str], *, wanted: bool) -> ssl.SSLContext | None:
    if not wanted:
        for option in _TLS_OPTIONS:
            if option in options:
                raise InvalidConfig(f"{option} is for rediss://")
        return None
    check = options.get("ssl_cert_reqs", "required")
    if check not in ("required", "none"):
        raise InvalidConfig(f"ssl_cert_reqs is required or none, not {check!r}")
    by_name = _YES.get(options.get("ssl_check_hostname", "true").lower())
    if by_name is None:
        raise InvalidConfig("ssl_check_hostname is true or false")
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    except OSError as error:
        raise InvalidConfig(f"the certificates of a rediss:// URL can't be read: {error}") from None
    context.check_hostname = by_name and check == "required"
    context.verify_mode = ssl.CERT_REQUIRED if check == "required" else ssl.CERT_NONE
    return context
