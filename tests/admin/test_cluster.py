"""All nodes as one: figures put together, users listed, a stream of it; who does not answer is named."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_ws.admin.cluster import TIMEOUT
from trio_ws.admin.cluster_sampler import KEPT_FOR, ClusterSampler, Growth
from trio_ws.admin.connection import Connection, hypercorn_config
from trio_ws.admin.sampler import COLUMNS
from trio_ws.config import Config
from trio_ws.hub.elsewhere import HttpAnswer, HttpCall, NoAnswer

from .nodes import Nodes, open_nodes
from .test_cluster_batch import Make, note, post
from .test_stream import Watcher

STATS = "/v1/stats?scope=cluster"


def without(*nodes: str) -> Any:
    """A bus that these nodes don't answer on: some say so, and some are silent."""

    async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
        if node in nodes:
            if node < "c":
                raise NoAnswer
            await trio.sleep_forever()
        return await make()

    return carry


async def play(nodes: Nodes, *users: str) -> None:
    """Have each node know some users, who have processed what they were sent."""
    for at, user in enumerate(users):
        nodes.owners[user] = "abc"[at % 3]
    await post(nodes, *[note(user, type="agent_started") for user in users])
    for user, node in nodes.owners.items():
        with nodes.hubs[node].subscribe(user) as tab:
            await tab.receive()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tab.receive)  # which says that the first is processed
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()


async def stats(client: httpx.AsyncClient, path: str = STATS) -> dict[str, Any]:
    response = await client.get(path)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_figures_of_all_nodes_from_any_of_them() -> None:
    async with open_nodes(config=Config(max_connections=7)) as nodes:
        await play(nodes, "ann", "bob", "cyd", "dan")
        for client in nodes.clients.values():
            told = await stats(client)
            assert told["delivery"]["events_accepted"] == 4
            assert told["delivery"]["messages_confirmed"] == 4
            assert told["users"] == 4
            assert (
                told["cluster"] | {"owned": 4, "nodes": 3, "missing": 0, "suspended": False}
                == told["cluster"]
            )
            by_node = {line["node"]: line for line in told["nodes"]}
            assert [(line["state"], line["users"], line["accepted"]) for line in by_node.values()] == [
                ("serving", 2, 2),
                ("serving", 1, 1),
                ("serving", 1, 1),
            ]
            assert by_node["a"] | {"name": "node a", "address": None, "left": 2.0} == by_node["a"]
            own = await stats(client, "/v1/stats?scope=node")
            assert own.keys() == (await stats(client, "/v1/stats")).keys()
            assert "nodes" not in own
            assert set(own["cluster"]) | {"missing"} == set(told["cluster"])


