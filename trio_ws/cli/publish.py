"""`trio-ws publish`: one event, or a stream of them from standard input, over HTTP."""

from __future__ import annotations

import json
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import click
import trio

from ..config import MIB
from ..core import payload as payloads
from .arguments import Seconds, Text
from .http import Admin, Answer, Unreachable, admin_options, open_admin, user_path
from .output import Failure, note, print_json, run_trio

BATCH = 100
"""Lines that one call carries at most; it carries what has come, and does not wait for more."""

READ_AHEAD = 1000
"""Lines that are read from standard input before the server has taken them."""

MAX_LINE = 8 * MIB
MAX_TTL = 1e9
"""Seconds; some thirty years."""


@click.command("publish")
@click.argument("user", type=Text())
@click.argument("type_", metavar="TYPE", type=Text())
@click.argument("payload", required=False)
@click.option(
    "--id", "id_", type=Text(), metavar="ID", help="Idempotency key; with `-`, ID-1, ID-2, and so on."
)
@click.option("--priority", type=click.Choice(["low", "normal", "high", "critical"]))
@click.option(
    "--key",
    type=Text(),
    metavar="KEY",
    help="Supersede an event of the same type and key that was not sent yet.",
)
@click.option("--merge", type=click.Choice(["append"]), help="Join with the deltas before it that wait too.")
@click.option(
    "--ttl",
    type=Seconds(0, MAX_TTL, min_open=True),
    metavar="SECONDS",
    help="How long it is worth delivering.",
)
@click.option("--confirm", is_flag=True, help="Track and redeliver it like a critical event.")
@click.option("--wait", is_flag=True, help="Wait for a client to confirm; exit 1 if none does in time.")
@click.option(
    "--timeout", type=Seconds(0, 60, min_open=True), default=5.0, show_default=True, help="For --wait."
)
@click.option(
    "--retry-for",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to repeat what a busy server refuses, under the same id.",
)
@admin_options
def command(
    user: str,
    type_: str,
    payload: str | None,
    id_: str | None,
    wait: bool,
    timeout: float,
    retry_for: float,
    url: str,
    api_key: str | None,
    **options: Any,
) -> None:
    """Publish an event of TYPE to USER.

    PAYLOAD is JSON. `-` reads JSON lines from standard input, each the payload of one event; with --wait each
    is confirmed before the next is sent. Prints the server's answers, one JSON line each; exits 1 if any was
    refused.
    """
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    event = {"type": type_, **given}
    publisher = Publisher(user, event, id_ or uuid.uuid4().hex, timeout if wait else None, retry_for)
    if payload == "-":
        refused = run_trio(publisher.publish_lines, url, api_key)
    else:
        if payload is not None:
            event["payload"] = _payload(payload)
        refused = run_trio(publisher.publish_one, url, api_key)
    if refused:
        sys.exit(1)


