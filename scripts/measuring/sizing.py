"""What so many connected users need: nodes, cores, memory, shards of Redis, network. docs/sizing.md explains it.

    scripts/sizing [--users 1000000] [--connections 1.2] [--runs 6] [--critical 10] [--others 100] [--payload 300] …

A calculation, not a measurement: what a connection, an event and a heartbeat cost was measured (`MEASURED`), how people
and agents behave is assumed (`Load`; each field is an option), and how full things may be is policy (`Policy`).
"""

from __future__ import annotations

import argparse
import math
from typing import Any, Final

import attrs

KIB: Final = 1024
GIB: Final = 1024**3


@attrs.frozen(kw_only=True)
class Measured:
    """What things cost, on the machine of docs/performance.md, uncompiled; the command behind each."""

    process_bytes: float = 80e6  # scripts/measure memory, and the histories of the dashboard
    connection_bytes: float = 11.2 * KIB  # scripts/bench --scenarios D
    socket_bytes: float = 3.7 * KIB  # of the kernel's, for a socket that is idle: Slab in /proc/meminfo
    user_bytes: float = 1.2 * KIB  # scripts/measure memory
    event_bytes: float = 600  # the same, beside 1.1 times the payload
    connect_us: float = 170  # scripts/bench --scenarios D
    heartbeat_us: float = 41  # scripts/bench quiet: a ping and its pong
    event_us: float = (
        200  # scripts/bench cluster, 3 nodes: accepted by one, forwarded, committed, delivered, acked
    )
    relayed_us: float = 30  # scripts/measure cluster: an event to a connection of another node, more, in both
    redis_event_us: float = 45  # scripts/bench cluster, 3 nodes: Redis, with appendfsync always
    redis_event_bytes: float = 500  # the same: its memory, for an event of 300 bytes
    redis_in_bytes: float = 1470  # the same: to Redis, for such an event
    redis_out_bytes: float = 420  # and from it
    redis_user_bytes: float = (
        900  # scripts/measure redis-store: a log and a session, and what lists have of a user
    )
    look_us: float = 1.5  # the same: a node looks each 2 s whether a log is still its own
    redis_look_us: float = 0.8  # and Redis answers


MEASURED: Final = Measured()


@attrs.frozen(kw_only=True)
class Load:
    """How people and agents behave.

    Attributes:
      users: connected at once.
      connections: tabs and devices of a user.
      runs: of agents, for each user, an hour.
      run_seconds: how long a run lasts.
      critical: critical events of a run.
      others: its other events, after deltas were joined.
      payload: bytes of an event's payload.
      held: seconds for which an event is kept (`event_ttl`).
      most_held: events of one user (`max_events_per_user`).
      away: users who are not connected, for each one that is, and whose log and sessions are kept.
    """

    users: float = 1_000_000
    connections: float = 1.2
    runs: float = 6
    run_seconds: float = 60
    critical: float = 10
    others: float = 100
    payload: float = 300
    held: float = 180
    most_held: float = 200
    away: float = 0.2


@attrs.frozen(kw_only=True)
class Policy:
    """How full things may be.

    Attributes:
      busy: how much of a core a node, or Redis, may use on average.
      most_connections: of one node; what comes to the others when it goes.
      most_redis_bytes: of one shard, half of which a rewrite of its file may take besides.
      heartbeat_active, heartbeat_idle: seconds, as configured; 30 s after an event a user is idle.
    """

    busy: float = 0.5
    most_connections: float = 20_000
    most_redis_bytes: float = 8 * GIB
    heartbeat_active: float = 2
    heartbeat_idle: float = 25


@attrs.frozen(kw_only=True)
class Need:
    """What it takes; of all nodes together, unless it says otherwise."""

    events: float  # a second
    heartbeats: float  # a second
    event_cores: float
    relay_cores: float
    heartbeat_cores: float
    look_cores: float
    nodes: int
    node_connections: float
    node_bytes: float
    redis_cores: float
    redis_bytes: float
    shards: int
    client_bits: float  # a second, both ways
    redis_bits: float
    wave_seconds: float  # of the CPU of each other node, when one goes


