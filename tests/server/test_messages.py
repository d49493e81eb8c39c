"""What a client says comes out once and in order, whichever way each message takes."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.config import Config
from trio_ws.server.ending import BinaryMessage, TransportClosed
from trio_ws.server.inflow import Inflow
from trio_ws.server.messages import Messages
from trio_ws.server.stream import GuardedStream
from trio_ws.server.tasks import Tasks

from .raw import TEXT, frame
from .test_lane import alone, conversations

CONFIG = Config(max_message_bytes=1 << 20, max_fragments=1000)


async def heard(chunks: list[bytes], delays: list[bool], opens_at: int, pause: bool) -> list[str | bytes]:
    """All messages, in the order in which they were dealt with.

    Args:
      delays: for each chunk, whether all that can happen by itself happens before the next comes.
      opens_at: the lane is opened before this chunk.
      pause: who receives deals with a message only when all that came behind it is there.
    """
    ours, theirs = trio.testing.memory_stream_pair()
    log: list[str | bytes] = []
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        guarded = GuardedStream(ours, tasks, inflow=Inflow(ours, tasks, None), write_timeout=5)
        messages = Messages(guarded, tasks, config=CONFIG, remote="test")

        async def receive() -> None:
            try:
                while True:
                    try:
                        message: str | bytes = await messages.receive()
                    except BinaryMessage:
                        message = b"binary"
                    if pause:
                        await trio.testing.wait_all_tasks_blocked()
                    log.append(message)
            except TransportClosed:
                pass

        messages.begin()
        async with trio.open_nursery() as receiving:
            receiving.start_soon(receive)
            for n, (chunk, delay) in enumerate(zip(chunks, delays, strict=True)):
                if n == opens_at:
                    # As a connection does it: between two messages, by the one who receives.
                    await trio.testing.wait_all_tasks_blocked(0.0005)
                    messages.open_lane(lambda payload: log.append(payload.decode()))
                await theirs.send_all(chunk)
                if delay:
                    await trio.testing.wait_all_tasks_blocked()
            await theirs.send_eof()
        guarded.retire()
        tasks.cancel()
    return log


@given(conversations(), st.data())
def test_once_and_in_order(conversation: tuple[list[bytes], list[bool]], data: st.DataObject) -> None:
    chunks = [chunk for chunk in conversation[0] if chunk]
    delays = data.draw(st.lists(st.booleans(), min_size=len(chunks), max_size=len(chunks)))
    opens_at = data.draw(st.integers(0, len(chunks)))
    expected = [
        message if isinstance(message, str) else b"binary" for message in alone(b"".join(chunks)).messages
    ]
    assert trio.run(heard, chunks, delays, opens_at, data.draw(st.booleans())) == expected


def test_small_messages_need_no_library() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            guarded = GuardedStream(ours, tasks, inflow=Inflow(ours, tasks, None), write_timeout=5)
            messages = Messages(guarded, tasks, config=CONFIG, remote="test")
            messages.begin()
            for n in range(3):
                await theirs.send_all(frame(TEXT, b"%d" % n))
                assert await messages.receive() == str(n)
            assert messages._library is None
            guarded.retire()
            tasks.cancel()

    trio.run(main)
