"""Spans: one a publish, from the call to what became of the event; and nothing at all while there are none."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from trio_ws.config import Config
from trio_ws.errors import InvalidEvent
from trio_ws.event import Draft
from trio_ws.otel import publish_spans

from .peers import running, settled


class Traced:
    """A tracer provider, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    @property
    def states(self) -> list[str]:
        return [span.attributes.get("trio_ws.event.state") for span in self.spans]


async def test_a_span_lasts_until_the_event_is_confirmed() -> None:
    traced = Traced()
    async with running() as world:
        with publish_spans(world.hub, traced.provider):
            peer = world.peer().connect()
            tracer = traced.provider.get_tracer("app")
            with tracer.start_as_current_span("run") as parent:
                receipt = await world.hub.publish("ada", "agent_started", {"secret": 1}, id="e1")
            await trio.sleep(0.2)
            assert [span.name for span in traced.spans] == ["run"]
            peer.ack(1)
            span = traced.spans[1]
            assert span.name == "trio_ws.publish"
            assert span.parent.span_id == parent.get_span_context().span_id
            assert span.attributes["messaging.message.id"] == "e1"
            assert span.attributes["trio_ws.event.seq"] == receipt.seq
            assert span.attributes["trio_ws.event.state"] in ("confirmed", "settled")
            assert span.status.status_code is StatusCode.UNSET
            assert "secret" not in span.to_json()
            assert "ada" not in span.to_json()
            peer.die()


async def test_all_ways_to_publish_make_one_span_each() -> None:
    traced = Traced()
    async with running() as world:
        hub = world.hub
        peers = [world.peer(user=user, acks=True).connect() for user in ("ada", "bob")]
        with publish_spans(hub, traced.provider):
            await hub.publish("ada", "note")
            hub.publish_nowait("ada", "note")
            await hub.publish_draft("ada", Draft(type="note"))
            hub.publish_draft_nowait("ada", Draft(type="note"))
            await hub.broadcast(["ada", "bob"], "note")
            async with hub.channel("ada") as channel:
                await channel.send(Draft(type="note"))
            await settled()
            await trio.sleep(1)
            assert len(traced.spans) == 7
        hub.publish_nowait("ada", "note")
        await settled()
        await trio.sleep(1)
        assert len(traced.spans) == 7
        for peer in peers:
            peer.die()


async def test_what_is_lost_or_refused_is_an_error() -> None:
    traced = Traced()
    async with running(max_events_per_user=2) as world:
        hub = world.hub
        with publish_spans(hub, traced.provider):
            hub.publish_nowait("ada", "note")
            hub.publish_nowait("ada", "agent_started")
            hub.publish_nowait("ada", "agent_started", ttl=1.5)
            assert traced.states == ["evicted"]
            assert traced.spans[0].status.status_code is StatusCode.ERROR
            with pytest.raises(trio.WouldBlock):
                hub.publish_nowait("ada", "agent_started")
            with pytest.raises(InvalidEvent):
                await hub.publish("ada", "")
            refused = traced.spans[1:]
            assert [span.attributes["error.type"] for span in refused] == ["WouldBlock", "InvalidEvent"]
            await trio.sleep(2)
            assert traced.spans[-1].attributes["trio_ws.event.state"] == "expired"
        assert traced.states[-1:] == ["held"]  # the end of the block ends what is open
        assert all(
            entry.waiters in (None, []) for entry in hub.engine.buffer.mailboxes["ada"].entries.values()
        )


async def test_a_merged_delta_shares_the_fate_of_the_one_it_went_into() -> None:
    traced = Traced()
    async with running(max_events_per_user=2) as world:
        with publish_spans(world.hub, traced.provider):
            for text in "abc":
                world.hub.publish_nowait("ada", "token", text, merge="append")
            world.peer(acks=True).connect().die()
        assert len(traced.spans) == 3


async def test_without_spans_nothing_is_wrapped() -> None:
    async with running() as world:
        with publish_spans(world.hub):
            assert "publish" in vars(world.hub)
        assert not {"publish", "publish_nowait", "broadcast"} & vars(world.hub).keys()
        assert isinstance(world.hub.config, Config)