def need(load: Load, policy: Policy = Policy(), measured: Measured = MEASURED) -> Need:
    """What `load` takes."""
    of_a_run = load.critical + load.others
    events = load.users * load.runs * of_a_run / 3600
    connections = load.users * load.connections

    # A user is active from a run's beginning to 30 s after its end; while events flow they stand for heartbeats.
    active = min(1.0, load.runs * (load.run_seconds + 30) / 3600)
    heartbeats = connections * (active / policy.heartbeat_active + (1 - active) / policy.heartbeat_idle)

    event_cores = events * measured.event_us / 1e6
    heartbeat_cores = heartbeats * measured.heartbeat_us / 1e6
    # A user's log is where the first of the connections is; each other one is somewhere else, of many nodes.
    relay_cores = events * (load.connections - 1) * measured.relayed_us / 1e6
    look_cores = load.users / 2 * measured.look_us / 1e6
    cores = (event_cores + heartbeat_cores + relay_cores + look_cores) / policy.busy
    nodes = max(2, math.ceil(cores), math.ceil(connections / policy.most_connections)) + 1  # one may be away

    held = min(events * load.held, load.users * load.most_held)
    event_bytes = measured.event_bytes + 1.1 * load.payload
    node_bytes = measured.process_bytes + (
        connections * (measured.connection_bytes + measured.socket_bytes)
        + load.users * (1 + load.away) * measured.user_bytes
        + held * event_bytes
    ) / (nodes - 1)

    redis_cores = (events * measured.redis_event_us + load.users / 2 * measured.redis_look_us) / 1e6
    larger = load.payload - 300
    redis_bytes = held * (measured.redis_event_bytes + larger)
    redis_bytes += load.users * (1 + load.away) * measured.redis_user_bytes
    shards = max(
        1,
        math.ceil(redis_cores / policy.busy),
        math.ceil(redis_bytes / policy.most_redis_bytes),
    )
    # An event, its ack, and what TCP and IP put around each; a heartbeat is a ping and a pong.
    on_wire = (load.payload + 150 + 66) + (40 + 66) / 8
    client_bits = 8 * (events * load.connections * on_wire + heartbeats * 2 * (50 + 66))
    redis_bits = 8 * events * (measured.redis_in_bytes + measured.redis_out_bytes + 3 * larger)
    return Need(
        events=events,
        heartbeats=heartbeats,
        event_cores=event_cores,
        relay_cores=relay_cores,
        heartbeat_cores=heartbeat_cores,
        look_cores=look_cores,
        nodes=nodes,
        node_connections=connections / (nodes - 1),
        node_bytes=node_bytes,
        redis_cores=redis_cores,
        redis_bytes=redis_bytes,
        shards=shards,
        client_bits=client_bits,
        redis_bits=redis_bits,
        wave_seconds=connections / (nodes - 1) * measured.connect_us / 1e6 / (nodes - 1),
    )


def described(found: Need) -> list[tuple[str, str]]:
    """What it takes, in words and figures."""
    busy = found.event_cores + found.relay_cores + found.heartbeat_cores + found.look_cores
    return [
        ("events a second", f"{found.events:,.0f}"),
        ("heartbeats a second", f"{found.heartbeats:,.0f}"),
        ("cores that nodes keep busy", f"{busy:,.1f}"),
        ("… of these with events", f"{found.event_cores:,.1f}"),
        ("… with relays", f"{found.relay_cores:,.1f}"),
        ("… with heartbeats", f"{found.heartbeat_cores:,.1f}"),
        ("… with looking whether logs are theirs", f"{found.look_cores:,.1f}"),
        ("nodes, each of one core, one to spare", f"{found.nodes:,}"),
        ("connections of a node", f"{found.node_connections:,.0f}"),
        ("memory of a node", f"{found.node_bytes / KIB**2:,.0f} MiB"),
        ("memory of all nodes", f"{found.nodes * found.node_bytes / GIB:,.1f} GiB"),
        ("cores that Redis keeps busy", f"{found.redis_cores:,.1f}"),
        ("what Redis holds", f"{found.redis_bytes / GIB:,.1f} GiB"),
        ("shards of Redis", f"{found.shards:,}"),
        ("network to and from clients", f"{found.client_bits / 1e9:,.2f} Gbit/s"),
        ("network to and from Redis", f"{found.redis_bits / 1e9:,.2f} Gbit/s"),
        ("CPU of each node, when one goes", f"{found.wave_seconds * 1e3:,.0f} ms"),
    ]


COLUMNS: Final = (0, 2, 7, 10, 11, 12, 13, 14)
"""Of `described`, what the table of several loads has."""

LOADS: Final = tuple(
    (f"{users:,} users, {name}", Load(users=users, runs=runs))
    for users in (10_000, 100_000, 1_000_000)
    for name, runs in (("a run an hour", 1.0), ("6", 6.0), ("60: always one", 60.0))
)


def tables() -> tuple[str, str]:
    """For docs/sizing.md: what `Load` takes, and what others take."""
    first = ["| | |", "|---|---:|"] + [f"| {what} | {figure} |" for what, figure in described(need(Load()))]
    rows = [(name, described(need(load))) for name, load in LOADS]
    heads = [rows[0][1][column][0] for column in COLUMNS]
    second = ["| " + " | ".join(["", *heads]) + " |", "|---|" + "---:|" * len(heads)]
    for name, figures in rows:
        second.append("| " + " | ".join([name, *(figures[column][1] for column in COLUMNS)]) + " |")
    return "\n".join(first), "\n".join(second)


def main() -> None:
    """Reads the options, and prints."""
    parser = argparse.ArgumentParser(
        prog="scripts/sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind in (Load, Policy):
        for field in attrs.fields(kind):
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/sizing.md")
    given: dict[str, Any] = vars(parser.parse_args())
    if given["tables"]:
        print("\n\n".join(tables()))
        return
    load = Load(**{field.name: given[field.name] for field in attrs.fields(Load)})
    policy = Policy(**{field.name: given[field.name] for field in attrs.fields(Policy)})
    for what, figure in described(need(load, policy)):
        print(f"{what:40} {figure}")


if __name__ == "__main__":
    main()
