"""Where steps meet httpx: the one module that knows it, for those who block and those who await."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import httpx

from ..addresses import is_loopback
from .calls import Answer, Call, Steps
from .errors import Unreachable

T = TypeVar("T")


class _Requests:
    """Turns calls into the arguments of a request.

    Args:
      url: the address of the admin API.
      api_key: the key that it asks for.
      timeout: seconds for an answer, beyond what the server is asked to wait.

    Raises:
      ValueError: `url` is none that can be called.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise ValueError(f"{url!r} is no URL: {exc}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"the URL must be such as http://127.0.0.1:8766, not {url!r}")
        self.url = url.rstrip("/")
        # A proxy from the environment is for the world outside, not for this machine.
        self.trust_env = not is_loopback(parsed.host)
        # As bytes: httpx takes a text to be ASCII.
        self._key = {b"authorization": b"Bearer " + api_key.encode()} if api_key else {}
        self._timeout = timeout

    def of(self, call: Call) -> dict[str, Any]:
        """The request that `call` is."""
        return {
            "method": call.method,
            "url": self.url + call.path,
            "content": call.body,
            "params": dict(call.params) or None,
            "headers": {**self._key, b"content-type": call.media_type.encode()},
            "timeout": self._timeout + call.wait,
        }

    def failure(self, exc: httpx.RequestError) -> Unreachable:
        """That there was no answer."""
        return Unreachable(f"no answer from {self.url}: {exc or type(exc).__name__}")


class Caller:
    """Makes calls, and blocks meanwhile; any thread may.

    Args:
      client: what sends the requests, and is closed by whoever made it; None makes one.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float, client: httpx.Client | None) -> None:
        self._requests = _Requests(url, api_key, timeout)
        self._client = client or httpx.Client(trust_env=self._requests.trust_env)
        self._is_ours = client is None

    def close(self) -> None:
        """Close the connections."""
        if self._is_ours:
            self._client.close()

    def drive(self, steps: Steps[T], sleep: Callable[[float], object]) -> T:
        """Does what `steps` ask for, to their end."""
        reply: Answer | Unreachable | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = self._make(step) if isinstance(step, Call) else None
            if not isinstance(step, Call):
                sleep(step.seconds)

    def _make(self, call: Call) -> Answer | Unreachable:
        try:
            return _answer(self._client.request(**self._requests.of(call)))
        except httpx.RequestError as exc:
            return self._requests.failure(exc)


class AsyncCaller:
    """Makes calls under asyncio or Trio. Arguments as `Caller`'s."""

    def __init__(
        self, url: str, api_key: str | None, timeout: float, client: httpx.AsyncClient | None
    ) -> None:
        self._requests = _Requests(url, api_key, timeout)
        self._client = client or httpx.AsyncClient(trust_env=self._requests.trust_env)
        self._is_ours = client is None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._is_ours:
            await self._client.aclose()

    async def drive(self, steps: Steps[T]) -> T:
        """Does what `steps` ask for, to their end. Cancelled, the call in flight may have been done."""
        reply: Answer | Unreachable | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            reply = await self._make(step) if isinstance(step, Call) else None
            if not isinstance(step, Call):
                await anyio.sleep(step.seconds)

    async def _make(self, call: Call) -> Answer | Unreachable:
        try:
            return _answer(await self._client.request(**self._requests.of(call)))
        except httpx.RequestError as exc:
            return self._requests.failure(exc)


def _answer(response: httpx.Response) -> Answer:
    try:
        retry_after = max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        retry_after = None
    return Answer(response.status_code, response.content, retry_after)
