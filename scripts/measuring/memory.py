"""How much memory of the process what a hub holds takes."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import trio_ws


async def measure(count: int = 100_000) -> None:
    """How much the process grows with each event that is held, by the payload's size, and with each user."""
    huge = 2**40
    config = trio_ws.Config(
        max_events=huge, max_events_per_user=huge, max_bytes=huge, max_bytes_per_user=huge
    )
    async with trio_ws.open_hub(config) as hub:

        def grown(name: str, users: int, size: int) -> float:
            for _ in range(1000):  # what is made once, is made
                hub.publish_nowait(f"{name} warm", "token", {"text": "x" * size})
            before = _resident()
            for n in range(count):
                hub.publish_nowait(f"{name} {n % users}", "token", {"text": "x" * size})
            return (_resident() - before) / count

        for size in (10, 300, 1000):
            print(f"{f'a payload of {size} bytes, held':40} {grown(str(size), 100, size):6.0f} bytes")
        print(f"{'a user with one such, of 10 bytes':40} {grown('user', count, 10):6.0f} bytes")


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
