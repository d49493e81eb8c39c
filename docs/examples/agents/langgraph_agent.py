"""A LangGraph agent whose work a user watches. Its model is scripted, so that it runs offline: put yours in its place.

pip install 'trio-ws[publisher]' langgraph
trio-ws serve --insecure & trio-ws tail ada &
python langgraph_agent.py http://127.0.0.1:8766
"""

import asyncio
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from trio_ws.adapters import Run, langgraph
from trio_ws.publisher import AsyncPublisher


class ScriptedModel(BaseChatModel):
    """Thinks, asks for a search, and answers when it has its result."""

    _llm_type = "scripted"

    def _generate(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    def _stream(self, messages: Any, *args: Any, **more: Any) -> Any:
        if isinstance(messages[-1], ToolMessage):
            said = [AIMessageChunk("The answer "), AIMessageChunk("is 42.")]
        else:
            call = {"name": "search", "args": '{"q": "the question"}', "id": "c1", "index": 0}
            said = [
                AIMessageChunk([{"type": "reasoning", "reasoning": "I look it up.", "index": 0}]),
                AIMessageChunk("", tool_call_chunks=[call]),
            ]
        yield from (ChatGenerationChunk(message=chunk) for chunk in said)


@tool
def search(q: str) -> str:
    """Search."""
    get_stream_writer()({"fraction": 0.5, "message": "searching"})
    return f"all about {q}"


def build() -> Any:
    """The graph: a model, and the tool that it asks for."""
    model = ScriptedModel()

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([search]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile()


async def work(run: Run, question: str) -> None:
    """What it does in a run."""
    state = {"messages": [("user", question)]}
    await langgraph.forward(run, build().astream(state, stream_mode=["messages", "updates", "custom"]))


async def main(url: str, user: str = "ada") -> None:
    async with AsyncPublisher(url) as publisher, publisher.run(user, name="researcher") as run:
        await work(run, "What is the answer?")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
