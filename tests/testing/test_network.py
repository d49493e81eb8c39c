"""The simulated network: Trio's own checks of streams, time, bounds, and each fault."""

from __future__ import annotations

import errno
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.testing import Conditions, Connection, SimNetwork, SimStream, Trace


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def network(**conditions: Any) -> SimNetwork:
    made = SimNetwork(random.Random(1))
    made.conditions = Conditions(**conditions)
    return made


async def pair(net: SimNetwork, **conditions: Any) -> tuple[SimStream, SimStream, Connection]:
    """The two ends of a new connection, client's first."""
    listener = net.listen("server")
    client = await net.connect("server", conditions=Conditions(**conditions) if conditions else None)
    server = await listener.accept()
    await listener.aclose()
    return client, server, client.connection


async def read_all(stream: SimStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def reset_seen(stream: SimStream) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


@asynccontextmanager
async def takes(seconds: float) -> AsyncIterator[None]:
    """The block takes so much simulated time, and no more."""
    began = trio.current_time()
    yield
    assert trio.current_time() - began == pytest.approx(seconds, abs=1e-9)


# -- Streams, as Trio wants them


@pytest.mark.parametrize(
    "conditions",
    [
        {"latency": 0.0},
        {"latency": 0.5},
        {"latency": 0.01, "jitter": 0.1, "segment": 2000, "capacity": 3000},
        {"latency": 0.01, "rate": 1e5},
    ],
    ids=["instant", "far", "narrow", "slow"],
)
async def test_trio_takes_it_for_a_stream(conditions: dict[str, Any], autojump_clock: MockClock) -> None:
    async def make() -> tuple[SimStream, SimStream]:
        client, server, _ = await pair(network(), **conditions)
        return client, server

    async def make_clogged() -> tuple[SimStream, SimStream]:
        client, server = await make()
        for stream in (client, server):
            with trio.move_on_after(1):
                while True:
                    await stream.send_all(b"x" * 100)
        return client, server

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_bytes_come_as_they_were_sent(autojump_clock: MockClock) -> None:
    data = random.Random(2).randbytes(100_000)
    for segment in (None, 1, 7, 5000):
        client, server, connection = await pair(
            network(), latency=0.01, jitter=0.02, segment=segment, capacity=3000
        )
        got = bytearray()

        async def read(server: SimStream = server, got: bytearray = got) -> None:
            got.extend(await read_all(server))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for start in range(0, 20_000 if segment == 1 else len(data), 977):
                await client.send_all(data[start : start + 977])
            await client.send_eof()
        assert data.startswith(got)
        assert len(got) >= 20_000
        assert connection.up.size == 0


# -- Time and bounds


async def test_a_connection_takes_a_round_trip_and_a_message_half_of_one(autojump_clock: MockClock) -> None:
    net = network(latency=0.25)
    listener = net.listen("server")
    async with takes(0.5):
        client = await net.connect("server")
    async with takes(0):
        server = await listener.accept()
        await client.send_all(b"hello")
    async with takes(0.25):
        assert await server.receive_some() == b"hello"


async def test_jitter_overtakes_nothing(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=0.1, jitter=1.0)
    times = []
    for number in range(50):
        await client.send_all(bytes([number]))
    await client.send_eof()
    got = bytearray()
    while data := await server.receive_some():
        got += data
        times.append(trio.current_time())
    assert list(got) == list(range(50))
    assert len(set(times)) > 3
    assert times[-1] - times[0] < 1.0


async def test_segments_are_of_all_sizes_up_to_the_limit(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), segment=4)
    await client.send_all(b"x" * 400)
    await client.send_eof()
    sizes = [len(data) async for data in server]
    assert set(sizes) == {1, 2, 3, 4}


async def test_time_passes_between_the_segments_of_one_message(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=0.0, jitter=1.0, segment=1)
    await client.send_all(b"xyz")
    assert await server.receive_some() == b"x"
    began = trio.current_time()
    assert await server.receive_some() == b"y"
    assert 0 < trio.current_time() - began < 1


async def test_nobody_is_given_more_than_he_asks_for(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network())
    await client.send_all(b"abcdef")
    await client.send_all(b"ghi")
    await trio.sleep(1)
    assert [await server.receive_some(4), await server.receive_some(4), await server.receive_some(4)] == [
        b"abcd",
        b"efgh",
        b"i",
    ]


async def test_a_rate_spreads_a_transfer_over_its_time(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=0.0, rate=1000.0)
    times = []
    await client.send_all(b"x" * 2000)
    await client.send_eof()
    async with takes(2):
        while await server.receive_some():
            times.append(trio.current_time())
    assert len(times) >= 10


