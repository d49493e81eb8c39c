"""The programs of docs/publisher.md, against frameworks and a model that are a few lines each."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from tests.publisher.fake import Fake
from trio_ws.publisher import AsyncPublisher, Publisher

PAGE = Path(__file__).resolve().parents[2] / "docs" / "publisher.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Words:
    """A model that writes two words, for those who await them and those who don't."""

    def __init__(self, question: str) -> None:
        self._words = iter([question, "indeed"])

    def __iter__(self) -> Words:
        return self

    def __next__(self) -> str:
        return next(self._words)

    def __aiter__(self) -> Words:
        return self

    async def __anext__(self) -> str:
        for word in self._words:
            return word
        raise StopAsyncIteration


MODEL = SimpleNamespace(stream=Words)


def program(word: str) -> str:
    [found] = [text for text in PROGRAMS if word in text]
    return found


def written(fake: Fake) -> str:
    return "".join(payload["text"] for payload in fake.payloads("agent_delta"))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asgi_example(backend: str) -> None:
    fake, routes = Fake(), {}

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(fake)) as client:

            def post(path: str) -> Any:
                return lambda function: routes.setdefault(path, function)

            names = {"AsyncPublisher": partial(AsyncPublisher, client=client), "KEY": "k", "model": MODEL}
            exec(program("@app.post"), {**names, "app": SimpleNamespace(post=post)})
            await routes["/ask/{user}"](user="ada", question="why ")

    anyio.run(main, backend=backend)
    [run] = fake.runs.values()
    assert (run["user"], run["opened"]["input"]) == ("ada", "why ")
    assert run["closed"] == {"outcome": "completed"}
    assert written(fake) == "why indeed"


def test_the_wsgi_example() -> None:
    fake = Fake()
    with httpx.Client(transport=httpx.MockTransport(fake)) as client:
        names = {
            "Publisher": partial(Publisher, client=client),
            "KEY": "k",
            "model": MODEL,
            "HttpResponse": str,
        }
        exec(program("HttpResponse"), names)
        request = SimpleNamespace(user=SimpleNamespace(username="ada"), POST={"question": "why "})
        assert names["ask"](request) == "completed"  # type: ignore[operator]
    assert written(fake) == "why indeed"


def test_the_other_examples() -> None:
    fake = Fake()
    fake.answers = [{"state": "answered", "answer": "yes"}]
    with httpx.Client(transport=httpx.MockTransport(fake)) as client:
        publisher = Publisher("http://server.test", client=client)
        exec(program("publish_many"), {"publisher": publisher, "users": ["ada", "bob"]})
        exec(program("run.think"), {"publisher": publisher})
    assert fake.types().count("note") == 3
    assert written(fake) == "All three say the same."
    assert [run["closed"]["outcome"] for run in fake.runs.values()] == ["completed", "completed"]
