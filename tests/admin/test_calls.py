"""Figures, users, sessions, health, the description; and one shape for all errors."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from trio.testing import MockClock

from trio_ws.admin import create_app
from trio_ws.core.closing import CloseCode
from trio_ws.core.pool import Ask, Refused
from trio_ws.core.revocations import Revocations
from trio_ws.hub import Attachment, Identity


class Link:
    """A connection that takes everything and remembers how it was closed."""

    def __init__(self) -> None:
        self.closed: tuple[int, str] | None = None

    def send(self, frames: list[bytes]) -> bool:
        return True

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        self.closed = (code.code, reason)

    def expect_by(self, deadline: float) -> None:
        pass

    def authenticate(self, token: str) -> None:
        pass


async def test_stats_are_the_hubs(open_api) -> None:
    async with open_api() as (hub, client):
        hub.publish_nowait("ada", "note")
        figures = (await client.get("/v1/stats")).json()
        assert figures["delivery"]["events_accepted"] == 1
        assert figures.keys() == hub.stats().keys()


async def test_a_user_is_described_once_known(open_api) -> None:
    async with open_api() as (hub, client):
        response = await client.get("/v1/users/ada")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_user")
        hub.publish_nowait("ada", "agent_started")
        found = (await client.get("/v1/users/ada")).json()
        assert found == hub.describe("ada")
        assert found["buffer"]["critical_unconfirmed"] == 1


async def test_health_tells_of_a_drain(open_api) -> None:
    async with open_api() as (hub, client):
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert ready.headers["cache-control"] == "no-store"
        await hub.drain()
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
        alive = await client.get("/healthz")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        assert (await client.get("/v1/stats")).json()["draining"] is True


async def test_a_session_is_ended_and_told(open_api) -> None:
    async with open_api() as (hub, client):
        link = Link()
        attachment = hub.attach(Identity("ada"), Ask(), link)
        assert isinstance(attachment, Attachment)
        url = f"/v1/users/ada/sessions/{attachment.session.id}"
        response = await client.delete(url)
        assert (response.status_code, response.content) == (204, b"")
        assert link.closed is not None
        assert link.closed[0] == 4403
        assert attachment.fenced
        assert hub.describe("ada")["sessions"] == []
        assert (await client.delete(url)).status_code == 404
        hub.publish_nowait("ada", "note")  # and nothing is sent to it any more


async def test_a_parked_session_is_ended_too(open_api) -> None:
    async with open_api() as (hub, client):
        attachment = hub.attach(Identity("ada"), Ask(), Link())
        attachment.detach()
        assert hub.engine.pool.parked == 1
        response = await client.delete(f"/v1/users/ada/sessions/{attachment.session.id}")
        assert response.status_code == 204
        assert hub.engine.pool.parked == 0


async def test_a_session_of_another_user_is_not_ended(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (hub, client):
        attachment = hub.attach(Identity("ada"), Ask(), Link())
        hub.publish_nowait("eve", "note")
        for user in ("eve", "nobody"):
            response = await client.delete(f"/v1/users/{user}/sessions/{attachment.session.id}")
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_session")
        assert not attachment.fenced


async def test_all_sessions_of_a_user_are_ended(open_api) -> None:
    async with open_api() as (hub, client):
        links = [Link(), Link()]
        for link in links:
            hub.attach(Identity("ada"), Ask(), link)
        other = hub.attach(Identity("bob"), Ask(), Link())
        response = await client.delete("/v1/users/ada/sessions")
        assert (response.status_code, response.json()) == (200, {"ended": 2})
        assert [link.closed and link.closed[0] for link in links] == [4403, 4403]
        assert not other.fenced
        assert (await client.delete("/v1/users/ada/sessions")).json() == {"ended": 0}
        assert isinstance(hub.attach(Identity("ada"), Ask(), Link()), Attachment)


async def test_a_revoked_user_needs_newer_credentials(open_api) -> None:
    async with open_api() as (hub, client):
        now = hub.engine.wall_clock()
        hub.attach(Identity("ada", issued=now - 5), Ask(), Link())
        response = await client.delete("/v1/users/ada/sessions?revoke=3600")
        assert response.json() == {"ended": 1}
        for old in (Identity("ada", issued=now - 5), Identity("ada")):
            refused = hub.attach(old, Ask(), Link())
            assert isinstance(refused, Refused)
            assert refused.code.code == 4401
        later = Identity("ada", issued=hub.engine.wall_clock() + 1)
        assert isinstance(hub.attach(later, Ask(), Link()), Attachment)
        assert isinstance(hub.attach(Identity("bob"), Ask(), Link()), Attachment)


async def test_there_is_an_end_to_how_many_are_revoked(open_api) -> None:
    async with open_api() as (hub, client):
        hub.engine.revocations = Revocations(limit=1)
        await client.delete("/v1/users/ada/sessions?revoke=3600")
        attachment = hub.attach(Identity("bob"), Ask(), Link())
        response = await client.delete("/v1/users/bob/sessions?revoke=3600")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_revoked")
        assert not attachment.fenced


@pytest.mark.parametrize("query", ["revoke=0", "revoke=-1", "revoke=nan", "revoke=", "revoke=1e9", "other=1"])
async def test_for_how_long_is_a_number(open_api, query: str) -> None:
    async with open_api() as (hub, client):
        response = await client.delete(f"/v1/users/ada/sessions?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid")
        assert not len(hub.engine.revocations)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nowhere", 404, "not_found", None),
        ("GET", "/v1/users/", 404, "not_found", None),
        ("GET", "/v1/users/a/b", 404, "not_found", None),
        ("GET", "/v1/stats/", 404, "not_found", None),
        ("GET", "//v1/stats", 404, "not_found", None),
        ("PUT", "/v1/users/ada/events", 405, "method_not_allowed", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/users/ada/events/e1", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("PUT", "/v1/events", 405, "method_not_allowed", {"POST"}),
        ("DELETE", "/v1/users/ada", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("POST", "/healthz", 405, "method_not_allowed", {"GET", "HEAD"}),
        ("BREW", "/v1/stats", 405, "method_not_allowed", {"GET", "HEAD"}),
    ],
)
async def test_what_there_is_not_to_call(
    open_api, method: str, path: str, status: int, code: str, allow: set[str] | None
) -> None:
    async with open_api() as (_, client):
        response = await client.request(method, f"http://admin.test{path}")
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        allowed = response.headers.get("allow")
        assert (allowed and set(allowed.split(", "))) == allow


async def test_a_target_may_be_a_whole_url(open_api) -> None:
    async with open_api() as (_, client):
        app = client._transport.app
        for target, status in (
            (b"http://admin.test/healthz", 200),
            (b"HTTPS://admin.test:1/healthz", 200),
            (b"http://admin.test", 404),
            (b"http://admin.test//healthz", 404),
            (b"http://admin.test/v1/users/nobody", 404),
            (b"http://admin.test/v1/stats", 200),
        ):
            statuses = []

            async def send(message: Any, statuses: list[int] = statuses) -> None:
                if "status" in message:
                    statuses.append(message["status"])

            async def receive() -> Any:
                raise AssertionError

            scope = {"type": "http", "method": "GET", "raw_path": target, "headers": [], "query_string": b""}
            await app(scope, receive, send)
            assert statuses == [status], target


async def test_a_bug_is_logged_and_not_told(open_api, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Response:
        raise RuntimeError("inner secret")

    async with open_api(extra_routes=[Route("/fail", fail)]) as (_, client):
        with caplog.at_level(logging.ERROR):
            response = await client.get("/fail")
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert "secret" not in response.text
        assert [record.getMessage() for record in caplog.records] == ["a call of the admin API failed"]
        assert "inner secret" in caplog.text
        assert (await client.get("/healthz")).status_code == 200


async def test_a_bug_in_one_line_is_that_lines(open_api, monkeypatch, caplog) -> None:
    async with open_api() as (hub, client):
        publish = hub.publish_nowait

        def fail_for_bob(user: str, *args: Any, **options: Any) -> Any:
            if user == "bob":
                raise RuntimeError("inner secret")
            return publish(user, *args, **options)

        monkeypatch.setattr(hub, "publish_nowait", fail_for_bob)
        content = b'{"user":"bob","type":"t"}\n{"user":"ada","type":"t"}'
        first, second = (await client.post("/v1/events", content=content)).text.splitlines()
        assert "internal_error" in first
        assert "secret" not in first
        assert '"seq":1' in second
        assert "inner secret" in caplog.text


async def test_websockets_are_turned_away(open_api) -> None:
    async with open_api() as (hub, _):
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await create_app(hub)({"type": "websocket", "path": "/", "headers": []}, receive, send)
        assert [message["type"] for message in sent] == ["websocket.close"]
        await create_app(hub)({"type": "lifespan"}, receive, send)


async def test_the_description_names_every_call(open_api) -> None:
    async with open_api() as (_, client):
        response = await client.get("/openapi.json")
        described = response.json()
        assert described["openapi"].startswith("3.1")
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                concrete = path.replace("{user}", "nobody").replace("{session}", "none").replace("{id}", "e1")
                answered = await client.request(method, concrete, content=b"")
                assert str(answered.status_code) in operation["responses"], (method, path, answered.text)

        def refs(value: Any):
            if isinstance(value, dict):
                if "$ref" in value:
                    yield value["$ref"]
                value = list(value.values())
            if isinstance(value, list):
                for inner in value:
                    yield from refs(inner)

        names = {ref.removeprefix("#/components/schemas/") for ref in refs(described)}
        assert names <= described["components"]["schemas"].keys()
        assert {"EventBody", "Error", "Accepted"} <= names


async def test_the_description_is_of_this_very_server(open_api) -> None:
    async with open_api() as (_, client):
        described = (await client.get("/openapi.json")).json()
        assert "security" not in described
        assert "/v1/tickets" not in described["paths"]
        assert described["paths"]["/v1/stats"]["get"]["responses"].keys() == {"200", "403", "422"}
    async with open_api(api_key="k", issue_ticket=lambda user, ttl: ("t", 1.0)) as (_, client):
        described = (await client.get("/openapi.json", headers={"authorization": "Bearer k"})).json()
        assert described["security"] == [{"key": []}]
        assert "/v1/tickets" in described["paths"]
        assert described["paths"]["/v1/stats"]["get"]["responses"].keys() == {"200", "401", "422", "429"}
        assert described["paths"]["/healthz"]["get"]["security"] == []


async def test_nothing_is_left_running(open_api) -> None:
    async with open_api() as (_, client):
        await client.get("/healthz")
        before = trio.lowlevel.current_statistics().tasks_living
        await client.post("/v1/events", content=b'{"user":"ada","type":"t"}')
        await client.post("/v1/users/ada/events", json={"type": "t"})
        assert trio.lowlevel.current_statistics().tasks_living == before
