"""The pages and static files of the admin listener: the browser client with its types, and the demo. All public."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

CLIENT: Final = {
    "/client.js": ("client.js", "text/javascript"),
    "/client.d.ts": ("client.d.ts", "application/typescript"),
}
"""Path to file and media type: what pages of any origin import."""

DEMO: Final = {
    "/demo": ("demo.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
}
"""The same of the demo, whose page alone uses it."""

# A page may run its own scripts only, and connect to any WebSocket: where that is, is configuration.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def client_files() -> list[BaseRoute]:
    """The browser client, for `create_app(pages=…)`. Files are read here, once.

    Raises:
      OSError: a file of the package is missing.
    """
    return _routes(CLIENT)


def demo_pages() -> list[BaseRoute]:
    """The demo's page and what belongs to it; as `client_files`. Until there is a dashboard, it is the front page."""
    return [Route("/", _to_demo), *_routes(DEMO)]


def _routes(served: dict[str, tuple[str, str]]) -> list[BaseRoute]:
    static = files(__package__) / "static"
    return [
        Route(path, _Static(path, static.joinpath(name).read_bytes(), media_type).answer)
        for path, (name, media_type) in served.items()
    ]


async def _to_demo(request: Request) -> Response:
    return RedirectResponse("/demo", 307, {"cache-control": "no-store"})


class _Static:
    """One file; an unchanged one is not sent again."""

    def __init__(self, path: str, content: bytes, media_type: str) -> None:
        self._content = content
        self._tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        self._headers = {
            "content-type": f"{media_type}; charset=utf-8",
            "cache-control": "no-cache",
            "etag": self._tag,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        if media_type == "text/html":
            self._headers["content-security-policy"] = POLICY
        if path in CLIENT:
            self._headers["access-control-allow-origin"] = "*"

    async def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it."""
        if self._tag in request.headers.get("if-none-match", ""):
            return Response(None, 304, self._headers)
        return Response(self._content, 200, self._headers)
