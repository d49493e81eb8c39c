"""Spans for OpenTelemetry: one for each publish, from the call until a client has processed the event, or it is gone.

::

    async with trio_ws.open_hub() as hub:
        with publish_spans(hub):
            ...

This needs the API only (the extra `otel`); where the spans go is for the SDK that the process configures. A hub without
it pays nothing: its methods are wrapped while the block runs. A span has no payload, and no user.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from .hub import Hub, Receipt

NAME: Final = "trio_ws.publish"
"""The name of every span."""

LOST: Final = frozenset(("evicted", "expired"))
"""What makes a span an error. That an event was superseded or merged is as it should be."""


@contextmanager
def publish_spans(hub: Hub, tracer_provider: TracerProvider | None = None) -> Iterator[None]:
    """While the block runs, each publish of `hub` makes a span; at its end those that are open end, as they stand.

    The span begins with the call, so it holds a wait for room, and is a child of the span that is current there. It
    ends when the event is confirmed or gone; of what is refused it ends at once, with the exception.

    Args:
      hub: whose publishes.
      tracer_provider: of the SDK; None takes the global one.
    """
    spans = _Spans(trace.get_tracer("trio_ws", tracer_provider=tracer_provider))
    plain = {name: getattr(hub, name) for name in ("publish", "publish_nowait", "broadcast")}
    hub.publish = spans.around(hub.publish)  # type: ignore[method-assign]
    hub.publish_nowait = spans.around_nowait(hub.publish_nowait)  # type: ignore[method-assign]
    hub.broadcast = spans.around_many(hub.broadcast)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name in plain:
            delattr(hub, name)
        spans.close()


class _Spans:
    """The spans that are open, and how they end."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._open: dict[_OpenSpan, None] = {}

    def around(self, publish: Callable[..., Awaitable[Receipt]]) -> Any:
        @functools.wraps(publish)
        async def traced(user: str, type: str, *args: Any, **options: Any) -> Receipt:
            span = self._begin(type)
            with _refusals(span):
                receipt = await publish(user, type, *args, **options)
            return self._follow(span, receipt)

        return traced

    def around_nowait(self, publish: Callable[..., Receipt]) -> Any:
        @functools.wraps(publish)
        def traced(user: str, type: str, *args: Any, **options: Any) -> Receipt:
            span = self._begin(type)
            with _refusals(span):
                receipt = publish(user, type, *args, **options)
            return self._follow(span, receipt)

        return traced

    def around_many(self, broadcast: Callable[..., Awaitable[list[Receipt]]]) -> Any:
        """A span for each user: they have begun together."""

        @functools.wraps(broadcast)
        async def traced(users: Any, type: str, *args: Any, **options: Any) -> list[Receipt]:
            began = time.time_ns()
            receipts = await broadcast(users, type, *args, **options)
            return [self._follow(self._begin(type, began), receipt) for receipt in receipts]

        return traced

    def _begin(self, type: str, at: int | None = None) -> Span:
        span = self._tracer.start_span(NAME, kind=SpanKind.PRODUCER, start_time=at)
        span.set_attributes({"messaging.system": "trio_ws", "messaging.operation.type": "send"})
        if isinstance(type, str):
            span.set_attribute("trio_ws.event.type", type)
        return span

    def _follow(self, span: Span, receipt: Receipt) -> Receipt:
        """Have `span` end with the event of `receipt`."""
        if not span.is_recording():
            span.end()
            return receipt
        span.set_attributes(
            {
                "messaging.message.id": receipt.id,
                "trio_ws.event.seq": receipt.seq,
                "trio_ws.event.epoch": receipt.epoch,
                "trio_ws.event.duplicate": receipt.duplicate,
            }
        )
        span.add_event("accepted")
        opened = _OpenSpan(span, receipt, self._open)
        self._open[opened] = None
        receipt.call_when_resolved(opened.end)
        return receipt

    def close(self) -> None:
        for opened in list(self._open):
            opened.receipt.forget(opened.end)
            opened.end()


class _OpenSpan:
    """A span whose event is neither confirmed nor gone yet."""

    __slots__ = ("_others", "_span", "receipt")

    def __init__(self, span: Span, receipt: Receipt, others: dict[_OpenSpan, None]) -> None:
        self.receipt = receipt
        self._span = span
        self._others = others

    def end(self) -> None:
        self._others.pop(self, None)
        state = self.receipt.fate
        self._span.set_attribute("trio_ws.event.state", state)
        if state in LOST:
            self._span.set_status(Status(StatusCode.ERROR, state))
        self._span.end()


@contextmanager
def _refusals(span: Span) -> Iterator[None]:
    """What the block raises ends the span."""
    try:
        yield
    except BaseException as error:
        # The kind of it only: a message may quote what the publisher gave.
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
        span.end()
        raise
