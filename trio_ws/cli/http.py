"""The admin API of a server, as the commands call it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import click
import httpx

from ..addresses import cause_of, is_loopback, netloc, reachable
from ..settings import ENV_PREFIX, FIELDS
from .arguments import Text
from .output import Failure

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT = 10.0
"""Seconds that one call may take, beyond what it asks the server to wait."""

_TEMPORARY = {429, 500, 502, 503}


class Unreachable(Exception):
    """No answer: the server is away, or went away in the middle. What was asked may have been done.

    Attributes:
      refused: nobody listens there, so that nothing was done.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@attrs.frozen
class Answer:
    """The server's answer to one call, or to one line of a batch.

    Attributes:
      body: the JSON object that it sent.
      status: the HTTP status; None for a line of a batch.
      retry_after: seconds after which to ask again, where the server said so.
    """

    body: dict[str, Any]
    status: int | None = None
    retry_after: float | None = None

    @property
    def error(self) -> dict[str, Any] | None:
        """What the server refused it with; None where it did not."""
        error = self.body.get("error")
        if isinstance(error, dict):
            return error
        if self.status is not None and self.status >= 400:
            return {"code": str(self.status), "message": f"HTTP {self.status}"}
        return None

    @property
    def temporary(self) -> bool:
        """Whether the same call may well succeed later."""
        error = self.error
        if error is None:
            return False
        status = self.status or error.get("status")
        return status in _TEMPORARY or "retry_after" in error

    @property
    def reason(self) -> str:
        """The refusal, for a person."""
        error = self.error or {}
        return f"{error.get('message') or 'no reason given'} ({error.get('code')})"


class Admin:
    """Calls of the admin API. Each is a checkpoint; cancelling one leaves open whether it was done."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        """The address of the API."""
        return str(self._client.base_url).rstrip("/")

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        wait: float = 0,
    ) -> Answer:
        """One call with a JSON body; `wait` is for how long it asks the server to wait. Raises `Unreachable`."""
        response = await self._request(method, path, params=params, json=body, timeout=TIMEOUT + wait)
        answer = _answer(response)
        if not answer.body and response.is_success:
            raise Unreachable(f"{self.url} does not answer as a trio-ws server")
        return answer

    async def publish(self, events: Sequence[Mapping[str, Any]], path: str = "/v1/events") -> list[Answer]:
        """A batch, in one call; the answers stand in the order of `events`. Raises `Unreachable`."""
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        response = await self._request(
            "POST",
            path,
            content=lines,
            headers={"content-type": "application/x-ndjson"},
            timeout=TIMEOUT,
        )
        if response.status_code != 200:
            return [_answer(response)] * len(events)
        try:
            answers = [
                _line_answer(json.loads(line)) for line in response.content.split(b"\n") if line.strip()
            ]
        except ValueError:
            raise Unreachable(f"{self.url} does not answer as a trio-ws server") from None
        if len(answers) != len(events):
            raise Unreachable(f"{self.url} answered {len(answers)} of {len(events)} lines")
        return answers

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **options)
        except httpx.ConnectError as exc:
            raise Unreachable(f"no server answers at {self.url}: {cause_of(exc)}", refused=True) from None
        except httpx.TimeoutException:
            raise Unreachable(f"{self.url} does not answer in time") from None
        except httpx.TransportError as exc:
            raise Unreachable(f"the connection to {self.url} broke: {cause_of(exc)}") from None


@asynccontextmanager
async def open_admin(url: str, api_key: str | None) -> AsyncIterator[Admin]:
    """The admin API at `url`. Its connections are closed at the end of the block."""
    host = httpx.URL(url).host
    async with httpx.AsyncClient(
        base_url=url,
        # As bytes: httpx takes a text to be ASCII.
        headers={b"authorization": b"Bearer " + api_key.encode()} if api_key else {},
        # A proxy from the environment is for the world outside, not for this machine.
        mounts={f"all://{netloc(host, '')[:-1]}": None} if is_loopback(host) else None,
    ) as client:
        yield Admin(client)


def admin_options(function: F) -> F:
    """Gives a click command ``--url`` and ``--api-key`` of the admin API."""
    key = click.option(
        "--api-key",
        envvar=f"{ENV_PREFIX}API_KEY",
        type=Text(),
        metavar="KEY",
        help=f"Key that the admin API asks for. [{ENV_PREFIX}API_KEY]",
    )
    url = click.option(
        "--url",
        metavar="URL",
        callback=_admin_url,
        help="Address of the admin API. [default: http://, TRIO_WS_ADMIN_HOST:TRIO_WS_ADMIN_PORT]",
    )
    return url(key(function))


def user_path(user: str) -> str:
    """The path of `user` in the API."""
    return f"/v1/users/{quote(user, safe='')}"


def default_address(prefix: str) -> str:
    """``HOST:PORT`` of a listener of a server on this machine: what the variables say that it reads, or its defaults.

    Args:
      prefix: what the names of the settings begin with: ``admin_``, or nothing.
    """
    host, port = (
        str(os.environ.get(ENV_PREFIX + name.upper()) or FIELDS[name].default)
        for name in (f"{prefix}host", f"{prefix}port")
    )
    return netloc(reachable(host), port)


def check_url(url: str, *schemes: str, example: str) -> str:
    """`url`, if it is one of those schemes and names a host; else exits 2, with `example` for a better one."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise Failure(f"--url {url!r}: {exc}", 2) from None
    if parsed.scheme not in schemes or not parsed.host:
        raise Failure(f"--url must be such as {example}, not {url!r}", 2)
    return url


def _admin_url(_: click.Context, __: click.Parameter, value: str | None) -> str:
    url = value or f"http://{default_address('admin_')}"
    return check_url(url, "http", "https", example="http://127.0.0.1:8766")


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = None
    try:
        retry_after = max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        retry_after = None
    return Answer(body if isinstance(body, dict) else {}, response.status_code, retry_after)


def _line_answer(body: Any) -> Answer:
    if not isinstance(body, dict):
        raise ValueError("not an object")
    error = body.get("error")
    after = error.get("retry_after") if isinstance(error, dict) else None
    return Answer(body, retry_after=float(after) if isinstance(after, int | float) else None)
