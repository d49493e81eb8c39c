"""Decoding where there is no memory left: MemoryError, not the death of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

DECODES = """
import json, resource
from trio_ws.core import payload, wire

def fill(decode, data):
    kept = []
    try:
        while True:
            kept.append(decode(data))
    except MemoryError:
        return len(kept)

texts = [json.dumps("x" * size).encode() for size in (100, 10_000, 200_000)] + [json.dumps(["yy"] * 50_000).encode()]
message = json.dumps({"t": "message", "id": "m", "type": "note", "payload": "x" * 60_000}).encode()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24,) * 2)
print([bool(fill(payload.decode, text)) for text in texts], fill(wire.decode_client, message) > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_no_memory_to_decode_into() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DECODES], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[True, True, True, True] True\n"), done.stderr
