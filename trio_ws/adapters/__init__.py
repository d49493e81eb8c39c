"""Streams of agent frameworks, forwarded into a run in a line each::

    async with publisher.run("ada", name="researcher") as run:
        await langgraph.forward(run, graph.astream(question, stream_mode=["messages", "updates", "custom"]))
        await openai_agents.forward(run, Runner.run_streamed(agent, question).stream_events())
        await agui.forward(run, events)

What they take is recognised by its shape, so no framework is imported here, and none is a dependency. `run` is what
`trio_ws.publisher.AsyncPublisher` or `trio_ws.Hub` give; they run in whatever event loop that does.
"""

from . import agui, langgraph, openai_agents
from .forwarding import AgentFailed, Run, tell

__all__ = ["AgentFailed", "Run", "agui", "langgraph", "openai_agents", "tell"]
