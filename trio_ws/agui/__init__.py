"""AG-UI, the protocol between agents and their users' pages: runs as streams of its events, and its streams as runs.

Pure, and without a dependency: what it takes and gives are values, and what is done with them is yours. docs/agui.md
has the mapping and what is lost by it; `trio_ws.adapters.agui` forwards an agent's stream into a run.
"""

from .decoder import AguiDecoder
from .encoder import AguiEncoder
from .grammar import AguiEvent

__all__ = ["AguiDecoder", "AguiEncoder", "AguiEvent"]
