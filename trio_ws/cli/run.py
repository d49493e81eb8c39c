"""`trio-ws run`: any command as an agent run, which a user watches live.

The command keeps its terminal: standard input is its own, its output is passed on unchanged, signals are handed
to it, and its exit status is ours (128 + n after signal n, 127 and 126 where it can't be started). The server may
be away meanwhile: the command never waits for it.
"""

from __future__ import annotations

import codecs
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import click
import trio

from .arguments import Seconds, Text
from .http import Admin, admin_options, open_admin
from .outbox import Outbox
from .output import note, run_trio

QUIET = 0.5
"""Seconds without output after which what the command left running is not listened to any more."""

LONGEST_REST = 5.0
"""Seconds after the command's end for which what it left running is listened to at most."""

CHUNK = 16 * 1024
SHOWN = 1000
"""Characters of the command line that the events show at most."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
SIGNALS: list[signal.Signals] = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
USER_SIGNALS = [n for n in SIGNALS if n.name.startswith("SIGUSR")]
FROM_KEYS = [n for n in SIGNALS if n.name in ("SIGINT", "SIGQUIT")]
"""What a terminal sends to all that runs in its foreground, when its keys are pressed."""


@click.command("run")
@click.argument("user", type=Text())
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--quiet", is_flag=True, help="Don't pass the command's output on to the terminal.")
@click.option(
    "--give-up-after",
    type=Seconds(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="After the command's end, how long to try to deliver the rest.",
)
@admin_options
def command(
    user: str, arguments: tuple[str, ...], quiet: bool, give_up_after: float, url: str, api_key: str | None
) -> None:
    """Run COMMAND as an agent run that USER watches: `trio-ws run ada -- make test`.

    Publishes agent_started, tool_executing, the output as it comes (tool_output), tool_completed with exit
    status and duration, and agent_completed. Ends with the command's exit status.
    """
    sys.exit(run_trio(_run, Run(user, arguments, quiet=quiet), url, api_key, give_up_after))


async def _run(run: Run, url: str, api_key: str | None, give_up_after: float) -> int:
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with open_admin(url, api_key) as admin, trio.open_nursery() as nursery:
            sent = trio.Event()
            nursery.start_soon(_send, run.outbox, admin, sent)
            nursery.start_soon(run.hand_on, signals)
            status = await run.execute()
            run.outbox.close()
            # A signal has nobody to go to any more: it ends our patience.
            run.patience.deadline = trio.current_time() + give_up_after
            with run.patience:
                await sent.wait()
            if run.outbox.cut:
                note(f"{run.outbox.cut} bytes of output were not delivered: the server was away too long")
            if len(run.outbox):
                note(f"gave up: {len(run.outbox)} events of this run were not delivered")
            nursery.cancel_scope.cancel()
    return status


async def _send(outbox: Outbox, admin: Admin, sent: trio.Event) -> None:
    await outbox.send(admin)
    sent.set()


class Run:
    """One run of one command.

    Args:
      user: who watches.
      arguments: the command and its arguments.
      quiet: keep the command's output from our own standard output and error.

    Attributes:
      outbox: where its events go.
      patience: cancelled by a signal that comes after the command's end.
    """

    def __init__(self, user: str, arguments: tuple[str, ...], *, quiet: bool) -> None:
        # A number, not a text: where deltas are joined, every text in them is concatenated.
        self.outbox = Outbox(user, secrets.randbits(48), note=note)
        self.patience = trio.CancelScope()
        self._arguments = arguments
        self._quiet = quiet
        self._process: trio.Process | None = None
        self._ended = False
        self._received: list[int] = []

    async def execute(self) -> int:
        """Runs the command, and tells of it; returns its exit status as a shell has it."""
        shown = shlex.join(self._arguments).encode("utf-8", "replace").decode()[:SHOWN]
        self.outbox.event("agent_started", command=shown)
        self.outbox.event("tool_executing", command=shown)
        started, error = trio.current_time(), {}
        try:
            code = await self._process_to_end()
            status = code if code >= 0 else 128 - code
        except OSError as exc:
            status = 127 if isinstance(exc, FileNotFoundError) else 126
            error = {"error": f"{shown.split()[0]}: {exc.strerror}"}
            note(error["error"])
        self._ended = True
        duration = round(trio.current_time() - started, 3)
        interrupted = any(number not in USER_SIGNALS for number in self._received)
        outcome = "succeeded" if status == 0 else "interrupted" if interrupted else "failed"
        self.outbox.event("tool_completed", exit_status=status, duration=duration, **error)
        self.outbox.event("agent_completed", status=outcome, exit_status=status, duration=duration)
        return status

    async def hand_on(self, signals: AsyncIterator[int]) -> None:
        """Hands each signal to the command. One that the terminal has sent to it as well is not doubled."""
        async for number in signals:
            self._received.append(number)
            process = self._process
            if self._ended or (process is not None and process.returncode is not None):
                self.patience.cancel()
            elif process is not None and not (number in FROM_KEYS and _in_foreground()):
                process.send_signal(number)

    async def _process_to_end(self) -> int:
        process = await trio.lowlevel.open_process(
            list(self._arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        try:
            # What came while it was being started.
            for number in self._received:
                process.send_signal(number)
            copies = [
                Copy(pipe, descriptor, partial(self.outbox.output, descriptor), quiet=self._quiet)
                for descriptor, pipe in ((1, process.stdout), (2, process.stderr))
            ]
            async with trio.open_nursery() as nursery:
                for copy in copies:
                    nursery.start_soon(copy.run)
                code = await process.wait()
                for copy in copies:
                    copy.expect_end()
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
        return code


class Copy:
    """Passes one of the command's outputs on: to our own, unchanged, and as text to `publish`."""

    def __init__(
        self, pipe: trio.abc.ReceiveStream, descriptor: int, publish: Callable[[str], None], *, quiet: bool
    ) -> None:
        self._pipe = pipe
        self._descriptor = descriptor
        self._publish = publish
        self._quiet = quiet
        self._scope = trio.CancelScope()
        self._rest_until: float | None = None

    def expect_end(self) -> None:
        """The command has ended: what still holds the pipe is listened to while it speaks, and not for long."""
        now = trio.current_time()
        self._rest_until = now + LONGEST_REST
        self._scope.deadline = now + QUIET

    async def run(self) -> None:
        """Copies to the end. If nobody reads our own output any more, the pipe is closed: the command sees it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async with self._pipe:
            while data := await self._receive():
                self._publish(decoder.decode(data))
                if not self._quiet:
                    try:
                        await trio.to_thread.run_sync(_write_all, self._descriptor, data)
                    except OSError:
                        break
        self._publish(decoder.decode(b"", True))

    async def _receive(self) -> bytes:
        self._scope = trio.CancelScope()
        if self._rest_until is not None:
            self._scope.deadline = min(trio.current_time() + QUIET, self._rest_until)
        with self._scope:
            return bytes(await self._pipe.receive_some(CHUNK))
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _in_foreground() -> bool:
    """Whether we are what the terminal's Ctrl-C goes to, and with us the command."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