async def test_who_does_not_answer_in_time_is_missing(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        await play(nodes, "ann", "bob", "cyd")
        nodes.carry = without("b", "c")
        begun = trio.current_time()
        told = await stats(nodes.clients["a"])
        assert trio.current_time() - begun == pytest.approx(TIMEOUT)
        assert told["delivery"]["events_accepted"] == 1
        assert told["cluster"]["missing"] == 2
        assert [(line["state"], line["users"]) for line in told["nodes"]] == [
            ("serving", 1),
            ("missing", None),
            ("missing", None),
        ]
        found = (await nodes.clients["a"].get("/v1/users")).json()
        assert ([user["user"] for user in found["users"]], found["missing"]) == (["ann"], ["b", "c"])


async def test_users_of_all_nodes_by_name() -> None:
    async with open_nodes() as nodes:
        await play(nodes, *[f"user{n}" for n in range(9)], "zoe")
        for client in nodes.clients.values():
            found = (await client.get("/v1/users?prefix=user&limit=5")).json()
            assert [user["user"] for user in found["users"]] == [f"user{n}" for n in range(5)]
            assert (found["more"], found["missing"]) == (True, [])
            found = (await client.get("/v1/users")).json()
            assert (len(found["users"]), found["more"]) == (10, False)


async def test_what_is_no_scope(open_api: Any) -> None:
    async with open_nodes() as nodes, open_api() as (_, alone):
        for client, path in [
            (nodes.clients["a"], "/v1/stats?scope=all"),
            (nodes.clients["a"], "/v1/stats?scop=cluster"),
            (alone, STATS),
        ]:
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid"), path
        assert (await alone.get("/v1/stats?scope=node")).status_code == 200
        # What nodes tell each other is for nobody else.
        for client in (alone, nodes.clients["a"]):
            assert (await client.get("/v1/share")).status_code == 404


async def test_metrics_of_all_nodes_are_told_apart(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        await play(nodes, "ann", "bob", "cyd", "dan")
        nodes.about["b"] = b"{}"
        nodes.carry = without("c")
        for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
            response = await nodes.clients["a"].get("/metrics?scope=cluster", headers={"accept": accept})
            parse = parse_openmetrics if "openmetrics" in response.headers["content-type"] else parse_text
            families = {family.name: family for family in parse(response.text)}
            told = {
                name: {
                    sample.labels["node"]: sample.value
                    for sample in families[name].samples
                    if "_total" in sample.name
                }
                for name in ("trio_ws_events_accepted", "process_cpu_seconds")
            }
            assert told["trio_ws_events_accepted"] == {"node a": 2, "b": 1}
            assert told["process_cpu_seconds"].keys() == {"node a", "b"}
            answered = families["trio_ws_cluster_answered"].samples
            assert {sample.labels["node"]: sample.value for sample in answered} == {
                "node a": 1,
                "b": 1,
                "node c": 0,
            }
            buckets = [
                s for s in families["trio_ws_confirmation_seconds"].samples if s.labels.get("le") == "+Inf"
            ]
            assert sorted(bucket.value for bucket in buckets) == [1, 2]
        own = await nodes.clients["a"].get("/metrics")
        assert "node=" not in own.text
        nodes.about["b"] = b'{"name":"node a"}'
        both = (await nodes.clients["a"].get("/metrics?scope=cluster")).text
        assert 'trio_ws_cluster_users_owned{node="node a/a"}' in both
        assert 'trio_ws_cluster_users_owned{node="node a/b"}' in both


async def test_states_of_nodes_and_a_suspended_one_is_not_ready() -> None:
    async with open_nodes() as nodes:
        nodes.clusters["a"].suspended = True
        nodes.hubs["b"].engine.draining = True
        told = await stats(nodes.clients["c"])
        assert [line["state"] for line in told["nodes"]] == ["suspended", "draining", "serving"]
        assert (told["draining"], told["cluster"]["suspended"]) == (False, True)
        nodes.carry = without("b", "c")
        told = await stats(nodes.clients["a"])  # which can't ask, and so can't say that they don't answer
        assert [line["state"] for line in told["nodes"]] == ["suspended", "unknown", "unknown"]
        ready = await nodes.clients["a"].get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "store_unavailable")
        assert (await nodes.clients["c"].get("/readyz")).status_code == 200
        nodes.hubs["b"].engine.draining = False


async def test_a_node_that_is_missing_for_a_while_makes_no_curve_fall_or_leap(
    autojump_clock: MockClock,
) -> None:
    async with open_nodes() as nodes, trio.open_nursery() as nursery:
        await play(nodes, "ann", "bob", "cyd")
        sampler = ClusterSampler(nodes.hubs["a"])
        nursery.start_soon(sampler.run)
        async with sampler.watched_by_one():
            for second in range(6):
                await trio.sleep(1)
                nodes.carry = without("b") if second in (2, 3) else without()
                for hub, user in zip(nodes.hubs.values(), ("ann", "bob", "cyd"), strict=True):
                    hub.publish_nowait(user, "note", None)
            await trio.sleep(1.5)
            _, opening = sampler.opening(history=True)
        rows = json.loads(opening.split(b"data: ")[1])["rows"]
        accepted = [row[COLUMNS.index("accepted")] for row in rows]
        assert min(accepted) >= 0
        assert sum(accepted) == 18
        assert max(accepted) <= 2 + 3
        nursery.cancel_scope.cancel()


async def test_the_cluster_is_sampled_only_while_somebody_watches(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes, trio.open_nursery() as nursery:
        sampler = ClusterSampler(nodes.hubs["a"])
        nursery.start_soon(sampler.run)
        await trio.sleep(10)
        assert not nodes.calls
        async with sampler.watched_by_one():
            place, opening = sampler.opening(history=False)
            assert json.loads(opening.removeprefix(b"data: "))["cluster"]["nodes"] == 3
            await sampler.following(place, points=True)
        await trio.sleep(2 * KEPT_FOR)
        calls = len(nodes.calls)
        assert calls <= 2 * (KEPT_FOR + 3)
        await trio.sleep(KEPT_FOR)
        assert len(nodes.calls) == calls
        async with sampler.watched_by_one():
            await sampler.following(sampler.opening(history=False)[0], points=False)
        assert len(nodes.calls) > calls
        nursery.cancel_scope.cancel()


async def test_the_stream_of_the_cluster(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes, trio.open_nursery() as nursery:
        await play(nodes, "ann", "bob", "cyd", "dan")
        for query in ("scope=x", "scope=cluster&history=maybe", "scop=cluster"):
            assert (await nodes.clients["a"].get(f"/v1/stream?{query}")).status_code == 422
        ours, theirs = memory_stream_pair()
        nursery.start_soon(Connection(theirs, nodes.apps["a"], hypercorn_config()).run)
        await ours.send_all(b"GET /v1/stream?history=true&scope=cluster HTTP/1.0\r\nhost: x\r\n\r\n")
        watcher = Watcher(ours)
        await watcher.until(b"\r\n\r\n")
        name, history = await watcher.event()
        assert (name, history["limits"]["max_connections"]) == ("history", 300)
        assert sum(history["distributions"]["confirmation"]) == 4
        for second in range(3):
            name, told = await watcher.event()
            assert (name, told["delivery"]["events_accepted"]) == ("message", 4 + second)
            nodes.hubs["b"].publish_nowait("bob", "note", None)
            name, point = await watcher.event()
            assert (name, point["row"][COLUMNS.index("accepted")]) == ("point", 1)
        nursery.cancel_scope.cancel()


def test_growth_is_of_nodes_that_are_there() -> None:
    growth = Growth()
    growth.add({})
    growth.keep(set())
    assert set(growth.counted.values()) == {0}


@pytest.mark.parametrize("about", [b"", b"[1]", b'{"name": 7}', b'{"name": "x", "more": {}}'])
async def test_what_a_node_says_of_itself_may_be_anything(about: bytes) -> None:
    async with open_nodes() as nodes:
        nodes.about["b"] = about
        lines = {line["node"]: line for line in (await stats(nodes.clients["a"]))["nodes"]}
        assert lines["b"]["name"] == ("x" if b'"x"' in about else None)


async def test_the_description_is_true_of_a_node() -> None:
    async with open_nodes(issue_ticket=lambda user, ttl: (user, ttl)) as nodes:
        client = nodes.clients["a"]
        described = (await client.get("/openapi.json")).json()
        figures = described["components"]["schemas"]["Figures"]["properties"]
        told = await stats(client)
        assert told.keys() == figures.keys()
        assert told["cluster"].keys() == figures["cluster"]["properties"].keys()
        node = figures["nodes"]["items"]
        assert all(
            line.keys() == node["properties"].keys() == set(node["required"]) for line in told["nodes"]
        )
        users = described["components"]["schemas"]["Users"]["properties"]
        assert (await stats(client, "/v1/users")).keys() == users.keys()
        paths = described["paths"]
        for path, operations in paths.items():
            for operation in operations.values():
                assert ("503" in operation["responses"]) or not path.startswith("/v1/users/"), path
        assert "503" in paths["/v1/tickets"]["post"]["responses"]
        scopes = {parameter["name"]: parameter for parameter in paths["/v1/stats"]["get"]["parameters"]}
        assert scopes["scope"]["schema"]["enum"] == ["node", "cluster"]
