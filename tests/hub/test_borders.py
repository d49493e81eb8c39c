"""What publishers give is not always of the declared type: whole numbers for seconds, anything for a name."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_ws import InvalidEvent, Priority

from .peers import running, settled


async def test_seconds_may_be_whole_numbers() -> None:
    names = "confirm_timeout event_ttl critical_ttl batch_interval heartbeat_active heartbeat_idle heartbeat_grace"
    more = "stall_timeout serialize_timeout session_ttl cleanup_interval"
    seconds: dict[str, Any] = dict.fromkeys(f"{names} {more}".split(), 5)
    seconds["retry_intervals"] = (1, 2, 3)
    async with running(**seconds) as world:
        peer = world.peer().connect()
        whole: Any = 60
        receipt = await world.hub.publish("ada", "note", {"n": 1}, ttl=whole, confirm=True)
        await world.hub.broadcast(["ada", "bob"], "note", 2.5, ttl=whole, priority=Priority.CRITICAL)
        await world.hub.publish("ada", "note", 1, key="a", ttl=whole)
        await settled()
        await trio.sleep(6)
        peer.ack(3)
        assert (await receipt.confirmed(timeout=whole)).late
        await trio.sleep(100)


@pytest.mark.parametrize("field", ["user", "type", "id", "key", "merge", "priority", "ttl"])
@pytest.mark.parametrize("value", [7, 1.5, b"x", ["x"], {"x": 1}, object()])
async def test_a_field_of_another_type_is_invalid(field: str, value: Any) -> None:
    if field == "ttl" and isinstance(value, int | float):
        value = str(value)
    fields: dict[str, Any] = {"user": "ada", "type": "note", field: value}
    user, kind = fields.pop("user"), fields.pop("type")
    async with running() as world:
        for publish in (world.hub.publish, world.hub.publish_nowait):
            with pytest.raises(InvalidEvent) as caught:
                done = publish(user, kind, 1, **fields)
                await done
            assert caught.value.field == field
        if field != "user":
            with pytest.raises(InvalidEvent):
                await world.hub.broadcast([user], kind, 1, **fields)
