"""The flags of the commands that run a server: one for each field of `Settings`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import click

from ..config import PRESETS
from ..errors import InvalidConfig
from ..settings import CONFIG_VARIABLE, FIELDS, REPEATABLE, Loaded, flag, load
from .output import Failure

F = TypeVar("F", bound=Callable[..., Any])

HELP = {
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 takes a free one.",
    "admin_host": "Address of the admin API.",
    "admin_port": "Port of the admin API; 0 takes a free one.",
    "preset": f"Where limits start from: {', '.join(PRESETS)}.",
    "store": "Where events are kept: sqlite:PATH, memory, or the URL of a Redis that several nodes share.",
    "redis_prefix": "What the names of all keys in Redis begin with.",
    "redis_wait_replicas": "How many replicas must have a commit before it counts as done.",
    "node_name": "What this node is called in logs and figures; the name of the machine unless given.",
    "workers": "How many processes serve, over one Redis; auto for one each core.",
    "insecure": "Clients name their user, without a token; twice allows it on any address.",
    "jwt_secret": "Key that tokens are signed with; better given in the environment.",
    "jwt_public_key": "PEM file with the public key, or keys, that tokens are checked with.",
    "jwt_jwks": "URL of the issuer's set of public keys (JWKS).",
    "jwt_audience": "Audience that tokens must be for.",
    "jwt_issuer": "Issuer that tokens must be from.",
    "jwt_algorithms": "An algorithm that tokens may be signed with; repeatable. HS256, RS256, ES256 and EdDSA "
    "unless given, each for keys of its own kind.",
    "jwt_leeway": "Seconds by which the clocks of issuer and server may differ.",
    "api_key": "Key that the admin API asks for; better given in the environment.",
    "api_key_file": "File with keys that the admin API takes, one a line; it is read again when it changes.",
    "admin_tls_cert": "PEM file with the certificate of the admin API, as --tls-cert.",
    "admin_tls_key": "PEM file with that certificate's key, as --tls-key.",
    "allowed_origins": "An Origin that browsers may connect from; repeatable.",
    "otel": "on makes an OpenTelemetry span of each publish; needs the extra otel.",
    "require_origin": "Refuse clients that name no Origin: whoever is no browser.",
    "tls_cert": "PEM file with the certificate; it is read again when it changes, and on SIGHUP.",
    "tls_key": "PEM file with the certificate's key, where that is not in the same file.",
    "trusted_proxies": "A network of proxies whose word counts on where a client comes from, or unix; repeatable.",
    "proxy_header": "How those proxies tell it.",
    "log_format": "What log lines look like: console or json.",
    "max_connections_per_user": "Connections of one user.",
    "max_connections": "Connections in all.",
    "over_limit": "At a user's limit: replace the stalest connection, or reject the new one.",
    "session_ttl": "Seconds that a session waits for its client to come back.",
    "max_loop_lag": "Seconds that the event loop may lag behind before who comes is told to come later.",
    "hello_timeout": "Seconds from the accept to the client's hello.",
    "max_events_per_user": "Events held for one user.",
    "max_events": "Events held in all.",
    "max_bytes_per_user": "Bytes of events held for one user.",
    "max_bytes": "Bytes of events held in all.",
    "max_stored_events_per_user": "Events of one user that wait in the store where memory has no room; 0 for none.",
    "max_event_bytes": "Bytes of one event.",
    "event_ttl": "Seconds that an event is kept which is not critical.",
    "critical_ttl": "Seconds that a critical event is kept unconfirmed; none for ever.",
    "critical_types": "Types of event that are critical.",
    "durability": "Which events are on disk before their publishers are told: critical, all, none but critical.",
    "commit_interval": "Seconds that an event nobody waits for may wait for company on its way to the disk.",
    "cleanup_interval": "Seconds between two cleanups.",
    "retry_intervals": "Seconds after which an unconfirmed critical event is sent again.",
    "confirm_timeout": "Seconds after which a confirmation counts as late.",
    "batch_interval": "Seconds that events wait for company on a busy connection.",
    "serialize_timeout": "Seconds that one large payload may take to encode.",
    "write_timeout": "Seconds that a connection may take nothing.",
    "stall_timeout": "Seconds that events may wait for a client that takes none.",
    "ack_events": "Events after which a client acks at the latest.",
    "ack_delay": "Seconds after which a client acks at the latest.",
    "max_message_bytes": "Bytes of one message from a client.",
    "max_fragments": "Fragments of one message from a client.",
    "max_pending_messages": "Messages of a client that wait for the application.",
    "max_runs_per_user": "Runs of one user that are known, or open.",
    "max_runs": "Runs of all users that are known, or open.",
    "max_run_text": "Characters of a run's text that its snapshot keeps.",
    "heartbeat_active": "Seconds between two signs of life while events flow.",
    "heartbeat_idle": "Seconds between two signs of life otherwise.",
    "heartbeat_grace": "Seconds that a sign of life may be late.",
    "alert_webhook": "URL that alerts are posted to.",
    "alert_window": "Seconds that alerts look back.",
    "alert_samples": "Samples in that time below which nothing is alerted on; for a lost event one will do.",
    "alert_response_time": "Seconds that 95 % of critical events may take until they are processed.",
    "alert_recovery_time": "Seconds that 95 % of recoveries may take.",
    "alert_confirmation_rate": "Part of the confirmations that has to come in time, 0 to 1.",
    "drain_timeout": "Seconds that a shutdown may take.",
    "connect_rate": "Connections a second from one address.",
    "connect_burst": "Connections at once from one address.",
    "user_connect_rate": "Connections a second of one user.",
    "user_connect_burst": "Connections at once of one user.",
    "receive_rate": "What a connection may send a second: 1 a small frame, 8 any other, 1 more a KiB.",
    "receive_burst": "What a connection may send at once, counted likewise.",
    "message_rate": "Messages a second from one user to the application.",
    "message_burst": "Messages at once from one user to the application.",
    "publish_rate": "Events a second to one user over the admin API; none for no limit.",
    "publish_burst": "Events at once to one user over the admin API, where there is a limit.",
}


def server_options(function: F) -> F:
    """Gives a click command a flag for each setting, and ``--config``; `load_settings` reads them."""
    for name in reversed(HELP):
        function = _option(name)(function)
    config_file = click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help=f"TOML file with any of these as top-level keys. [{CONFIG_VARIABLE}]",
    )
    return config_file(function)


def _option(name: str) -> Callable[[F], F]:
    field = FIELDS[name]
    if name == "insecure":
        return click.option(flag(name), name, count=True, default=None, help=HELP[name])
    if field.type is bool:
        return click.option(flag(name), name, is_flag=True, default=None, help=HELP[name])
    if name in REPEATABLE:
        metavar = flag(name).rpartition("-")[2].upper()
        return click.option(flag(name), name, multiple=True, metavar=metavar, help=HELP[name])
    shown = "" if field.default is None else f" [default: {_text(field.default)}]"
    return click.option(flag(name), name, metavar=_metavar(field), help=HELP[name] + shown)


def _text(value: Any) -> str:
    """A default as it would be given on the command line."""
    if isinstance(value, tuple):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(field: attrs.Attribute[Any]) -> str:
    kind: Any = field.type
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "JSON"
    if field.metadata.get("seconds"):
        return "SECONDS"
    return "N" if kind in (int, float) else "TEXT"


def load_settings(given: dict[str, Any]) -> Loaded:
    """The effective settings of a command that was called with `given`; exits 2 where a value is wrong."""
    flags = {name: value for name, value in given.items() if name in FIELDS and value not in (None, ())}
    try:
        return load(flags, os.environ, file=given.get("config_file"))
    except InvalidConfig as exc:
        raise Failure(str(exc), 2) from None
