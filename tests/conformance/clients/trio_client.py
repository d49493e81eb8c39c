"""The Trio client under the conformance pack: `run` is it, the command takes a URL and options. See README.md."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

import trio_ws
from trio_ws.client import Client, SavedSession


async def run(
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None,
    options: Any,
    report: Callable[[Any], object],
    commands: trio.abc.ReceiveChannel[Any],
    wall_clock: Callable[[], float] = time.time,
    url: str = "ws://test/ws",
) -> None:
    """One client, until it has ended.

    Args:
      open_stream: makes its connections; None for TCP.
      options: a vector's.
      report: takes what it has to tell.
      commands: what it is told.
      wall_clock: its calendar.
    """
    saved = options.get("saved")
    client = trio_ws.connect(
        url,
        user=options.get("user", "ada"),
        token=_token(options.get("token")),
        from_=options.get("from", "retained"),
        session=None if saved is None else SavedSession(**saved),
        on_gap=lambda gap: report({"gap": _gap(gap)}),
        on_state=lambda state: state.name == "ended" or report({"state": state.name}),
        open_stream=open_stream,
        wall_clock=wall_clock,
    )
    async with client as opened, trio.open_nursery() as nursery:
        nursery.start_soon(_obey, opened, commands, report, nursery)
        code = await _receive(opened, options.get("handlers", {}), report)
        report({"state": "ended", "code": code})
        nursery.cancel_scope.cancel()


async def _receive(client: Client, handlers: Any, report: Callable[[Any], object]) -> int:
    """Handles events until there are no more; returns the code with which it ended."""
    failures: dict[int, int] = {}
    try:
        async for event in client:
            report({"event": _event(event)})
            if not event.id:
                continue  # it is told, and not acked
            rule = handlers.get(str(event.seq), {})
            await trio.sleep(rule.get("take", 0))
            failures[event.seq] = failures.get(event.seq, 0) + 1
            if failures[event.seq] <= rule.get("fail", 0):
                await client.nack(event)
            else:
                report({"processed": event.seq, "id": event.id})
    except trio_ws.SessionEnded as ended:
        return ended.code
    return 1000


async def _obey(
    client: Client,
    commands: trio.abc.ReceiveChannel[Any],
    report: Callable[[Any], object],
    nursery: trio.Nursery,
) -> None:
    async for command in commands:
        if command == "close":
            await client.aclose()
        else:
            nursery.start_soon(_send, client, command["send"], report)


async def _send(client: Client, message: Any, report: Callable[[Any], object]) -> None:
    try:
        await client.send(message["type"], message["payload"])
    except trio_ws.MessageRejected as rejected:
        report({"answer": message["key"], "error": str(rejected)})
    else:
        report({"answer": message["key"], "error": None})


def _token(given: Any) -> Any:
    """A token, or what gives those of a list one after the other; None in it fails."""
    if not isinstance(given, list):
        return given
    rest = list(given)

    async def give() -> str:
        token = rest.pop(0) if len(rest) > 1 else rest[0]
        if token is None:
            raise OSError("no token")
        return str(token)

    return give


def _event(event: trio_ws.Event) -> Any:
    merged = event.merged
    more = {
        "id": event.id,
        "ts": event.ts,
        "run": event.run,
        "critical": event.critical,
        "retry": event.retry,
        "merged": merged and {"from": merged.from_seq, "n": merged.n},
        "truncated": event.truncated,
    }
    told = {"seq": event.seq, "type": event.type, "payload": event.payload}
    return told | {key: value for key, value in more.items() if value}


def _gap(gap: trio_ws.Gap) -> Any:
    told = {
        "from": gap.first,
        "to": gap.last,
        "reason": gap.reason,
        "lost": dict(gap.lost),
        "critical": gap.critical,
    }
    more = {"snapshots": list(gap.snapshots), "healed": gap.healed}
    return told | {key: value for key, value in more.items() if value}


async def main(url: str, options: str) -> None:
    """The command: options as JSON, reports on standard output, commands on standard input, one a line."""
    give, take = trio.open_memory_channel[Any](0)

    async def read() -> None:
        async with give:
            async for line in trio.wrap_file(sys.stdin):
                await give.send(json.loads(line))

    def report(value: Any) -> None:
        print(json.dumps(value), flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        report({"ready": True})
        await run(None, json.loads(options), report, take, url=url)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
