"""The pages and static files of the admin listener: the browser client, the dashboard, the demo. All public."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .answers import answer

CLIENT: Final = {
    "/client.js": ("client.js", "text/javascript"),
    "/client.d.ts": ("client.d.ts", "application/typescript"),
    "/agui.js": ("agui.js", "text/javascript"),
    "/agui.d.ts": ("agui.d.ts", "application/typescript"),
    "/runs.js": ("runs.js", "text/javascript"),
    "/runs.d.ts": ("runs.d.ts", "application/typescript"),
}
"""Path to file and media type: what pages of any origin import."""

DEMO: Final = {
    "/demo": ("demo.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/demo-story.js": ("demo-story.js", "text/javascript"),
    "/demo-view.js": ("demo-view.js", "text/javascript"),
}
"""The same of the demo, whose page alone uses it."""

_MODULES: Final = (
    "accounts alerts api bars chart dialogs dom events format history main nodes overview panels runs search store "
    "story stream theme user users verdict"
)

DASHBOARD: Final = {
    "/": ("dashboard/dashboard.html", "text/html"),
    "/dashboard/theme.css": ("dashboard/theme.css", "text/css"),
    "/dashboard/dashboard.css": ("dashboard/dashboard.css", "text/css"),
    "/vendor/uplot/uPlot.min.css": ("vendor/uplot/uPlot.min.css", "text/css"),
    "/vendor/uplot/uPlot.iife.min.js": ("vendor/uplot/uPlot.iife.min.js", "text/javascript"),
    **{f"/dashboard/{name}.js": (f"dashboard/{name}.js", "text/javascript") for name in _MODULES.split()},
}
"""The same of the dashboard."""

# A page may run its own scripts only. The demo's connects to any WebSocket: where that is, is configuration.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def client_files() -> list[BaseRoute]:
    """The browser client, for `create_app(pages=…)`. Files are read here, once.

    Raises:
      OSError: a file of the package is missing.
    """
    return _routes(CLIENT)


def demo_pages() -> list[BaseRoute]:
    """The demo's page and what belongs to it; as `client_files`."""
    return _routes(DEMO)


def dashboard_pages(*, key: bool = False, demo: bool = False, cluster: bool = False) -> list[BaseRoute]:
    """The front page and what belongs to it; as `client_files`.

    Args:
      key: calls need the API key: the page asks for it.
      demo: there is a demo page to link to.
      cluster: it is a node of a cluster: the page can show all of them.
    """
    about = {"key": key, "demo": demo, "cluster": cluster}

    async def tell(request: Request) -> Response:
        return answer(about)

    return [Route("/dashboard/about", tell), *_routes(DASHBOARD)]


def _routes(served: dict[str, tuple[str, str]]) -> list[BaseRoute]:
    static = files(__package__) / "static"
    return [
        Route(path, _Static(path, static.joinpath(name).read_bytes(), media_type).answer)
        for path, (name, media_type) in served.items()
    ]


class _Static:
    """One file, compressed for whoever takes it so; an unchanged one is not sent again."""

    def __init__(self, path: str, content: bytes, media_type: str) -> None:
        self._content = content
        self._compressed = gzip.compress(content, mtime=0)
        # Weak: it stands for the file, compressed or not.
        self._tag = f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'
        self._headers = {
            "content-type": f"{media_type}; charset=utf-8",
            "cache-control": "no-cache",
            "vary": "accept-encoding",
            "etag": self._tag,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        if media_type == "text/html":
            connect = "'self' ws: wss:" if path in DEMO else "'self'"
            self._headers["content-security-policy"] = POLICY.format(connect=connect)
        if path in CLIENT:
            self._headers["access-control-allow-origin"] = "*"

    async def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it."""
        if self._tag in request.headers.get("if-none-match", ""):
            return Response(None, 304, self._headers)
        if _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(self._compressed, 200, {**self._headers, "content-encoding": "gzip"})
        return Response(self._content, 200, self._headers)


def _takes_gzip(accepted: str) -> bool:
    codings = [coding.replace(" ", "").lower() for coding in accepted.split(",")]
    return any(
        coding == "gzip" or (coding.startswith("gzip;q=") and coding[7:] not in _NEVER) for coding in codings
    )


_NEVER: Final = {"0", "0.0", "0.00", "0.000"}
