"""Both clients pass every vector, on time that is virtual; and some over real sockets, as another language's would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from .__main__ import hold
from .clients import trio_client
from .node import NodeWorld
from .referee import Failure, Referee
from .streams import in_memory
from .vectors import FILES, HERE, load

VECTORS = load()


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture(scope="module")
def node() -> Iterator[NodeWorld]:
    try:
        world = NodeWorld()
    except FileNotFoundError:
        pytest.skip("no node here: client.js was NOT held against the vectors; install Node 20 or later")
    with world:
        yield world


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
async def test_the_trio_client(vector: Any, clock: MockClock) -> None:
    failed = None
    async with in_memory(trio_client.run, vector.get("client", {})) as world:
        try:
            await Referee(vector, world).play()
        except Failure as failure:
            failed = str(failure)
    assert failed is None, failed


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_client_js(vector: Any, node: NodeWorld) -> None:
    node.begin(vector.get("client", {}))
    trio.run(Referee(vector, node).play)


def test_they_are_what_their_schema_says() -> None:
    from jsonschema_rs import validator_for

    schema = validator_for(json.loads((HERE / "schema.json").read_text()))
    for file in FILES:
        schema.validate(json.loads(file.read_text()))


def test_the_readme_tells_of_every_step() -> None:
    told = (HERE / "README.md").read_text()
    schema = json.loads((HERE / "schema.json").read_text())
    steps = [step["$ref"].rpartition("/")[2] for step in schema["$defs"]["step"]["oneOf"]]
    assert all(f'{{"{step}": ' in told for step in steps)
    assert all(hasattr(Referee, f"_step_{step}") for step in steps)


COMMANDS = {
    "client.js": ["node", "--experimental-websocket", str(HERE / "clients" / "client_js.mjs")],
    "the Trio client": [sys.executable, "-m", "tests.conformance.clients.trio_client"],
}


def node_has_websockets(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command[:2], "-e", "0"], capture_output=True, check=False).returncode == 0


@pytest.mark.integration
@pytest.mark.parametrize("client", COMMANDS)
async def test_over_sockets(client: str) -> None:
    command = COMMANDS[client]
    if client == "client.js" and not node_has_websockets(command):
        pytest.skip(
            "no Node with WebSockets: client.js was NOT tested over sockets; install Node 20 or later"
        )
    some = {name: VECTORS[name] for name in list(VECTORS)[::12]}
    assert len(some) > 10
    assert await hold(command, some) == {}


@pytest.mark.integration
async def test_a_client_that_does_nothing_fails_over_sockets() -> None:
    name = "hello: the first frame is a hello that asks for all that is held"
    vector = {**VECTORS[name], "steps": [{"connect": "accept", "after": [0, 0.1]}]}
    failures = await hold([sys.executable, "-c", "print('{\"ready\": true}'); input()"], {name: vector})
    assert "no sign of a connection" in failures[name]
