"""The webhook: posts each alert that begins or ends to a URL, a few times if need be."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
import httpx
import trio

from ..hub import Alert

logger = logging.getLogger(__name__)

TIMEOUT: Final = 5.0
"""Seconds that one post may take."""

DELAYS: Final = (1.0, 4.0, 16.0)
"""Seconds before each further try. What then has not been taken is let go, and logged."""


class Webhook:
    """Posts alerts; `open_hub(on_alert=…)` hands them over one after the other, so none waits for the hub.

    Args:
      url: where to. It is a secret: no line of the log has it.
      wall_clock: seconds since the Unix epoch.
      server: what this server is called in what is posted; None takes the name of the machine.
      transport: httpx's, for tests.
    """

    def __init__(
        self,
        url: str,
        wall_clock: Callable[[], float],
        *,
        server: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._wall_clock = wall_clock
        self._server = server or socket.gethostname()
        self._transport = transport

    async def post(self, alert: Alert) -> None:
        """Post one alert. Cancelled, it may have been taken or not. Raises nothing."""
        body = {**attrs.asdict(alert), "server": self._server, "at": self._wall_clock()}
        for delay in (*DELAYS, None):
            problem = await self._try(body)
            if problem is None:
                return
            logger.warning(
                "the alert webhook did not take an alert: %s", problem, extra={"alert": alert.name}
            )
            if delay is None:
                break
            await trio.sleep(delay)
        logger.error("an alert is let go: the webhook did not take it", extra={"alert": alert.name})

    async def _try(self, body: dict[str, Any]) -> str | None:
        """Post once; returns why it was not taken, in words without the URL."""
        try:
            with trio.fail_after(TIMEOUT):
                async with httpx.AsyncClient(transport=self._transport, timeout=TIMEOUT) as client:
                    response = await client.post(self._url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, trio.TooSlowError) as error:
            return type(error).__name__
        return None if response.is_success else f"status {response.status_code}"
