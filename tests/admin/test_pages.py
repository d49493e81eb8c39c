"""The pages and static files of the admin listener."""

from __future__ import annotations

from importlib.resources import files

import pytest

from trio_ws.admin.pages import CLIENT, DEMO, client_files, demo_pages

from .conftest import OpenApi


@pytest.mark.parametrize("path", CLIENT | DEMO)
async def test_files_are_served_without_a_key(open_api: OpenApi, path: str) -> None:
    async with open_api(api_key="secret", pages=[*client_files(), *demo_pages()]) as (_, client):
        answer = await client.get(path)
        name, media_type = (CLIENT | DEMO)[path]
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == files("trio_ws.admin").joinpath("static", name).read_bytes()
        assert ("content-security-policy" in answer.headers) == (media_type == "text/html")
        again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_pages_of_other_origins_may_import_the_client_and_nothing_else(open_api: OpenApi) -> None:
    async with open_api(pages=[*client_files(), *demo_pages()]) as (_, client):
        shared = {
            path
            for path in CLIENT | DEMO
            if "access-control-allow-origin" in (await client.get(path)).headers
        }
    assert shared == {"/client.js", "/client.d.ts"}


async def test_the_front_page_leads_to_the_demo(open_api: OpenApi) -> None:
    async with open_api(pages=[*client_files(), *demo_pages()]) as (_, client):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, "/demo")
