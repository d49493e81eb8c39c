"""All that `trio-ws serve` can be told, and where each value came from.

`Settings` is a `Config` (the limits of a hub) and what a process adds to it: addresses, keys, the log's
format. `load` takes each value from the strongest source that has it: a flag, the environment
(``TRIO_WS_MAX_EVENTS``; lists as JSON), a TOML file (top-level keys), the preset, the default. An unknown key
or variable is an error that names the nearest known one; so is a wrong value, and its message says where it
came from.

Reading and merging are typed-settings'. Its conversion is not used: the validators of the classes are
stricter (``true`` is no number here), and its messages repeat the value, which may be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_origin
from urllib.parse import urlsplit

import attrs
from typed_settings.cls_utils import deep_options
from typed_settings.dict_utils import merge_settings
from typed_settings.exceptions import TsError
from typed_settings.loaders import DictLoader, TomlFormat
from typed_settings.types import LoadedSettings, LoaderMeta, SecretStr

from .addresses import is_loopback
from .config import PRESETS, Config, number, one_of
from .errors import InvalidConfig
from .server.proxies import WAYS, TrustedProxies, Way
from .server.tokens import ALGORITHMS, ASYMMETRIC, SYMMETRIC
from .store import SqliteStore, Store

ENV_PREFIX = "TRIO_WS_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
CLIENT_VARIABLES = (ENV_PREFIX + "TOKEN",)
"""Variables that other commands read: known, but no settings of a server."""

REPEATABLE = {
    "allowed_origins": "--allowed-origin",
    "jwt_algorithms": "--jwt-algorithm",
    "trusted_proxies": "--trusted-proxy",
}
"""The flags that are given several times, each with one value of a list."""

MASK = "*" * 8


def _text(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    # The value is left out: it may be a secret.
    if value is None and attribute.default is None:
        return
    if not isinstance(value, str) or not value.strip():
        raise InvalidConfig(f"{attribute.name} must be a text that is not empty")


def _whole(low: int, high: int) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidConfig(
                f"{attribute.name} must be a whole number from {low} to {high}, not {value!r}"
            )

    return check


def _http_url(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    # The value is left out: it may hold a secret, in the path too.
    if value is not None and not re.fullmatch(r"https?://[^\s/?#]+\S*", str(value)):
        raise InvalidConfig(f"{attribute.name} must be a URL such as https://hooks.example.com/…")


def _origins(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    for origin in value:
        if not isinstance(origin, str) or not re.fullmatch(r"[a-zA-Z][\w+.-]*://[^/?#@\s]+", origin):
            raise InvalidConfig(
                f"{attribute.name} must be origins such as https://app.example.com, not {origin!r}"
            )


def _flag(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidConfig(f"{attribute.name} must be true or false, not {value!r}")


def _proxies(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    try:
        TrustedProxies(value)
    except InvalidConfig:
        raise InvalidConfig(
            f"{attribute.name} must be networks such as 10.0.0.0/8, or unix, not {_as_list(value)!r}"
        ) from None


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _jwks(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidConfig(f"{attribute.name} must be a URL such as https://issuer.example.com/jwks.json")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise InvalidConfig(f"{attribute.name} must be https: whoever is on the way could put in other keys")


def _algorithms(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not value or not set(value) <= SYMMETRIC | ASYMMETRIC:
        known = ", ".join(sorted(SYMMETRIC | ASYMMETRIC))
        raise InvalidConfig(f"{attribute.name} must be some of {known}")


def _store(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    text = value if isinstance(value, str) else ""
    if _is_url(text):
        try:
            _redis().parse(text)
        except InvalidConfig as error:
            raise InvalidConfig(f"store: {error}") from None
    elif text != "memory" and not re.fullmatch(r"sqlite:.+", text):
        # What it is instead is not shown: it may be a URL with a password.
        raise InvalidConfig("store must be memory, sqlite:PATH or redis://…")


def _is_url(store: str) -> bool:
    """Whether this is no store of one process."""
    return "://" in store and not store.startswith("sqlite:")


def _without_password(store: str) -> str:
    return _redis().redacted(store) if _is_url(store) else store


def _redis() -> ModuleType:
    """What knows URLs of a Redis."""
    try:
        from .redis import url
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"a Redis needs {error.name}, which the redis extra brings: pip install 'trio-ws[server,redis]'"
        ) from None
    return url


def _node_name(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[\w.:-]{1,48}", value)):
        raise InvalidConfig(
            f"{attribute.name} must be 1 to 48 letters, digits and any of . : - _, not {value!r}"
        )


def _workers(value: Any) -> Any:
    """``auto`` as 0."""
    return 0 if value == "auto" else value


def _secret(value: Any) -> Any:
    """A text whose repr is masked."""
    return SecretStr(value) if isinstance(value, str) else value


@attrs.frozen(kw_only=True)
class Settings(Config):
    """The effective settings of one server process. A value out of its bounds raises `InvalidConfig`.

    Attributes:
      insecure: how often it was said: 1 lets clients name their user on a loopback address, 2 on any.
      jwt_public_key: a PEM file.
      jwt_jwks: the URL of a set of keys.
      store: ``memory``, ``sqlite:PATH``, or the URL of a Redis, which several nodes share.
      redis_prefix: what the names of all keys in that Redis begin with.
      redis_wait_replicas: how many of its replicas must have a commit before it counts as done.
      node_name: what this node is called in logs and figures; None for the name of the machine.
      workers: how many processes serve, over one Redis; 0 is one for each core.
      alert_webhook: where alerts are posted to, masked, since such URLs are secrets.
      otel: ``on`` makes a span of each publish, with the tracer provider that the process has.
      api_key_file: a file of keys that are good besides `api_key`, one a line.
      tls_cert, tls_key: PEM files; the key may be in the same one. admin_tls_cert, admin_tls_key: of the admin API.
      trusted_proxies: networks whose word counts on where a client comes from, told by `proxy_header`.
      allowed_origins: the Origins that browsers may connect from; empty leaves that to the listener.
    """

    host: str = attrs.field(default="127.0.0.1", validator=_text)
    port: int = attrs.field(default=8765, validator=_whole(0, 65535))
    admin_host: str = attrs.field(default="127.0.0.1", validator=_text)
    admin_port: int = attrs.field(default=8766, validator=_whole(0, 65535))
    preset: str = attrs.field(default="production", validator=one_of(PRESETS))
    store: str = attrs.field(
        default="sqlite:trio-ws.db", validator=_store, repr=lambda value: repr(_without_password(value))
    )
    redis_prefix: str = attrs.field(default="trio-ws:", validator=_text)
    redis_wait_replicas: int = attrs.field(default=0, validator=_whole(0, 10))
    node_name: str | None = attrs.field(default=None, validator=_node_name)
    workers: int = attrs.field(default=1, converter=_workers, validator=_whole(0, 256))
    insecure: int = attrs.field(default=0, validator=_whole(0, 2))
    jwt_secret: SecretStr | None = attrs.field(
        default=None, converter=_secret, validator=_text, metadata={"secret": True}
    )
    jwt_public_key: str | None = attrs.field(default=None, validator=_text)
    jwt_jwks: str | None = attrs.field(default=None, validator=_jwks)
    jwt_audience: str | None = attrs.field(default=None, validator=_text)
    jwt_issuer: str | None = attrs.field(default=None, validator=_text)
    jwt_algorithms: tuple[str, ...] = attrs.field(default=ALGORITHMS, converter=tuple, validator=_algorithms)
    jwt_leeway: float = attrs.field(default=10.0, validator=number(0, 30), metadata={"seconds": True})
    api_key: SecretStr | None = attrs.field(
        default=None, converter=_secret, validator=_text, metadata={"secret": True}
    )
    api_key_file: str | None = attrs.field(default=None, validator=_text)
    admin_tls_cert: str | None = attrs.field(default=None, validator=_text)
    admin_tls_key: str | None = attrs.field(default=None, validator=_text)
    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=tuple, validator=_origins)
    alert_webhook: SecretStr | None = attrs.field(
        default=None, converter=_secret, validator=[_text, _http_url], metadata={"secret": True}
    )
    otel: Literal["off", "on"] = attrs.field(default="off", validator=one_of(("off", "on")))
    require_origin: bool = attrs.field(default=False, validator=_flag)
    tls_cert: str | None = attrs.field(default=None, validator=_text)
    tls_key: str | None = attrs.field(default=None, validator=_text)
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=tuple, validator=_proxies)
    proxy_header: Way = attrs.field(default="x-forwarded-for", validator=one_of(WAYS))
    log_format: Literal["console", "json"] = attrs.field(
        default="console", validator=one_of(("console", "json"))
    )

    def __attrs_post_init__(self) -> None:
        if self.insecure == 1 and not is_loopback(self.host):
            raise InvalidConfig(
                f"insecure would let anyone who reaches host {self.host} read any user's events: "
                "give --insecure twice if that is meant"
            )
        for side in ("", "admin_"):
            if getattr(self, f"{side}tls_key") is not None and getattr(self, f"{side}tls_cert") is None:
                raise InvalidConfig(f"{side}tls_key is of no use without {side}tls_cert")
        if self.workers != 1 and not self.is_shared:
            raise InvalidConfig(
                f"workers need a store that they share, such as redis://localhost, not store {self.store}"
            )

    @property
    def is_shared(self) -> bool:
        """Whether several nodes may share the store."""
        return _is_url(self.store)

    @property
    def node(self) -> str:
        """What this node is called."""
        return self.node_name or re.sub(r"[^\w.:-]", "-", socket.gethostname())[:48]

    def open_store(self) -> Store | None:
        """The store that is meant, not opened yet; None where all is kept in memory, or where it `is_shared`."""
        kind, _, path = self.store.partition(":")
        return SqliteStore(path) if kind == "sqlite" else None

    def limits(self) -> Config:
        """The part that a hub takes."""
        return Config(**{field.name: getattr(self, field.name) for field in attrs.fields(Config)})


attrs.resolve_types(Settings)
FIELDS: Mapping[str, attrs.Attribute[Any]] = attrs.fields_dict(Settings)
_OPTIONS = deep_options(Settings)


@attrs.frozen
class Origin:
    """Where a value came from: ``kind`` (flag, environment, file, preset, default) and its name there."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


