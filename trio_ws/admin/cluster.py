"""All nodes as one: each is asked for its share of the figures, or of a list, and what they tell is put together.

A node that does not answer in time is named as missing: what is told then is of the others.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from ..hub import Hub
from ..hub.elsewhere import HttpCall, NoAnswer
from ..hub.merging import merged, share
from ..store import NodeRecord
from .answers import ApiError, answer
from .forwarding import answer_here
from .requests import HOP

TIMEOUT: Final = 1.0
"""Seconds within which a node tells its share."""

SHARE: Final = "/v1/share"
"""Where nodes tell each other their shares; for them only."""

STATES: Final = ("serving", "draining", "suspended", "missing", "unknown")
"""What a node can be at: one that is missing has not answered; one that is unknown could not be asked, as who asks is
suspended itself."""

FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "uptime": ("uptime",),
    "connections": ("connections", "current"),
    "users": ("users",),
    "owned": ("cluster", "owned"),
    "accepted": ("delivery", "events_accepted"),
    "held": ("delivery", "events_held"),
    "bus_delay_p99": ("cluster", "bus_delay_p99"),
}
"""What a node's line has of its figures."""

_ANSWERED: Final = (
    b"# HELP trio_ws_cluster_answered Whether a node has told its metrics.\n"
    b"# TYPE trio_ws_cluster_answered gauge"
)

_decode = msgspec.json.decode
_encode = msgspec.json.encode


@attrs.frozen
class Shares:
    """What the nodes have told.

    Attributes:
      records: all nodes that live.
      told: the shares of those that have answered, by node.
      silent: the state of those that have not.
    """

    records: list[NodeRecord]
    told: dict[str, dict[str, Any]]
    silent: str

    def stats(self) -> dict[str, Any]:
        """The figures of the cluster, and a line for each node."""
        stats = merged(list(self.told.values()))
        stats["cluster"]["missing"] = len(self.records) - len(self.told)
        lines = [_line(record, self.told.get(record.node), self.silent) for record in self.records]
        stats["nodes"] = sorted(lines, key=lambda line: (line["name"] or "", line["node"]))
        return stats


class AllNodes:
    """The nodes of the cluster that `hub` is of."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def share(self, request: Request) -> Response:
        """This node's share, for another node."""
        if HOP not in request.scope:
            raise ApiError(404, "not_found", "not found")
        return answer(self._own())

    async def metrics(self, accept: str) -> bytes:
        """The metrics of all nodes as one text, each sample with the name of its node as a label. A checkpoint.

        A Prometheus that scrapes one address, behind which any of several nodes answers, so has the counters of each
        apart: of a sum it could not tell a node that has begun anew from one that is missing for once.

        Args:
          accept: the header, which says in what format.
        """
        told = await self._ask("/metrics", accept=accept)
        named = Counter(_about(record)["name"] for record in self._nodes())
        families: dict[bytes, list[bytes]] = {}
        answered = families[_ANSWERED] = []
        for record in self._nodes():
            name = _about(record)["name"]
            # Two have one name for a while, where one takes the place of the other.
            called = f"{name}/{record.node}" if name and named[name] > 1 else name or record.node
            label = b"node=" + _encode(called)
            answered.append(b"trio_ws_cluster_answered{%b} %d" % (label, record.node in told))
            for head, samples in _families(told.get(record.node, b"")):
                families.setdefault(head, []).extend(_labelled(sample, label) for sample in samples)
        lines = [line for head, samples in families.items() for line in (head, *samples)]
        end = b"# EOF\n" if any(text.endswith(b"# EOF\n") for text in told.values()) else b""
        return b"\n".join(lines) + b"\n" + end

    async def shares(self) -> Shares:
        """The shares of all nodes; at least this one's is there. A checkpoint."""
        records = self._nodes()
        told = await self._tell(SHARE)
        if self._node not in told:
            told[self._node] = self._own()
        assert self._hub.cluster is not None
        return Shares(records, told, "unknown" if self._hub.cluster.suspended else "missing")

    async def users(self, prefix: str, limit: int) -> dict[str, Any]:
        """Who is known to any node, by name; and the nodes that did not say. A checkpoint."""
        told = await self._tell("/v1/users?" + urlencode({"prefix": prefix, "limit": limit}))
        found = list(
            heapq.merge(*(each["users"] for each in told.values()), key=lambda user: str(user["user"]))
        )
        more = len(found) > limit or any(each["more"] for each in told.values())
        missing = [record.node for record in self._nodes() if record.node not in told]
        return {"users": found[:limit], "more": more, "missing": missing}

    def _own(self) -> dict[str, Any]:
        return {**share(self._hub), "version": __version__, "cpu": time.process_time()}

    @property
    def _node(self) -> str:
        assert self._hub.cluster is not None
        return self._hub.cluster.node

    def _nodes(self) -> list[NodeRecord]:
        assert self._hub.cluster is not None
        return self._hub.cluster.nodes()

    async def _tell(self, target: str) -> dict[str, Any]:
        """As `_ask`, of what is JSON."""
        return {node: _decode(body) for node, body in (await self._ask(target)).items()}

    async def _ask(self, target: str, **headers: str) -> dict[str, bytes]:
        """What each node answers to a call, by node; those that don't in time are left out."""
        call = HttpCall(method="GET", target=target, headers=list(headers.items()), timeout=TIMEOUT)
        told: dict[str, bytes] = {}

        async def ask(node: str) -> None:
            assert self._hub.cluster is not None
            try:
                here = node == self._node
                got = await (answer_here(self._hub, call) if here else self._hub.cluster.ask(node, call))
            except NoAnswer:
                return
            if got.status == 200:
                told[node] = got.body

        with trio.move_on_after(TIMEOUT):
            async with trio.open_nursery() as nursery:
                for record in self._nodes():
                    nursery.start_soon(ask, record.node)
        return told


def _line(record: NodeRecord, told: dict[str, Any] | None, silent: str) -> dict[str, Any]:
    """What is told of one node; None for what is not known of one that has not answered."""
    line: dict[str, Any] = {"node": record.node, "state": silent, **_about(record), "left": record.left}
    if told is None:
        return {**line, **dict.fromkeys(FIGURES), "version": None, "cpu": None}
    stats, suspended = told["stats"], told["stats"]["cluster"]["suspended"]
    line["state"] = "suspended" if suspended else "draining" if stats["draining"] else "serving"
    line |= {
        name: stats[path[0]] if len(path) == 1 else stats[path[0]][path[1]] for name, path in FIGURES.items()
    }
    return {**line, "version": told["version"], "cpu": told["cpu"]}


def _families(text: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """A text of metrics, family by family: what says what it is, and its samples."""
    for family in text.removesuffix(b"# EOF\n").split(b"# HELP ")[1:]:
        what, kind, *samples = family.rstrip(b"\n").split(b"\n")
        yield b"# HELP %b\n%b" % (what, kind), samples


def _labelled(sample: bytes, label: bytes) -> bytes:
    """A sample with one label more; its name has neither spaces nor braces."""
    name, space, value = sample.partition(b" ")
    name, brace, labels = name.partition(b"{")
    return b"%b{%b%b%b%b" % (name, label, b"," if brace else b"}", labels, space + value)


def _about(record: NodeRecord) -> dict[str, str | None]:
    """How people know a node, as far as it says so."""
    try:
        about = _decode(record.about)
    except msgspec.DecodeError:
        about = None
    told = about if isinstance(about, dict) else {}
    return {name: told[name] if isinstance(told.get(name), str) else None for name in ("name", "address")}
