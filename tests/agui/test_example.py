"""The examples of docs/agui.md, from an agent that speaks AG-UI over HTTP to pages that do."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import ag_ui.core as agui
import httpx
import pytest
import trio
from ag_ui.encoder import EventEncoder

from trio_ws.adapters.agui import sse

from ..npm import MODULES, need_packages, run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "agui"
CLIENT = ROOT / "trio_ws" / "admin" / "static"
pytestmark = pytest.mark.integration


class Agent(BaseHTTPRequestHandler):
    """An agent of AG-UI, as its own package words it; in run r2 it fails."""

    def do_POST(self) -> None:
        asked = agui.RunAgentInput.model_validate_json(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in self.events(asked):
            self.wfile.write(EventEncoder().encode(event).encode())

    def events(self, asked: agui.RunAgentInput) -> Iterator[Any]:
        ids = {"thread_id": asked.thread_id, "run_id": asked.run_id}
        yield agui.RunStartedEvent(**ids)
        if asked.run_id == "r2":
            yield agui.RunErrorEvent(message="no more money", code="quota")
            return
        yield agui.ToolCallStartEvent(tool_call_id="x1", tool_call_name="search")
        yield agui.ToolCallArgsEvent(tool_call_id="x1", delta='{"q":"the question"}')
        yield agui.ToolCallEndEvent(tool_call_id="x1")
        yield agui.ToolCallResultEvent(
            tool_call_id="x1", message_id="o1", content="all about it", role="tool"
        )
        yield agui.TextMessageStartEvent(message_id="m1", role="assistant")
        for word in ("The answer ", "is ", "42."):
            yield agui.TextMessageContentEvent(message_id="m1", delta=word)
        yield agui.TextMessageEndEvent(message_id="m1")
        yield agui.RunFinishedEvent(**ids, result={"answer": 42})

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def agent() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/agent"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with all that it imports in one file."""
    if shutil.which("node") is None:
        pytest.skip("no node here: the example of an AG-UI page was NOT tried; install Node 20 or later")
    need_packages()
    bundle = tmp_path_factory.mktemp("page") / "page.mjs"
    run(
        MODULES / ".bin" / "esbuild",
        Path(__file__).parent / "page.mjs",
        "--bundle",
        "--platform=node",
        "--format=esm",
        f"--alias:trio-ws-client/agui={CLIENT / 'agui.js'}",
        f"--alias:@ag-ui/client={MODULES / '@ag-ui/client/dist/index.mjs'}",
        f"--alias:rxjs={MODULES / 'rxjs'}",
        f"--outfile={bundle}",
        cwd=MODULES,
    )
    return bundle


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# An answer that is left before its end is closed by httpx, but for a generator within.
@pytest.mark.filterwarnings(
    "ignore:.*_receive_response_body", "ignore::pytest.PytestUnraisableExceptionWarning"
)
async def test_from_an_agent_to_pages(agent: str, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, gateway = example("backend"), example("gateway")
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(backend.serve, agent, port=0))
        url = f"ws://{host}:{port}/ws"
        with trio.fail_after(60):
            done = await trio.run_process(
                ["node", "--experimental-websocket", "--no-warnings", page, url], capture_stdout=True
            )
        shown = json.loads(done.stdout)
        monkeypatch.setattr(gateway, "URL", url)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway.app), base_url="http://gateway"
        ) as client:
            answer = await client.get("/runs/r1", headers={"X-User": "ada"})
        nursery.cancel_scope.cancel()

    call = {"name": "search", "arguments": '{"q":"the question"}'}
    told = [
        {"id": "x1", "role": "assistant", "toolCalls": [{"id": "x1", "type": "function", "function": call}]},
        {"id": "o1", "role": "tool", "toolCallId": "x1", "content": "all about it"},
        {"id": "m1", "role": "assistant", "content": "The answer is 42."},
    ]
    assert shown["result"] == {"answer": 42}
    assert bare(shown["messages"])[:4] == [
        {"id": "u1", "role": "user", "content": "What is the answer?"},
        *told,
    ]
    assert bare(shown["late"]) == told
    assert shown["failure"] == "no more money"
    again = [event async for event in sse(lines(answer.text))]
    assert [event["type"] for event in again if event["type"].startswith("RUN_")] == [
        "RUN_STARTED",
        "RUN_FINISHED",
    ]


def bare(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in m.items() if key != "metadata"} for m in messages]


async def lines(text: str) -> Any:
    for line in text.split("\n"):
        yield line