async def test_who_sends_more_than_it_holds_waits_until_it_was_read(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=1.0, capacity=10)
    await client.send_all(b"x" * 10)
    with trio.move_on_after(5) as patience:
        await client.send_all(b"y")
    assert patience.cancelled_caught
    assert connection.up.size == 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"z" * 25)
        await wait_all_tasks_blocked()
        assert connection.up.size == 10
        got = bytearray()
        while len(got) < 35:
            got += await server.receive_some()
            await wait_all_tasks_blocked()
            assert connection.up.size <= 10
    assert got == b"x" * 10 + b"z" * 25


async def test_a_receiver_who_is_cancelled_loses_nothing(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=1.0)
    await client.send_all(b"hello")
    with trio.move_on_after(0.5) as patience:
        await server.receive_some()
    assert patience.cancelled_caught
    assert await server.receive_some() == b"hello"


async def test_arrival_and_cancellation_at_one_instant_lose_nothing(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=1.0)
    got = b""
    await client.send_all(b"hello")
    with trio.move_on_after(1.0):
        got = await server.receive_some()
    assert got or await server.receive_some() == b"hello"


async def test_conditions_may_change_on_the_way(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=1.0, capacity=10)
    connection.set_conditions(Conditions(latency=0.5, capacity=1000), "down")
    async with takes(0.5):
        await server.send_all(b"x" * 500)
        await client.receive_some()
    async with takes(1):
        await client.send_all(b"y")
        await server.receive_some()


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": -1.0},
        {"latency": math.inf},
        {"jitter": -0.1},
        {"segment": 0},
        {"rate": 0.0},
        {"rate": math.nan},
        {"capacity": 0},
    ],
    ids=str,
)
def test_impossible_conditions_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Conditions(**wrong)


# -- Closing


async def test_what_was_sent_before_the_close_arrives(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=1.0)
    await client.send_all(b"last words")
    await client.aclose()
    assert await server.receive_some() == b"last words"
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""


async def test_who_sends_to_the_closed_hears_of_it_a_round_trip_later(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=1.0)
    await server.aclose()
    await client.send_all(b"into the void")
    await trio.sleep(1.9)
    await client.send_all(b"again")
    await trio.sleep(0.2)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_who_closes_without_having_read_resets(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network(), latency=1.0)
    await server.send_all(b"not read yet")
    await client.send_all(b"never read")
    await trio.sleep(5)
    await server.aclose()
    await trio.sleep(1.5)
    await reset_seen(client)


async def test_word_of_a_close_comes_after_a_stall_on_the_way_there(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=1.0)
    await server.aclose()
    connection.stall("up", 20)
    await client.send_all(b"x")
    await trio.sleep(20.5)
    await client.send_all(b"y")
    await trio.sleep(1)
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"z")


async def test_nothing_is_kept_for_who_has_closed(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network())
    await client.send_all(b"x" * 100)
    await server.aclose()
    assert connection.up.size == 0


async def test_half_closed_it_goes_on_in_the_other_direction(autojump_clock: MockClock) -> None:
    client, server, _ = await pair(network())
    await client.send_all(b"a question")
    await client.send_eof()
    assert await read_all(server) == b"a question"
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"x")
    await server.send_all(b"an answer")
    await server.aclose()
    assert await read_all(client) == b"an answer"


async def test_a_connection_is_there_until_both_ends_have_closed_it(autojump_clock: MockClock) -> None:
    net = network()
    client, server, connection = await pair(net)
    assert net.connections == (connection,)
    await client.aclose()
    await client.aclose()
    assert net.connections == (connection,)
    await server.aclose()
    assert net.connections == ()


# -- Faults of one connection


async def test_a_stall_holds_everything_up_for_its_time(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=0.1)
    connection.stall("up", 10)
    async with takes(10):
        await client.send_all(b"late")
        assert await server.receive_some() == b"late"
    async with takes(0.1):
        await server.send_all(b"in time")
        assert await client.receive_some() == b"in time"


async def test_a_stall_for_good_ends_by_word(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=0.1)
    await client.send_all(b"in flight")
    await client.aclose()
    connection.stall()
    with trio.move_on_after(1000) as patience:
        await server.receive_some()
    assert patience.cancelled_caught
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def resume() -> None:
            await trio.sleep(1)
            connection.resume()

        async with takes(1):
            assert await server.receive_some() == b"in flight"
            assert await server.receive_some() == b""


async def test_a_stall_catches_who_waits_already(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=1.0)
    await client.send_all(b"x")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stall() -> None:
            await trio.sleep(0.5)
            connection.stall("both", 4.5)

        async with takes(5):
            assert await server.receive_some() == b"x"


