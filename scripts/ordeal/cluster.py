"""One run of several nodes over one Redis: round after round of faults; then all is left in peace, and has to heal."""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from trio_ws.faults import FaultyNetwork

from . import nodes, redises, rounds
from .copies import Answered
from .faults import cut_clients
from .journal import Journal
from .kept import KEYS, Kept
from .namespaces import namespaces
from .nodes import HERE, Node, Nodes
from .party import Party
from .redises import Single
from .run import GRACE, LOOK_EVERY, OPTIONS, look_at_journals

ATTEMPTS: Final = 5
"""How often a node is started that ends by itself, before the run is given up."""


class GivenUp(Exception):
    """The run can't go on; why is in its journal."""


@attrs.frozen
class Ordeal:
    """What a run is to be.

    Attributes:
      directory: where everything is written; empty.
      seed: what the faults and the load are drawn from. The times at which things happen are the machine's.
      nodes: how many.
      kills, redis_faults: how many SIGKILLs of nodes, and faults of Redis and the way there; 0 for any number.
      first: the round that it begins with, so that a run which was interrupted can be gone on with.
      seconds: at most, before the healing.
      faults: which of `rounds.FAULTS`.
      users, rate: how many, and how many events are published a second, as far as they are taken.
      length: how long a round lasts, in seconds, in the middle.
      durability: of the nodes.
      namespaced: each node has a network of its own.
      topology, redis_durability: of Redis, as in `rounds`.
      replicas: how many have a commit before it counts.
    """

    directory: Path
    seed: str
    nodes: int = 3
    kills: int = 0
    redis_faults: int = 0
    first: int = 1
    seconds: float = 600
    faults: frozenset[str] = rounds.possible()
    users: int = 6
    rate: float = 300
    length: float = 2.0
    durability: str = "critical"
    namespaced: bool = False
    topology: str = "server"
    redis_durability: str = "always"
    replicas: int = 0

    @property
    def may_lose(self) -> bool:
        """Whether Redis may lose what it has answered, of which clients have to be told then."""
        alone = self.topology == "server"
        return self.redis_durability != "always" or not (alone or self.replicas)

    @property
    def may_renew(self) -> bool:
        """Whether logs may begin anew: also where only what was not answered yet may be lost."""
        return self.may_lose or self.topology != "server"

    @property
    def names(self) -> list[str]:
        """The users."""
        return [f"user{n}" for n in range(self.users)]


@attrs.define
class Tally:
    """What was done so far.

    Attributes:
      faults: how often each was.
      ready: seconds from start to ready, of each life of a node that came so far.
      healed: seconds from the end of the faults until everything was delivered.
      answered: how many critical events were promised to publishers.
      loaded: in how many rounds publishers were answered.
      looks: how often what was promised was looked for in Redis.
      number: of the last round that was begun.
    """

    faults: Counter[str] = attrs.Factory(Counter)
    ready: list[float] = attrs.Factory(list)
    healed: float | None = None
    answered: int = 0
    loaded: int = 0
    looks: int = 0
    number: int = 0

    @property
    def redis_faults(self) -> int:
        """How often Redis, or the way there, was broken."""
        return sum(self.faults[fault] for fault in rounds.OF_REDIS)


