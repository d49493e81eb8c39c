"""What campaigns have found, each as the smallest scene that shows it."""

from __future__ import annotations

import trio

from tests.hub.peers import running, settled


async def test_what_becomes_the_oldest_by_an_ack_is_redelivered_in_time(autojump_clock: object) -> None:
    async with running() as world:
        peer = world.peer().connect()
        await world.hub.publish("ada", "agent_started")
        await trio.sleep(2.1)  # sent again after 0.5, 1 and 2 s; next after 5 s
        await world.hub.publish("ada", "agent_completed")
        await settled()
        await trio.sleep(0.1)
        peer.ack(1)
        await trio.sleep(0.65)
        assert peer.seqs.count(2) == 2