@attrs.frozen
class Loaded:
    """Settings, and the origin of each value by the field's name."""

    settings: Settings
    origins: Mapping[str, Origin]

    def shown(self, name: str) -> Any:
        """The value of field `name` in a form that may be shown: secrets and passwords masked."""
        value = getattr(self.settings, name)
        if FIELDS[name].metadata.get("secret"):
            return value and MASK
        return _without_password(value) if name == "store" else value


def load(flags: Mapping[str, Any], environ: Mapping[str, str], *, file: str | Path | None = None) -> Loaded:
    """The effective settings. Reads one file, if there is one to read.

    Args:
      flags: what was given on the command line, by field name: texts or ready values; absent where not given.
      environ: the process's environment.
      file: the TOML file; None takes the one that ``TRIO_WS_CONFIG`` names, if it names one.

    Raises:
      InvalidConfig: a source can't be read, or holds an unknown key or a wrong value; one line says which.
    """
    variables = {ENV_PREFIX + name.upper(): name for name in FIELDS}
    _refuse_unknown(
        (v for v in environ if v.startswith(ENV_PREFIX)),
        [*variables, CONFIG_VARIABLE, *CLIENT_VARIABLES],
        "environment variable",
    )
    file = file or environ.get(CONFIG_VARIABLE)
    sources: dict[str, dict[str, Any]] = {
        "default": {name: field.default for name, field in FIELDS.items()},
        "preset": {},
        "file": _read(Path(file)) if file else {},
        "environment": {name: environ[v] for v, name in variables.items() if v in environ},
        "flag": dict(flags),
    }
    preset = next((s["preset"] for s in reversed(sources.values()) if "preset" in s), None)
    sources["preset"] = PRESETS.get(preset, {}) if isinstance(preset, str) else {}

    loaders = [
        LoadedSettings(DictLoader(values)(Settings, _OPTIONS).settings, LoaderMeta(kind))
        for kind, values in sources.items()
    ]
    merged = merge_settings(_OPTIONS, loaders)
    names: dict[str, Callable[[str], str]] = {
        "default": lambda name: "",
        "preset": lambda name: str(preset),
        "file": lambda name: str(file),
        "environment": lambda name: ENV_PREFIX + name.upper(),
        "flag": flag,
    }
    origins = {n: Origin(kind := item.loader_meta.name, names[kind](n)) for n, item in merged.items()}
    try:
        values = {name: _parse(FIELDS[name], item.value) for name, item in merged.items()}
        return Loaded(Settings(**values), origins)
    except InvalidConfig as exc:
        raise InvalidConfig(f"{exc}{_blame(str(exc), origins)}") from None