async def test_a_stalled_connection_fills_up_and_no_more(autojump_clock: MockClock) -> None:
    client, _, connection = await pair(network(), capacity=100)
    connection.stall()
    with trio.move_on_after(60):
        while True:
            await client.send_all(b"x" * 30)
    assert connection.up.size == 100


async def test_a_reset_breaks_both_ends_at_once_and_loses_what_is_in_flight(
    autojump_clock: MockClock,
) -> None:
    client, server, connection = await pair(network(), latency=1.0)
    await client.send_all(b"lost")
    connection.reset()
    async with takes(0):
        await reset_seen(client)
        await reset_seen(server)
    assert connection.up.size == connection.down.size == 0


async def test_a_reset_wakes_who_waits(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), capacity=10)

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"x" * 11)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        connection.reset()
    await client.aclose()
    await server.aclose()


async def test_a_reset_comes_through_a_stall_only_when_it_ends(autojump_clock: MockClock) -> None:
    """A peer that dies behind a stalled network is a half-open connection."""
    client, server, connection = await pair(network(), latency=0.1)
    await server.send_all(b"not read")
    connection.stall("both", 20)
    await client.aclose()
    await server.send_all(b"x")
    async with takes(20):
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()


async def test_a_stall_of_both_directions(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), latency=0.1)
    connection.stall("both", 10)
    await client.send_all(b"up")
    await server.send_all(b"down")
    async with takes(10):
        assert await client.receive_some() == b"down"
    async with takes(0):
        assert await server.receive_some() == b"up"


async def test_one_task_at_a_time(autojump_clock: MockClock) -> None:
    client, server, connection = await pair(network(), capacity=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.receive_some)
        nursery.start_soon(client.wait_send_all_might_not_block)
        nursery.start_soon(server.send_all, b"x" * 11)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.receive_some()
        with pytest.raises(trio.BusyResourceError):
            await server.send_all(b"x")
        with pytest.raises(trio.BusyResourceError):
            await server.send_eof()
        nursery.cancel_scope.cancel()
    assert connection.down.size == 10


# -- Listeners, hosts, partitions


async def test_nobody_listens(autojump_clock: MockClock) -> None:
    net = network(latency=0.25)
    async with takes(0.5):
        with pytest.raises(ConnectionRefusedError):
            await net.connect("server")


async def test_a_name_is_listened_under_once_at_a_time(autojump_clock: MockClock) -> None:
    net = network()
    listener = net.listen("server")
    with pytest.raises(OSError, match="taken") as caught:
        net.listen("server")
    assert caught.value.errno == errno.EADDRINUSE
    await listener.aclose()
    net.listen("server")


async def test_a_listener_that_closes_tells_who_waits(autojump_clock: MockClock) -> None:
    net = network()
    listener = net.listen("server")

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        await listener.aclose()


async def test_who_was_not_accepted_is_reset_when_the_listener_closes(autojump_clock: MockClock) -> None:
    net = network()
    listener = net.listen("server")
    client = await net.connect("server")
    await listener.aclose()
    await reset_seen(client)
    await client.aclose()
    assert not net.connections


async def test_the_backlog_is_bounded(autojump_clock: MockClock) -> None:
    net = network()
    listener = net.listen("server")
    clients: list[SimStream] = []

    async def connect() -> None:
        clients.append(await net.connect("server"))

    async with trio.open_nursery() as nursery:
        for _ in range(130):
            nursery.start_soon(connect)
        await trio.sleep(1)
        assert len(clients) == len(net.connections) == 128
        await listener.accept()
        await trio.sleep(1)
        assert len(clients) == 129
        await listener.accept()


async def test_who_gives_up_connecting_closes(autojump_clock: MockClock) -> None:
    net = network(latency=1.0)
    listener = net.listen("server")
    with trio.move_on_after(1.5):
        await net.connect("server")
    server = await listener.accept()
    assert await server.receive_some() == b""
    await server.aclose()
    assert not net.connections


async def test_a_partition_keeps_two_hosts_apart(autojump_clock: MockClock) -> None:
    net = network(latency=0.1)
    listener = net.listen("server")
    ada = await net.connect("server", client="ada")
    bob = await net.connect("server", client="bob")
    to_ada, to_bob = await listener.accept(), await listener.accept()
    net.partition("ada", "server", 10)
    async with takes(0.1):
        await bob.send_all(b"from bob")
        assert await to_bob.receive_some() == b"from bob"
    await ada.send_all(b"from ada")
    await to_ada.send_all(b"to ada")
    async with takes(9.9):
        assert await to_ada.receive_some() == b"from ada"
        assert await ada.receive_some() == b"to ada"


async def test_a_partition_holds_both_directions_up(autojump_clock: MockClock) -> None:
    net = network(latency=0.1)
    client, server, _ = await pair(net)
    for one, other in (("client", "server"), ("server", "client")):
        for sender, receiver in ((client, server), (server, client)):
            net.partition(one, other, 10)
            await sender.send_all(b"x")
            async with takes(10):
                await receiver.receive_some()


