"""Who may call the admin API."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from trio_ws.admin.answers import answer

KEY = "correct-hörse"
CALLS = [
    ("POST", "/v1/users/ada/events"),
    ("POST", "/v1/events"),
    ("GET", "/v1/users/ada"),
    ("DELETE", "/v1/users/ada/sessions/x"),
    ("GET", "/v1/stats"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("GET", "/healthz/"),
    ("OPTIONS", "/v1/events"),
    ("GET", "/extra"),
]


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("a page")


async def _extra(request: Request):
    return answer({"extra": True})


ROUTES = {"pages": [Route("/", _page)], "extra_routes": [Route("/extra", _extra)]}


def bearer(key: str, scheme: str = "Bearer") -> dict[str, bytes]:
    return {"authorization": f"{scheme} {key}".encode()}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_all_calls_need_the_key(open_api, method: str, path: str) -> None:
    async with open_api(api_key=KEY, **ROUTES) as (hub, client):
        refused = await client.request(method, path, content=b'{"type":"note"}')
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert hub.statistics().events_accepted == 0
        passed = await client.request(method, path, content=b'{"type":"note"}', headers=bearer(KEY))
        assert passed.status_code != 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
async def test_health_and_pages_need_no_key(open_api, path: str) -> None:
    async with open_api(api_key=KEY, **ROUTES) as (_, client):
        assert (await client.get(path)).status_code == 200
        assert (await client.get(path, headers={"origin": "https://other.test"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("wrong"),
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
        bearer(KEY, "Basic"),
        {"authorization": KEY.encode()},
        {"authorization": b"Bearer"},
        {"authorization": b"\xff\xfe"},
        [("authorization", bearer(KEY)["authorization"]), ("authorization", b"Bearer wrong")],
    ],
)
async def test_all_wrong_credentials_are_answered_alike(open_api, headers) -> None:
    async with open_api(api_key=KEY) as (_, client):
        plain = await client.get("/v1/stats")
        response = await client.get("/v1/stats", headers=headers)
        assert response.status_code == 401
        assert response.content == plain.content


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_known_in_any_case(open_api, scheme: str) -> None:
    async with open_api(api_key=KEY) as (_, client):
        assert (await client.get("/v1/stats", headers=bearer(KEY, scheme))).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://admin.test", 200),
        ("http://ADMIN.test", 200),
        ("http://admin.test:81", 403),
        ("https://evil.test", 403),
        ("http://admin.test.evil.test", 403),
        ("http://evil.test/admin.test", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_without_a_key_foreign_pages_are_kept_out(open_api, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": origin}
    async with open_api() as (_, client):
        response = await client.get("/v1/stats", headers=headers)
        assert response.status_code == status
        if status == 403:
            assert response.json()["error"]["code"] == "foreign_origin"


async def test_with_the_key_the_origin_does_not_matter(open_api) -> None:
    async with open_api(api_key=KEY) as (_, client):
        headers = {**bearer(KEY), "origin": b"https://dashboard.test"}
        assert (await client.get("/v1/stats", headers=headers)).status_code == 200
