"""What publishes over HTTP, as the backend of an application does, and asks for figures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import trio

from ..addresses import is_loopback
from .journal import Journal, Sent
from .plan import body

CONFIRM_WITHIN: Final = 30.0
"""Seconds that a call waits for confirmation: long enough for a client that is cut off meanwhile."""
TIMEOUT: Final = 60.0


class BackendFailed(Exception):
    """The server can't be reached, or does not answer as it should; the message says how."""


class Backend:
    """One server's API. Each call is a checkpoint; cancelling one leaves open whether it was done.

    All raise `BackendFailed`.
    """

    def __init__(self, client: httpx.AsyncClient, tag: str) -> None:
        self._client = client
        self._tag = tag

    async def publish(self, journal: Journal, sent: Sent, *, size: int = 0) -> float | None:
        """Publishes an event, and notes the answer.

        Args:
          size: make it so many characters longer.

        Returns:
          seconds from acceptance to confirmation, where the call waited for that and the server tells.
        """
        event = self._event(journal, sent, size)
        params = {"wait": "confirmed", "timeout": CONFIRM_WITHIN} if sent.waited else None
        answer = await self._call("POST", f"/v1/users/{journal.user}/events", json=event, params=params)
        told = _object(answer)
        if answer.status_code == 504:
            told = told.get("error", {})
        journal.answered(sent, answer.status_code, told.get("seq"), trio.current_time())
        after: float | None = told.get("confirmed_after")
        return after

    async def publish_all(self, events: Sequence[tuple[Journal, Sent]], *, size: int = 0) -> None:
        """Publishes a batch in one call, in order, and notes the answers.

        Args:
          size: make the first event so many characters longer.
        """
        lines = [
            {"user": journal.user, **self._event(journal, sent, 0 if number else size)}
            for number, (journal, sent) in enumerate(events)
        ]
        answer = await self._call(
            "POST", "/v1/events", content=b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        )
        answers = [json.loads(line) for line in answer.text.splitlines() if line.strip()]
        if answer.status_code != 200 or len(answers) != len(events):
            raise BackendFailed(f"{self._client.base_url} answered {len(answers)} of {len(events)} lines")
        now = trio.current_time()
        for (journal, sent), told in zip(events, answers, strict=True):
            status = told["error"].get("status", 500) if "error" in told else 202
            journal.answered(sent, status, told.get("seq"), now)

    async def stats(self) -> dict[str, Any]:
        """Every figure of the server."""
        return _object(await self._call("GET", "/v1/stats"))

    async def user(self, user: str) -> dict[str, Any]:
        """What the server knows of `user`; empty where it knows nothing."""
        answer = await self._call("GET", f"/v1/users/{user}")
        return _object(answer) if answer.is_success else {}

    async def ticket(self, user: str) -> str | None:
        """A token for `user`; None where the server issues none, since it believes who its clients say they are."""
        answer = await self._call("POST", "/v1/tickets", json={"user": user})
        if answer.status_code in (404, 405):
            return None
        if not answer.is_success:
            raise BackendFailed(f"{self._client.base_url} refuses a ticket: {_reason(answer)}")
        ticket: str = _object(answer)["ticket"]
        return ticket

    def _event(self, journal: Journal, sent: Sent, size: int) -> dict[str, Any]:
        event: dict[str, Any] = body(sent.type, sent.n)
        # An id of its own: a call that is repeated makes no second event.
        event["id"] = f"{self._tag}-{journal.user}-{sent.n}"
        if size:
            event["payload"] = {**event["payload"], "note": "x" * size}
        return event

    async def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, **options)
        except httpx.HTTPError as exc:
            raise BackendFailed(f"{self._client.base_url}: {exc or type(exc).__name__}") from None
        if answer.status_code == 401:
            raise BackendFailed(f"{self._client.base_url} asks for a key: --api-key")
        return answer


@asynccontextmanager
async def open_backend(url: str, tag: str, api_key: str | None = None) -> AsyncIterator[Backend]:
    """The API at `url`; `tag` makes the ids of this run its own. Its connections are closed at the end of the block."""
    async with httpx.AsyncClient(
        base_url=url,
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
        headers={b"authorization": b"Bearer " + api_key.encode()} if api_key else {},
        trust_env=not is_loopback(httpx.URL(url).host),
    ) as client:
        yield Backend(client, tag)


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BackendFailed(f"{answer.url.host} answered {answer.status_code}, and not as a trio-ws server")
    return told


def _reason(answer: httpx.Response) -> str:
    error = _object(answer).get("error")
    return str(error.get("message")) if isinstance(error, dict) else f"HTTP {answer.status_code}"