async def test_a_partition_one_way(autojump_clock: MockClock) -> None:
    net = network(latency=0.1)
    client, server, _ = await pair(net)
    net.partition("server", "client", one_way=True)
    async with takes(0.1):
        await client.send_all(b"x")
        await server.receive_some()
    await server.send_all(b"y")
    with trio.move_on_after(100) as patience:
        await client.receive_some()
    assert patience.cancelled_caught


async def test_connecting_waits_until_a_partition_is_healed(autojump_clock: MockClock) -> None:
    net = network(latency=0.1)
    net.listen("server")
    net.partition("client", "server")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def heal() -> None:
            await trio.sleep(7)
            net.heal()

        async with takes(7.2):
            await net.connect("server")


async def test_healing_leaves_stalls_alone(autojump_clock: MockClock) -> None:
    net = network(latency=0.1)
    client, server, connection = await pair(net)
    connection.stall()
    net.partition("client", "server")
    net.heal()
    await client.send_all(b"x")
    with trio.move_on_after(10) as patience:
        await server.receive_some()
    assert patience.cancelled_caught


async def test_several_ports_of_one_host(autojump_clock: MockClock) -> None:
    net = network()
    net.listen("server:80")
    net.listen("server:81")
    assert (await net.connect("server:81")).connection.server == "server"
    net.partition("client", "server")
    with trio.move_on_after(5) as patience:
        await net.connect("server:80")
    assert patience.cancelled_caught


# -- What is told of it


async def test_connections_keep_their_order_and_are_announced(autojump_clock: MockClock) -> None:
    net = network()
    announced: list[Connection] = []
    net.on_connect = announced.append
    listener = net.listen("server")
    for number in range(5):
        await net.connect("server", client=f"host{number}")
        await listener.accept()
    assert list(net.connections) == announced
    assert [connection.number for connection in announced] == [1, 2, 3, 4, 5]
    assert repr(announced[0]) == "<connection 1 from host0 to server>"
    await announced[1].client_stream.aclose()
    await announced[1].server_stream.aclose()
    assert [connection.number for connection in net.connections] == [1, 3, 4, 5]


async def test_faults_are_counted_and_traced(autojump_clock: MockClock) -> None:
    trace = Trace(trio.current_time)
    net = SimNetwork(random.Random(1), trace=trace)
    _, _, connection = await pair(net)
    connection.stall("up")
    connection.stall("down", 5)
    connection.resume()
    net.partition("a", "b")
    net.heal()
    connection.reset()
    assert net.faults == {"stall": 2, "partition": 1, "reset": 1}
    assert [line.split()[1] for line in trace.lines] == [
        "connect",
        "stall",
        "stall",
        "resume",
        "partition",
        "heal",
        "reset",
    ]


async def test_the_hash_covers_each_byte_and_where_it_went(autojump_clock: MockClock) -> None:
    async def run(*sent: tuple[str, bytes]) -> str:
        net = network()
        client, server, _ = await pair(net)
        for side, data in sent:
            await (client if side == "up" else server).send_all(data)
        assert net.bytes_sent == sum(len(data) for _, data in sent)
        return net.hash

    hashes = [
        await run(("up", b"ab")),
        await run(("up", b"ac")),
        await run(("down", b"ab")),
        await run(("up", b"a"), ("up", b"b")),
        await run(),
    ]
    assert len(set(hashes)) == len(hashes)
    assert await run(("up", b"ab")) == hashes[0]


async def test_what_is_done_to_one_connection_does_not_change_another(autojump_clock: MockClock) -> None:
    async def times(disturbed: bool) -> list[float]:
        net = network(latency=0.1, jitter=1.0)
        listener = net.listen("server")
        one = await net.connect("server")
        other = await net.connect("server")
        await listener.accept()
        end = await listener.accept()
        began = trio.current_time()
        seen = []
        for _ in range(10):
            if disturbed:
                await one.send_all(b"x")
            await other.send_all(b"y")
            await end.receive_some()
            seen.append(trio.current_time() - began)
        return seen

    assert await times(False) == pytest.approx(await times(True), abs=1e-9)


async def test_each_connection_has_its_own_chance(autojump_clock: MockClock) -> None:
    net = network(latency=0.0, jitter=1.0)
    listener = net.listen("server")
    travelled = []
    for _ in range(2):
        client = await net.connect("server")
        server = await listener.accept()
        began = trio.current_time()
        await client.send_all(b"x")
        await server.receive_some()
        travelled.append(trio.current_time() - began)
    assert abs(travelled[0] - travelled[1]) > 1e-6
