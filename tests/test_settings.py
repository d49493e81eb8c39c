"""Where settings come from, what beats what, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import trio_ws
from trio_ws.addresses import is_loopback
from trio_ws.config import Config
from trio_ws.errors import InvalidConfig
from trio_ws.settings import FIELDS, Settings, load


def refusal(
    flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None, **options: Any
) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(flags or {}, environ or {}, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trio-ws.toml"


def test_flag_beats_environment_beats_file_beats_preset_beats_default(file: Path) -> None:
    sources = {
        "file": "file",
        "environment": "environment TRIO_WS_MAX_CONNECTIONS",
        "flag": "flag --max-connections",
    }
    flags: dict[str, Any] = {}
    environ: dict[str, str] = {}

    def effective() -> tuple[int, str]:
        loaded = load(flags, environ, file=file if file.exists() else None)
        return loaded.settings.max_connections, str(loaded.origins["max_connections"])

    assert str(load({}, {}).origins["max_events"]) == "default"
    assert effective() == (100, "preset production")
    flags["preset"] = "development"
    assert effective() == (50, "preset development")
    file.write_text("max_connections = 60\n")
    assert effective() == (60, f"file {file}")
    environ["TRIO_WS_MAX_CONNECTIONS"] = "70"
    assert effective() == (70, sources["environment"])
    flags["max_connections"] = "80"
    assert effective() == (80, sources["flag"])


@pytest.mark.parametrize("where", ["flag", "environment", "file"])
def test_the_preset_may_come_from_anywhere(where: str, file: Path) -> None:
    file.write_text('preset = "development"\n' if where == "file" else "")
    loaded = load(
        {"preset": "development"} if where == "flag" else {},
        {"TRIO_WS_PRESET": "development"} if where == "environment" else {},
        file=file,
    )
    assert loaded.settings.max_connections == 50
    assert loaded.origins["preset"].kind == where


def test_the_environment_names_the_file_and_the_flag_beats_it(file: Path) -> None:
    file.write_text("port = 1\n")
    assert load({}, {"TRIO_WS_CONFIG": str(file)}).settings.port == 1
    assert load({}, {"TRIO_WS_CONFIG": "/nowhere"}, file=file).settings.port == 1


def test_defaults_are_the_missions() -> None:
    settings = load({}, {}).settings
    assert settings.limits() == Config()
    assert (settings.host, settings.port, settings.admin_host, settings.admin_port) == (
        "127.0.0.1",
        8765,
        "127.0.0.1",
        8766,
    )
    assert settings.preset == "production"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_events", "7000", 7000),
        ("session_ttl", "2.5", 2.5),
        ("session_ttl", "60", 60.0),
        ("critical_ttl", "none", None),
        ("critical_ttl", "60", 60.0),
        ("retry_intervals", "[1, 2.5]", (1, 2.5)),
        ("critical_types", '["a", "b"]', ("a", "b")),
        ("critical_types", "[]", ()),
        ("allowed_origins", '["https://a.example"]', ("https://a.example",)),
        ("over_limit", "reject", "reject"),
        ("log_format", "json", "json"),
        ("insecure", "1", 1),
        ("insecure", "true", 1),
        ("insecure", "false", 0),
        ("host", "::1", "::1"),
    ],
)
def test_texts_are_read_as_the_fields_have_it(name: str, text: str, value: object) -> None:
    loaded = load({}, {f"TRIO_WS_{name.upper()}": text})
    assert getattr(loaded.settings, name) == value
    assert type(getattr(loaded.settings, name)) is type(value)
    assert getattr(load({name: text}, {}).settings, name) == value


def test_toml_has_its_own_types(file: Path) -> None:
    file.write_text('retry_intervals = [1, 2]\ninsecure = true\nsession_ttl = 60\nhost = "localhost"\n')
    settings = load({}, {}, file=file).settings
    assert (settings.retry_intervals, settings.insecure, settings.host) == ((1, 2), 1, "localhost")
    assert type(settings.session_ttl) is float


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("max_events", "many", "max_events must be a number from 1, not 'many'"),
        ("max_events", "0", "max_events must be a number from 1, not 0"),
        ("max_events", "1.5", "max_events must be a number from 1, not '1.5'"),
        ("max_events", "", "max_events must be a number from 1, not ''"),
        ("session_ttl", "nan", "session_ttl must be a number from 0.001, not nan"),
        ("session_ttl", "none", "session_ttl must be a number from 0.001, not 'none'"),
        ("port", "65536", "port must be a whole number from 0 to 65535, not 65536"),
        ("port", "http", "port must be a whole number from 0 to 65535, not 'http'"),
        ("host", " ", "host must be a text that is not empty"),
        ("preset", "test", "preset must be one of development, staging, production, not 'test'"),
        ("log_format", "xml", "log_format must be one of console, json, not 'xml'"),
        ("insecure", "3", "insecure must be a whole number from 0 to 2, not 3"),
        ("retry_intervals", "1,2", "retry_intervals must be a JSON list, not '1,2'"),
        (
            "retry_intervals",
            "[2, 1]",
            "retry_intervals must be a list of rising times in seconds, not [2, 1]",
        ),
        ("critical_types", '"abc"', "critical_types must be a list, not 'abc'"),
        (
            "allowed_origins",
            '["a.example"]',
            "allowed_origins must be origins such as https://app.example.com",
        ),
        ("allowed_origins", '["https://a.example/x"]', "allowed_origins must be origins"),
        ("store", "file:x", "store must be memory, sqlite:PATH or redis://…"),
        ("store", "sqlite:", "store must be memory, sqlite:PATH or redis://…"),
        ("store", "redis:h", "store must be memory, sqlite:PATH or redis://…"),
        ("store", "redis://h:x", "store: a Redis URL has hosts as HOST or HOST:PORT, and number 1 is none"),
        ("store", "redis+what://h", "store: a Redis URL begins with one of redis://"),
        ("workers", "many", "workers must be a whole number from 0 to 256, not 'many'"),
        ("workers", "-1", "workers must be a whole number from 0 to 256, not -1"),
        ("node_name", "a b", "node_name must be 1 to 48 letters, digits and any of . : - _, not 'a b'"),
        ("redis_prefix", "", "redis_prefix must be a text that is not empty"),
        ("redis_wait_replicas", "-1", "redis_wait_replicas must be a whole number from 0 to 10, not -1"),
        ("api_key", "", "api_key must be a text that is not empty"),
    ],
)
def test_a_wrong_value_is_told_with_its_source(name: str, text: str, told: str) -> None:
    variable = f"TRIO_WS_{name.upper()}"
    message = refusal(environ={variable: text})
    assert message.startswith(told)
    assert message.endswith(f" (from environment {variable})")


def test_one_limit_may_be_lowered_alone() -> None:
    settings = load({"max_events": "50", "max_bytes_per_user": "65536"}, {}).settings
    assert settings.limits().max_events == 50


@pytest.mark.parametrize("value", ["true", "[1]", '"9"', "{a = 1}"])
def test_toml_of_the_wrong_type(file: Path, value: str) -> None:
    file.write_text(f"retry_intervals = {value}\n" if value != "[1]" else "max_events = [1]\n")
    assert str(file) in refusal(file=file)


def test_an_unknown_key_names_the_nearest(file: Path) -> None:
    file.write_text("max_event = 1\n")
    assert refusal(file=file) == f"unknown key max_event in {file}; did you mean max_events?"
    file.write_text("[serve]\nport = 1\n")
    assert refusal(file=file).startswith(f"unknown key serve in {file}")


def test_an_unknown_variable_names_the_nearest() -> None:
    message = refusal(environ={"TRIO_WS_MAX_EVENT": "1"})
    assert message == "unknown environment variable TRIO_WS_MAX_EVENT; did you mean TRIO_WS_MAX_EVENTS?"
    assert load({}, {"TRIO_WS_TOKEN": "of a client", "TRIO_WSX": "of another program"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"port = ", "Invalid value"),
        (b"\xff", "codec can't decode"),
        (b"port = 1\nport = 2", "Cannot overwrite"),
    ],
)
def test_a_file_that_is_no_toml(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    message = refusal(file=file)
    assert message.startswith(f"the configuration file {file}: ")
    assert told in message


def test_a_file_that_is_not_there(file: Path) -> None:
    assert refusal(file=file) == f"the configuration file {file}: No such file or directory"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_insecure_on_a_loopback_address(host: str) -> None:
    assert is_loopback(host)
    assert load({"insecure": 1, "host": host}, {}).settings.insecure == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "localhost.example.com"])
def test_insecure_elsewhere_must_be_said_twice(host: str) -> None:
    message = refusal({"insecure": 1}, {"TRIO_WS_HOST": host})
    assert message.startswith("insecure would let anyone")
    assert message.endswith("(insecure from flag --insecure, host from environment TRIO_WS_HOST)")
    assert load({"insecure": 2, "host": host}, {}).settings.insecure == 2


def test_secrets_are_in_nothing_that_is_shown() -> None:
    loaded = load({"api_key": "hunter2"}, {"TRIO_WS_JWT_SECRET": "hunter2"})
    assert loaded.settings.api_key == "hunter2"
    for text in (repr(loaded), str(loaded), repr(loaded.settings), repr(loaded.settings.api_key)):
        assert "hunter2" not in text
    assert loaded.shown("api_key") == loaded.shown("jwt_secret") == "********"
    assert load({}, {}).shown("api_key") is None
    loaded = load({"store": "rediss+sentinel://user:hunter2@host/name?sentinel_password=hunter2"}, {})
    assert "hunter2" not in repr(loaded)
    assert loaded.shown("store") == "rediss+sentinel://user:***@host/name?sentinel_password=***"
    for store in ("redis://user:hunter2@host:port", "redis://user:hunter2", "redis:/user:hunter2@host"):
        assert "hunter2" not in refusal({"store": store})


def test_a_setting_is_a_field_of_the_hub_or_the_process() -> None:
    assert set(attrs.fields_dict(Config)) < set(FIELDS)
    assert issubclass(Settings, Config)


@pytest.mark.parametrize("store", ["memory", "sqlite:x.db"])
def test_workers_need_a_store_that_they_share(store: str) -> None:
    message = refusal({"store": store}, {"TRIO_WS_WORKERS": "auto"})
    assert message == (
        f"workers need a store that they share, such as redis://localhost, not store {store} "
        "(workers from environment TRIO_WS_WORKERS, store from flag --store)"
    )


@pytest.mark.parametrize(("given", "workers"), [("auto", 0), ("0", 0), (3, 3)])
def test_how_many_workers(given: object, workers: int) -> None:
    settings = load({"store": "rediss+sentinel://a,b/name", "workers": given}, {}).settings
    assert settings.workers == workers
    assert settings.is_shared


def test_a_node_is_called_as_its_machine_unless_told() -> None:
    assert load({"node_name": "a.1"}, {}).settings.node == "a.1"
    assert 0 < len(load({}, {}).settings.node) <= 48


def test_a_redis_needs_its_extra_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("trio_ws.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(trio_ws, "redis", raising=False)
    monkeypatch.setitem(sys.modules, "hiredis", None)
    assert refusal({"store": "redis://h"}) == (
        "store: a Redis needs hiredis, which the redis extra brings: pip install 'trio-ws[server,redis]' "
        "(from flag --store)"
    )
    assert not load({}, {}).settings.is_shared
