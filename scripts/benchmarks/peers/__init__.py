"""The systems under test. A module each (or each family) holds the client's protocol, and a list of `Peer`s."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

Command: TypeAlias = Sequence[str]
Start: TypeAlias = Callable[[int, Path], Command]
"""From a port and a folder of its own to the command that runs a process."""

ORDER: Final = ("trio_ws", "socketio", "node", "python", "brokers")
"""The modules, in the order in which tables name what is in them."""


@dataclass(frozen=True, eq=False)
class Peer:
    """One system under test.

    Attributes:
      name: its key on the command line and in tables.
      client: where its client's `Session` is, as ``module:class`` in this package.
      server: starts what is measured. It prints READY when it accepts connections; a broker just listens.
      version: tells what runs; raises where it can't run here, in words for the user.
      reliability: one line on what it really promises.
      recovers: whether it loses nothing over a cut.
      publisher: for a broker, which listens for it at port + 1: the process that publishes.
      prepare: is called before the server is started.
      environment: variables for the server.
      skip: scenarios that tell nothing of it.
      wanted: it is run where no peers are named.
    """

    name: str
    client: str
    server: Start
    version: Callable[[], str]
    reliability: str
    recovers: bool = False
    publisher: Start | None = None
    prepare: Callable[[int, Path], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""
    wanted: bool = True


def all_peers() -> dict[str, Peer]:
    """Every peer by its name, in the order of the tables; whether it can run here is for `version` to say."""
    found: dict[str, Peer] = {}
    modules = {info.name for info in pkgutil.iter_modules(__path__)}
    assert modules == set(ORDER), modules
    for name in ORDER:
        for peer in importlib.import_module(f"{__name__}.{name}").PEERS:
            found[peer.name] = peer
    return found