@attrs.define
class Publisher:
    """Sends the events of one command; they differ in payload and id.

    Attributes:
      wait: seconds to wait for each confirmation; None does not wait.
      retry_for: seconds after which what the server refuses for now is refused.
      refused: how many events were not accepted.
    """

    user: str
    event: dict[str, Any]
    id: str
    wait: float | None
    retry_for: float
    refused: int = 0

    async def publish_one(self, url: str, api_key: str | None) -> int:
        """Sends the event itself; returns how many were refused, 0 or 1."""
        async with open_admin(url, api_key) as admin:
            [answer] = await self._send(admin, [{**self.event, "id": self.id}])
        self._report(answer)
        return self.refused

    async def publish_lines(self, url: str, api_key: str | None) -> int:
        """Sends an event for each line of standard input; returns how many were refused."""
        async with open_admin(url, api_key) as admin, trio.open_nursery() as nursery:
            to_send, lines = trio.open_memory_channel[bytes](READ_AHEAD)
            nursery.start_soon(_read_lines, to_send)
            with lines, _progress() as advance:
                number = 0
                async for line in lines:
                    batch = [line]
                    try:
                        while len(batch) < (1 if self.wait is not None else BATCH):
                            batch.append(lines.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        pass
                    await self._send_batch(admin, batch, number)
                    number += len(batch)
                    advance(len(batch), sum(map(len, batch)))
        return self.refused

    async def _send_batch(self, admin: Admin, batch: list[bytes], number: int) -> None:
        """Sends the lines after line `number`, and reports in their order, also on those that are no JSON."""
        answers: dict[int, Answer] = {}
        events: dict[int, dict[str, Any]] = {}
        for n, line in enumerate(batch, number + 1):
            try:
                payload = parse_json(line)
            except ValueError as exc:
                message = f"line {n} {exc}"
                answers[n] = Answer({"error": {"code": "invalid", "message": message, "field": "payload"}})
            else:
                events[n] = {**self.event, "payload": payload, "id": f"{self.id}-{n}"}
        if events:
            answers.update(zip(events, await self._send(admin, list(events.values())), strict=True))
        for n in sorted(answers):
            self._report(answers[n])

    async def _send(self, admin: Admin, events: list[dict[str, Any]]) -> list[Answer]:
        """The server's last word on each event; what it refuses only for now is sent again under the same id.

        Of a batch, what is sent again comes after what was accepted at once.
        """
        deadline = trio.current_time() + self.retry_for
        answers: dict[str, Answer] = {}
        pending, delay = events, 0.1
        while pending:
            try:
                latest = await self._call(admin, pending)
            except Unreachable as exc:
                if exc.refused or trio.current_time() + delay > deadline:
                    raise Failure(str(exc)) from None
                pause = delay
            else:
                answers.update((event["id"], answer) for event, answer in zip(pending, latest, strict=True))
                pending = [event for event in pending if answers[event["id"]].temporary]
                pause = max([delay, *(answers[event["id"]].retry_after or 0 for event in pending)])
                if trio.current_time() + pause > deadline:
                    break
            if pending:
                await trio.sleep(pause)
                delay = min(2 * delay, 2.0)
        return [answers[event["id"]] for event in events]

    async def _call(self, admin: Admin, events: list[dict[str, Any]]) -> list[Answer]:
        if len(events) > 1:
            return await admin.publish([{"user": self.user, **event} for event in events])
        params = {} if self.wait is None else {"wait": "confirmed", "timeout": self.wait}
        path = f"{user_path(self.user)}/events"
        return [await admin.call("POST", path, events[0], params=params, wait=self.wait or 0)]

    def _report(self, answer: Answer) -> None:
        print_json(answer.body)
        if answer.error is not None:
            self.refused += 1
            note(f"refused: {answer.reason}")


def _payload(text: str) -> Any:
    try:
        return parse_json(os.fsencode(text))
    except ValueError as exc:
        hint = "" if text[:1] in '[{"' else f"; a text is given as {json.dumps(json.dumps(text))}"
        raise Failure(f"PAYLOAD {exc}{hint}", 2) from None


def parse_json(data: bytes) -> Any:
    """The value of one JSON text.

    Raises:
      ValueError: it is none, or one that the server would refuse. The message goes on from what the text is called.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as exc:  # it tells where
        raise ValueError(f"is not JSON: {exc}") from None
    payloads.decode(data)  # stricter: NaN, numbers out of range, halves of surrogate pairs
    return value


async def _read_lines(to_send: trio.MemorySendChannel[bytes]) -> None:
    """Hands on the lines of standard input that are not blank.

    The descriptor is read, not `sys.stdin`: a cancelled read stays behind in its thread, and would keep the lock
    of that object from the end of the process.
    """
    descriptor, rest = sys.stdin.fileno(), b""
    with to_send:
        while data := await trio.to_thread.run_sync(os.read, descriptor, 1 << 16, abandon_on_cancel=True):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                raise Failure(f"a line of standard input is over {MAX_LINE} bytes")
            for line in lines:
                if line.strip():
                    await to_send.send(line)
        if rest.strip():
            await to_send.send(rest)


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress bar on standard error if that is a terminal: by bytes where the input is a file, else a count."""
    if not sys.stderr.isatty():
        yield lambda events, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    status = os.fstat(sys.stdin.fileno())
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = [TextColumn("{task.fields[events]} events"), BarColumn(), TimeElapsedColumn()]
    if total is not None:
        columns.insert(2, MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, events=0)
        sent = 0

        def advance(events: int, size: int) -> None:
            nonlocal sent
            sent += events
            progress.update(task, advance=size, events=sent)

        yield advance
