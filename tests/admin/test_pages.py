"""The pages and static files of the admin listener."""

from __future__ import annotations

from importlib.resources import files

import pytest

from trio_ws.admin.pages import CLIENT, DASHBOARD, DEMO, client_files, dashboard_pages, demo_pages

from .conftest import OpenApi

ALL = CLIENT | DASHBOARD | DEMO
STATIC = files("trio_ws.admin").joinpath("static")


def every_page():
    return [*client_files(), *dashboard_pages(), *demo_pages()]


@pytest.mark.parametrize("path", ALL)
async def test_files_are_served_without_a_key(open_api: OpenApi, path: str) -> None:
    async with open_api(api_key="secret", pages=every_page()) as (_, client):
        answer = await client.get(path)
        name, media_type = ALL[path]
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == files("trio_ws.admin").joinpath("static", name).read_bytes()
        assert ("content-security-policy" in answer.headers) == (media_type == "text/html")
        again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_pages_of_other_origins_may_import_the_client_and_nothing_else(open_api: OpenApi) -> None:
    async with open_api(pages=every_page()) as (_, client):
        shared = {path for path in ALL if "access-control-allow-origin" in (await client.get(path)).headers}
    modules = ("agui", "client", "runs")
    assert shared == {f"/{module}{end}" for module in modules for end in (".js", ".d.ts")}


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZip;q=0.5", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
async def test_files_are_compressed_for_who_takes_them_so(
    open_api: OpenApi, accepted: str, compressed: bool
) -> None:
    async with open_api(pages=every_page()) as (_, client):
        answer = await client.get("/", headers={"accept-encoding": accepted})
        assert (answer.headers.get("content-encoding") == "gzip") == compressed
        assert answer.headers["vary"] == "accept-encoding"
        assert answer.content == STATIC.joinpath("dashboard", "dashboard.html").read_bytes()


async def test_only_the_demo_connects_elsewhere(open_api: OpenApi) -> None:
    async with open_api(pages=every_page()) as (_, client):
        policies = {
            path: (await client.get(path)).headers["content-security-policy"] for path in ("/", "/demo")
        }
        assert "connect-src 'self';" in policies["/"]
        assert "connect-src 'self' ws: wss:;" in policies["/demo"]
        assert not [policy for policy in policies.values() if "unsafe" in policy]


async def test_the_dashboard_is_told_what_there_is_before_it_has_the_key(open_api: OpenApi) -> None:
    async with open_api(api_key="k", pages=dashboard_pages(key=True, demo=True)) as (_, client):
        assert (await client.get("/dashboard/about")).json() == {"key": True, "demo": True, "cluster": False}


def test_every_file_of_the_dashboard_is_served_and_asked_for_at_once() -> None:
    served = {name for name, _ in DASHBOARD.values()}
    there = {f"dashboard/{file.name}" for file in STATIC.joinpath("dashboard").iterdir()}
    assert {name for name in served if name.startswith("dashboard/")} == there
    page = STATIC.joinpath("dashboard", "dashboard.html").read_text()
    assert not [path for path in DASHBOARD if path != "/" and f'"{path}"' not in page]
