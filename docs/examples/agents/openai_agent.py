"""An agent of the OpenAI Agents SDK whose work a user watches. Its model is scripted, so that it runs offline.

pip install 'trio-ws[publisher]' openai-agents
trio-ws serve --insecure & trio-ws tail ada &
python openai_agent.py http://127.0.0.1:8766
"""

import asyncio
import sys
from typing import Any

from agents import Agent, Model, Runner, function_tool, set_tracing_disabled
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseTextDeltaEvent,
)

from trio_ws.adapters import Run, openai_agents
from trio_ws.publisher import AsyncPublisher

set_tracing_disabled(True)


class ScriptedModel(Model):
    """Thinks, asks for a search, and answers when it has its result."""

    async def get_response(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, system_instructions: Any, input: Any, *args: Any, **more: Any) -> Any:
        place = {"item_id": "i1", "output_index": 0, "sequence_number": 0}
        if input[-1].get("type") == "function_call_output":
            for words in ("The answer ", "is 42."):
                yield ResponseTextDeltaEvent(
                    type="response.output_text.delta", delta=words, content_index=0, logprobs=[], **place
                )
            text = ResponseOutputText(type="output_text", text="The answer is 42.", annotations=[])
            output: Any = ResponseOutputMessage(
                id="m1", type="message", role="assistant", status="completed", content=[text]
            )
        else:
            yield ResponseReasoningSummaryTextDeltaEvent(
                type="response.reasoning_summary_text.delta", delta="I look it up.", summary_index=0, **place
            )
            output = ResponseFunctionToolCall(
                type="function_call", call_id="c1", name="search", arguments='{"q": "the question"}'
            )
        response = Response(
            id="r1",
            created_at=0,
            model="scripted",
            object="response",
            output=[output],
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
        )
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=9)


@function_tool
def search(q: str) -> str:
    """Search."""
    return f"all about {q}"


async def work(run: Run, question: str) -> None:
    """What it does in a run."""
    agent = Agent(name="researcher", model=ScriptedModel(), tools=[search])
    result = Runner.run_streamed(agent, [{"role": "user", "content": question}])
    await openai_agents.forward(run, result.stream_events())
    run.result = {"answer": result.final_output}


async def main(url: str, user: str = "ada") -> None:
    async with AsyncPublisher(url) as publisher, publisher.run(user, name="researcher") as run:
        await work(run, "What is the answer?")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
