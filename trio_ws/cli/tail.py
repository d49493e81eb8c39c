"""`trio-ws tail`: a user's events as JSON lines, from a client that reconnects and resumes until it is ended."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import Any, get_args

import click
import trio

from ..client import ClientState, connect
from ..core import wire
from ..errors import ConnectionRefused, InvalidConfig, SessionEnded
from ..event import Event, Gap
from ..settings import ENV_PREFIX
from .arguments import Text
from .http import check_url, default_address
from .output import Failure, note, print_json, run_trio


def _ws_url(_: click.Context, __: click.Parameter, value: str | None) -> str:
    url = value or f"ws://{default_address('')}/ws"
    return check_url(url, "ws", "wss", example="ws://127.0.0.1:8765/ws")


@click.command("tail")
@click.argument("user", type=Text())
@click.option(
    "--url",
    metavar="URL",
    callback=_ws_url,
    help="The server's WebSocket address. [default: ws://, TRIO_WS_HOST:TRIO_WS_PORT, /ws]",
)
@click.option(
    "--token",
    envvar=f"{ENV_PREFIX}TOKEN",
    type=Text(),
    metavar="TOKEN",
    help=f"Credentials. [{ENV_PREFIX}TOKEN]",
)
@click.option("--no-ack", is_flag=True, help="Look only: confirm nothing.")
@click.option(
    "--from",
    "from_",
    type=click.Choice(get_args(wire.Start)),
    default="retained",
    show_default=True,
    help="Start with all that is held, what nobody has confirmed, what is to come, or the state of the runs.",
)
@click.option("--gaps/--no-gaps", default=True, help="Print what was lost, as a line with the key gap.")
@click.option("--state", is_flag=True, help="Tell of the connection on standard error.")
def command(
    user: str, url: str, token: str | None, no_ack: bool, from_: Any, gaps: bool, state: bool
) -> None:
    """Connect as USER and print each event as one JSON line, acknowledged once it is printed.

    Runs until Ctrl-C (exit 130) or until the server ends the session; a reader of the output that goes away
    ends it with 0. With a token the user is who the token says.
    """
    make_client = partial(
        connect,
        url,
        token=token,
        user=None if token else user,
        from_=from_,
        ack=not no_ack,
        on_gap=_print_gap if gaps else None,
        on_state=_Teller(all_states=state),
    )
    sys.exit(run_trio(_tail, make_client))


async def _tail(make_client: Any) -> int:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.CancelScope() as scope,
    ):
        async with trio.open_nursery() as nursery:
            received: list[int] = []

            async def end() -> None:
                async for number in signals:
                    received.append(number)
                    scope.cancel()

            nursery.start_soon(end)
            try:
                async with make_client() as client:
                    async for event in client:
                        # In a thread: a reader that is slow must not keep us from answering the server.
                        await trio.to_thread.run_sync(print_json, event_line(event))
            except InvalidConfig as exc:
                raise Failure(str(exc), 2) from None
            except SessionEnded as exc:
                raise Failure(f"the server ended the session: {exc}") from None
            except ConnectionRefused as exc:
                raise Failure(f"the server refused the connection: {exc}") from None
            nursery.cancel_scope.cancel()
    return 128 + received[0] if received else 0


def event_line(event: Event) -> dict[str, Any]:
    """An event with the keys that it has on the wire; what does not apply is left out."""
    always = ("seq", "id", "type", "payload", "ts")
    where_it_applies = ("run", "critical", "retry", "truncated")
    line = {name: getattr(event, name) for name in always}
    line |= {name: value for name in where_it_applies if (value := getattr(event, name))}
    if event.merged is not None:
        line["merged"] = {"from": event.merged.from_seq, "n": event.merged.n}
    return line


def _print_gap(gap: Gap) -> None:
    line = {
        "from": gap.first,
        "to": gap.last,
        "reason": gap.reason,
        "lost": gap.lost,
        "critical": gap.critical,
    }
    where_it_applies = ("snapshots", "healed")
    line |= {name: value for name in where_it_applies if (value := getattr(gap, name))}
    print_json({"gap": line})


class _Teller:
    """Tells of the client's states on standard error: of all, or only that the first attempt failed."""

    def __init__(self, *, all_states: bool) -> None:
        self._all = all_states
        self._quiet = False

    def __call__(self, state: ClientState) -> None:
        again = "" if state.retry_in is None else f"; next try in {state.retry_in:.1f} s"
        reason = f": {state.reason}" if state.reason else ""
        if self._all:
            note(f"{state}{reason}{again}")
        elif state.name == "offline" and not self._quiet:
            note(f"not connected{reason}; trying until it works")
        self._quiet = self._quiet or state.name in ("offline", "live")