def flag(name: str) -> str:
    """The command-line flag of field `name`."""
    return REPEATABLE.get(name) or "--" + name.replace("_", "-")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = TomlFormat(None)(file, Settings, _OPTIONS)
    except (TsError, OSError, UnicodeError) as exc:
        cause = exc.__cause__ or exc
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or "it can't be read"
        raise InvalidConfig(f"the configuration file {file}: {reason}") from None
    _refuse_unknown(values, list(FIELDS), "key", f" in {file}")
    return values


def _refuse_unknown(given: Iterable[str], known: list[str], what: str, where: str = "") -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidConfig(f"unknown {what} {name}{where}{hint}")


def _parse(field: attrs.Attribute[Any], value: Any) -> Any:
    """`value` as the field's type where it is a text that reads as one; the rest is the validator's."""
    is_list = get_origin(field.type) is tuple
    if isinstance(value, str) and is_list:
        try:
            value = json.loads(value)
        except ValueError:
            raise InvalidConfig(f"{field.name} must be a JSON list, not {value!r}") from None
    if is_list and not isinstance(value, list | tuple):
        raise InvalidConfig(f"{field.name} must be a list, not {value!r}")
    if field.name == "insecure" and (isinstance(value, bool) or value in ("true", "false")):
        value = int(value is True or value == "true")
    if field.type is bool and value in ("true", "false"):
        return value == "true"
    if field.type in (int, float, float | None):
        if value == "none" and field.default is None:
            return None
        number = int if field.type is int else float
        if isinstance(value, str) or (number is float and type(value) is int):
            try:
                return number(value)
            except (ValueError, OverflowError):
                return value
    return value


def _blame(message: str, origins: Mapping[str, Origin]) -> str:
    """Where the values of the fields that `message` names came from, as an addition to it."""
    named = [n for n in dict.fromkeys(re.findall(r"\w+", message)) if n in origins]
    told = [n for n in named if origins[n].kind != "default"]
    if len(named) == 1 and told:
        return f" (from {origins[told[0]]})"
    return f" ({', '.join(f'{n} from {origins[n]}' for n in told)})" if told else ""
