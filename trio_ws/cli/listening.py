"""The addresses that a server is at: those that it was handed, why one can't be had, and what is printed of them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import click
import trio

from ..addresses import UNIX, Address, netloc
from ..settings import Settings
from .output import Failure
from .systemd import Handed


def announce(settings: Settings, ws: Sequence[Address], admin: Sequence[Address]) -> None:
    """Print where WebSockets and the admin API are listened for."""
    for address in ws:
        url = f"{'wss' if settings.tls_cert else 'ws'}://{netloc(*address)}/ws"
        click.echo(f"listening on {address[0] if address[0].startswith(UNIX) else url}", err=True)
    for address in admin:
        scheme = "https" if settings.admin_tls_cert else "http"
        click.echo(f"admin on {scheme}://{netloc(*address)}", err=True)


def adopted(sockets: Sequence[socket.socket]) -> list[trio.SocketListener] | None:
    """Listeners of sockets that were handed over; None where there are none.

    Raises:
      Failure: one is not listened on.
    """
    from ..server.listening import adopt

    try:
        return [adopt(one) for one in sockets] or None
    except ValueError:
        raise Failure("a socket that was handed over is none that is listened on", 2) from None


@asynccontextmanager
async def admin_listeners(
    settings: Settings, handed: Handed, *, now: bool
) -> AsyncIterator[list[trio.SocketListener] | None]:
    """Where the admin API is listened for, while the block runs: what was handed over, or, if it is to be listened
    `now`, what the settings say. Else None.

    Raises:
      Failure: the address can't be had, or what was handed over is not listened on.
    """
    listeners = adopted(handed.admin)
    if listeners is None and now:
        with naming_the_address(settings.admin_host, settings.admin_port):
            host = settings.admin_host.strip("[]")
            listeners = await trio.open_tcp_listeners(settings.admin_port, host=host)
    try:
        yield listeners
    finally:
        for one in listeners or ():
            one.socket.close()


async def start(
    nursery: trio.Nursery, listener: Callable[..., Awaitable[Any]], host: str, port: int
) -> list[Address]:
    """Starts a listener and returns its addresses; an address that can't be had ends the command with status 2."""
    with naming_the_address(host, port):
        addresses: list[Address] = await nursery.start(listener)
    return addresses


@contextmanager
def naming_the_address(host: str, port: int) -> Iterator[None]:
    """An address that can't be had in the block ends the command with status 2, and a line that names it."""
    try:
        yield
    except (OSError, UnicodeError, BaseExceptionGroup) as exc:
        reason = _address_error(exc)
        if reason is None:
            raise
        raise Failure(f"can't listen on {netloc(host, port)}: {reason}", 2) from None


def _address_error(exc: BaseException) -> str | None:
    """Why an address can't be had, in the words of the system; None where that is not what happened."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, socket.gaierror):
        return exc.strerror.lower() if exc.strerror else "unknown host"
    if isinstance(exc, OSError):
        return os.strerror(exc.errno).lower() if exc.errno else str(exc)
    return "this is no host name" if isinstance(exc, UnicodeError) else None