class _Run:
    def __init__(
        self,
        ordeal: Ordeal,
        tally: Tally,
        redis: Single,
        nodes: Nodes,
        network: FaultyNetwork,
        url: str,
        nursery: trio.Nursery,
    ) -> None:
        self.ordeal, self.tally, self.redis, self.nodes, self.network = ordeal, tally, redis, nodes, network
        self.nursery = nursery
        self.rng = random.Random(f"{ordeal.seed}/chances")
        self.journal = Journal(ordeal.directory / "run.jsonl")
        told = {"seed": ordeal.seed, "durability": ordeal.durability, "nodes": ordeal.nodes}
        self.journal.write("begin", **told, may_lose=ordeal.may_lose, may_renew=ordeal.may_renew)
        self.answered = Answered(ordeal.directory)
        http = f"http://{nodes.http[0]}:{nodes.http[1]}"
        self.party = Party(
            *(ordeal.directory, ordeal.seed, ordeal.names, ordeal.rate),
            *(url, http, self.journal, self.answered),
            may_renew=ordeal.may_renew,
        )
        self.kept = Kept(redis.url, self.journal, may_renew=ordeal.may_renew)
        self._next_look, self._looking, self._found = LOOK_EVERY, False, False

    # -- round after round

    async def rounds(self) -> None:
        """Until there were enough faults."""
        end = trio.current_time() + self.ordeal.seconds
        ordeal = self.ordeal
        for number in itertools.count(ordeal.first):
            if trio.current_time() >= end or self._enough or self._found:
                return
            self.tally.number = number
            plan = rounds.draw(ordeal.seed, number, ordeal.faults, ordeal.nodes, ordeal.length)
            self.journal.write("round", number=number, seconds=round(plan.seconds, 3))
            await self.round(plan)
            if self.tally.faults["kill"] >= self._next_look and not self._looking:
                self._next_look += LOOK_EVERY
                self.nursery.start_soon(self._look)

    async def round(self, plan: rounds.Round) -> None:
        """Its faults; at the end all servers are up, and publishers are answered."""
        before = self.answered.count
        async with trio.open_nursery() as nursery:
            for incident in plan.incidents:
                nursery.start_soon(self.suffer, incident)
            await trio.sleep(plan.seconds)
        await self.party.wait_answers(before + plan.answers)
        self.tally.loaded += self.answered.count > before
        await self.kept.look(self.answered.so_far())
        await self.balance()
        self.tally.answered, self.tally.looks = self.answered.critical, self.kept.looks

    @property
    def _enough(self) -> bool:
        ordeal, tally = self.ordeal, self.tally
        return (
            max(ordeal.kills, ordeal.redis_faults) > 0
            and ordeal.kills <= tally.faults["kill"]
            and ordeal.redis_faults <= tally.redis_faults
        )

    async def _look(self) -> None:
        self._looking = True
        self._found = await look_at_journals(self.ordeal.directory)
        self._looking = False

    async def balance(self) -> None:
        """Write down each node's books as they are now."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            for number, node in enumerate(self.nodes.all):
                try:
                    told = (await http.get(f"{node.lives.http}/v1/stats")).json()
                except httpx.TransportError as error:
                    self.journal.write("wrong", what=f"node {number} tells nothing of itself: {error!r}")
                else:
                    self.journal.write("books", node=number, **told["delivery"])

    # -- what is done

    async def suffer(self, incident: rounds.Incident) -> None:
        await trio.sleep(incident.at)
        told = attrs.asdict(incident, filter=lambda field, _: field.name != "at")
        self.journal.write("fault", **told)
        kinds: dict[str, Callable[[Node, rounds.Incident], Awaitable[None]]] = {
            "kill": self.kill,
            "term": self.term,
            "stop": self.stop,
            "link-cut": self.link_cut,
            "link-stall": self.link_stall,
            "link-lost": self.link_lost,
        }
        of_all: dict[str, Callable[[rounds.Incident], Awaitable[None]]] = {
            "roll": self.roll,
            "redis-kill": self.redis_kill,
            "redis-power": self.redis_power,
            "redis-stop": self.redis_stop,
            "redis-full": self.redis_full,
            "redis-slot": self.redis_slot,
            "cut": self.cut,
            "tabs": self.kill_tabs,
        }
        if incident.fault in of_all:
            self.tally.faults[incident.fault] += 1
            await of_all[incident.fault](incident)
            return
        hit = self.nodes.all if incident.node < 0 else [self.nodes.all[incident.node]]
        async with trio.open_nursery() as nursery:
            for node in hit:
                self.tally.faults[incident.fault] += 1
                nursery.start_soon(kinds[incident.fault], node, incident)

    async def kill(self, node: Node, incident: rounds.Incident) -> None:
        async with node.changing:
            await self.end(node, signal.SIGKILL)
            await trio.sleep(incident.seconds)
            if incident.again is not None:
                await node.lives.start()
                await trio.sleep(incident.again)
                self.tally.faults["kill"] += 1
                await self.end(node, signal.SIGKILL)
            await self.start(node)

    async def term(self, node: Node, incident: rounds.Incident) -> None:
        async with node.changing:
            if incident.again is not None:
                node.lives.signal(signal.SIGTERM)
                await trio.sleep(incident.again)
                self.tally.faults["kill"] += 1
                await self.end(node, signal.SIGKILL, drained=True)
            else:
                await self.end(node, signal.SIGTERM)
            await self.start(node)

    async def stop(self, node: Node, incident: rounds.Incident) -> None:
        async with node.changing:
            node.lives.signal(signal.SIGSTOP)
            try:
                await trio.sleep(incident.seconds)
            finally:
                node.lives.signal(signal.SIGCONT)

    async def roll(self, _incident: rounds.Incident) -> None:
        for node in self.nodes.all:
            async with node.changing:
                await self.end(node, signal.SIGTERM)
                await self.start(node)

    async def redis_kill(self, incident: rounds.Incident) -> None:
        await self.redis.kill(incident.node, incident.seconds)

    async def redis_power(self, incident: rounds.Incident) -> None:
        await self.redis.lose_power(incident.node, incident.seconds, lost=self.rng.random())

    async def redis_stop(self, incident: rounds.Incident) -> None:
        await self.redis.stop(incident.node, incident.seconds)

    async def redis_full(self, incident: rounds.Incident) -> None:
        await self.redis.fill(incident.seconds)

    async def redis_slot(self, _incident: rounds.Incident) -> None:
        assert isinstance(self.redis, redises.Cluster)
        user = self.rng.choice(self.ordeal.names)
        await self.redis.move(KEYS.log(user), self.rng)

    async def link_cut(self, node: Node, incident: rounds.Incident) -> None:
        assert node.link is not None
        node.link.cut(incident.seconds)
        await trio.sleep(incident.seconds)

    async def link_stall(self, node: Node, incident: rounds.Incident) -> None:
        assert node.link is not None
        node.link.stall(incident.seconds)
        await trio.sleep(incident.seconds)

    async def link_lost(self, node: Node, incident: rounds.Incident) -> None:
        assert node.namespace is not None
        async with node.changing:  # a node may not be born where there is no network
            node.namespace.drop()
            try:
                await trio.sleep(incident.seconds)
            finally:
                node.namespace.carry()

    async def cut(self, incident: rounds.Incident) -> None:
        cut_clients(self.network, self.ordeal.names, self.rng, incident.seconds)
        await trio.sleep(incident.seconds)

    async def kill_tabs(self, _incident: rounds.Incident) -> None:
        await self.party.kill_tabs()

    # -- the lives of a node

    async def end(self, node: Node, how: signal.Signals, *, drained: bool = False) -> None:
        """End a life; who drains may have ended already."""
        at = trio.current_time()
        node.lives.signal(how)
        status = await node.lives.wait_ended()
        took = trio.current_time() - at
        number = self.nodes.all.index(node)
        self.journal.write("ended", node=number, how=how.name, status=status, took=round(took, 3))
        expected = {0} if how == signal.SIGTERM else {-signal.SIGKILL} | ({0} if drained else set())
        if status not in expected:
            self.journal.write("wrong", what=f"node {number} ended with status {status} after {how.name}")
        if how == signal.SIGTERM and took > GRACE:
            self.journal.write("wrong", what=f"node {number} took {took:.1f} s to end after SIGTERM")

    async def start(self, node: Node) -> None:
        """Begin a life, and wait until it is ready.

        Raises:
          GivenUp: it ends by itself, again and again.
        """
        number = self.nodes.all.index(node)
        for _ in range(ATTEMPTS):
            began = trio.current_time()
            await node.lives.start()
            status = await node.lives.ready_or_ended()
            if status is None:
                self.tally.ready.append(trio.current_time() - began)
                return
            self.journal.write("wrong", what=f"node {number} ended by itself, with status {status}")
            await trio.sleep(1)
        raise GivenUp

    # -- afterwards

    async def heal(self) -> None:
        """Leave all in peace; everything that was accepted must be delivered within the bound."""
        self.journal.write("peace")
        self.tally.healed = await self.party.get_well()
        await self.balance()
        await self.party.leave()
        async with trio.open_nursery() as nursery:
            for node in self.nodes.all:
                nursery.start_soon(self.end, node, signal.SIGTERM)
        await self.kept.look(self.answered.so_far())
        await self.kept.write_down(self.ordeal.names)
        self.tally.answered, self.tally.looks = self.answered.critical, self.kept.looks


async def run(ordeal: Ordeal, tally: Tally) -> None:
    """Do all of it; what happened is in the journals then, and in `tally` meanwhile.

    Cancelled, every process that was started is killed.

    Raises:
      GivenUp: in a group: a node does not start.
    """
    options = [*OPTIONS, "--durability", ordeal.durability, "--redis-wait-replicas", str(ordeal.replicas)]
    rng = random.Random(f"{ordeal.seed}/balancers")
    async with AsyncExitStack() as stack:
        spaces = stack.enter_context(namespaces(ordeal.nodes if ordeal.namespaced else 0))
        form = redises.FORMS[ordeal.topology](ordeal.directory / "redis", ordeal.redis_durability)
        redis: Single = await stack.enter_async_context(form)
        opened = nodes.opened(ordeal.directory, redis, ordeal.nodes, options, rng, spaces)
        cluster = await stack.enter_async_context(opened)
        network = FaultyNetwork(*cluster.ws)
        nursery = await stack.enter_async_context(trio.open_nursery())
        addresses = await nursery.start(network.serve, HERE)
        doing = _Run(ordeal, tally, redis, cluster, network, f"ws://{HERE}:{addresses[0][1]}/ws", nursery)
        try:
            async with trio.open_nursery() as starting:
                for node in cluster.all:
                    starting.start_soon(doing.start, node)
            await doing.party.come()
            await doing.rounds()
            await doing.heal()
        finally:
            doing.party.kill()
            nursery.cancel_scope.cancel()
