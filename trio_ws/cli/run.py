"""`trio-ws run`: any command as an agent run, which a user watches live.

The command keeps its terminal: standard input is its own, its output is passed on unchanged, signals are handed
to it, and its exit status is ours (128 + n after signal n, 127 and 126 where it can't be started). The server may
be away meanwhile: the command never waits for it.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import click
import trio

from .arguments import Seconds, Text
from .http import admin_options, open_admin
from .outbox import CALL, Outbox
from .output import note, run_trio
from .played import Played

QUIET = 0.5
"""Seconds without output after which what the command left running is not listened to any more."""

LONGEST_REST = 5.0
"""Seconds after the command's end for which what it left running is listened to at most."""

STOP_GRACE = 10.0
"""Seconds that a command has to end after its user wants it to."""

CHUNK = 16 * 1024
SHOWN = 1000
"""Characters of the command line that the events show at most."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
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
    "--lease",
    type=Seconds(1, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long after this command's last sign of life the run counts as lost.",
)
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
    user: str,
    arguments: tuple[str, ...],
    quiet: bool,
    lease: float,
    give_up_after: float,
    url: str,
    api_key: str | None,
) -> None:
    """Run COMMAND as an agent run that USER watches: `trio-ws run ada -- make test`.

    Publishes agent_started, tool_executing, the output as it comes (tool_output), tool_completed with exit
    status and duration, and agent_completed. Ends with the command's exit status. If this command dies, the
    server says agent_lost; if USER cancels the run, COMMAND gets a SIGTERM.
    """
    sys.exit(run_trio(_run, Run(arguments, quiet=quiet), user, lease, url, api_key, give_up_after))


async def _run(run: Run, user: str, lease: float, url: str, api_key: str | None, give_up_after: float) -> int:
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with open_admin(url, api_key) as admin, trio.open_nursery() as nursery:
            sent = trio.Event()
            stop = partial(nursery.start_soon, run.stop)
            played = Played(admin, user, lease=lease, on_cancel=stop, note=note)
            nursery.start_soon(_send, run.outbox, played, sent)
            nursery.start_soon(played.keep)
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


async def _send(outbox: Outbox, played: Played, sent: trio.Event) -> None:
    await outbox.send(played)
    sent.set()


class Run:
    """One run of one command.

    Args:
      arguments: the command and its arguments.
      quiet: keep the command's output from our own standard output and error.

    Attributes:
      outbox: where its events go.
      patience: cancelled by a signal that comes after the command's end.
    """

    def __init__(self, arguments: tuple[str, ...], *, quiet: bool) -> None:
        self.outbox = Outbox(note=note)
        self.patience = trio.CancelScope()
        self._arguments = arguments
        self._quiet = quiet
        self._process: trio.Process | None = None
        self._ended = self._stopped = False
        self._received: list[int] = []

    async def execute(self) -> int:
        """Runs the command, and tells of it; returns its exit status as a shell has it."""
        shown = shlex.join(self._arguments).encode("utf-8", "replace").decode()[:SHOWN]
        told = {"command": shown}
        tool = _as_name(os.path.basename(self._arguments[0]) or self._arguments[0])
        self.outbox.event("agent_started", name=_as_name(shown), input=told)
        self.outbox.event("tool_executing", call=CALL, tool=tool, input=told)
        started, error = trio.current_time(), None
        try:
            code = await self._process_to_end()
            status = code if code >= 0 else 128 - code
        except OSError as exc:
            status = 127 if isinstance(exc, FileNotFoundError) else 126
            error = {"kind": type(exc).__name__, "message": f"{shown.split()[0]}: {exc.strerror}"}
            note(error["message"])
        self._ended = True
        duration = round(trio.current_time() - started, 3)
        interrupted = self._stopped or any(number not in USER_SIGNALS for number in self._received)
        outcome = "completed" if status == 0 else "cancelled" if interrupted else "failed"
        if outcome == "failed" and error is None:
            error = {"kind": "ExitStatus", "message": f"exit status {status}"}
        failure = {} if error is None else {"error": error}
        output, tool_told = {"exit_status": status}, {"call": CALL, "tool": tool, "duration": duration}
        self.outbox.event("tool_completed", **tool_told, outcome=outcome, output=output, **failure)
        self.outbox.event("agent_completed", outcome=outcome, result=output, **failure)
        return status

    async def stop(self) -> None:
        """Has the command end, since its user wants it to: by SIGTERM, and by SIGKILL where that does not help."""
        self._stopped = True
        if self._process is None:
            self._received.append(signal.SIGTERM)  # it is being started, or has ended
            return
        self._process.terminate()
        await trio.sleep(STOP_GRACE)
        if self._process is not None:
            self._process.kill()

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
                Copy(pipe, descriptor, self.outbox.output, quiet=self._quiet)
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


def _as_name(text: str) -> str:
    """`text` as a name: without control characters, and not too long."""
    return _CONTROLS.sub(" ", text.encode("utf-8", "replace").decode())[:128] or "command"


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
