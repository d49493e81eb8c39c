"""`trio-ws backup`: a copy of the database, while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import StoreError
from ..settings import CONFIG_VARIABLE
from .options import HELP, load_settings
from .output import Failure


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--store", metavar="TEXT", help=HELP["store"])
@click.option(
    "--config", "config_file", metavar="FILE", help=f"TOML file that names the store. [{CONFIG_VARIABLE}]"
)
@click.option(
    "--new-epochs", is_flag=True, help="Clients of a server that is started on the copy begin anew."
)
def command(target: Path, new_epochs: bool, **given: Any) -> None:
    """Copy the database to TARGET, a new file, while the server runs.

    The copy is whole, as of one moment, checked, and on the disk when the command ends. The store is the one that
    `trio-ws serve` would use with the same settings.
    """
    # Imported here, so that a wrong argument and --help need no store.
    from ..store.backup import back_up

    settings = load_settings(given).settings
    if settings.is_shared:
        raise Failure("a Redis is copied by its own means: its RDB file, or a replica", 2)
    kind, _, path = settings.store.partition(":")
    if kind != "sqlite":
        raise Failure("there is nothing to copy: the store is in memory", 2)
    try:
        copied = back_up(Path(path), target, new_epochs=new_epochs)
    except StoreError as error:
        raise Failure(str(error)) from None
    click.echo(f"{target}: {copied.size} bytes, {copied.users} users, {copied.events} events", err=True)
