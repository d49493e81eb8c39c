"""What both directions of the mapping call things, and what may be a name in a run."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..event import LIFECYCLE_TYPES

METADATA: Final = "trio-ws"
"""The key in an AG-UI event's metadata under which stands what it has no place for."""

VERBATIM: Final = "agui"
"""The type of event that carries one of AG-UI's as it is; and the key in a payload for what only AG-UI asks for."""

RUN_TYPES: Final = {
    *LIFECYCLE_TYPES,
    "agent_delta",
    "agent_progress",
    "agent_cancelling",
    "agent_lost",
    "tool_output",
    "question_asked",
    "question_closed",
    "snapshot",
    "standing",
    VERBATIM,
}
"""The types of event that mean something in a run: what an agent calls by such a name itself is not taken for one."""


def name_of(value: Any, otherwise: str) -> str:
    """`value` as a name: 1 to 128 characters without control characters."""
    name = "".join(c for c in value if c.isprintable())[:128] if isinstance(value, str) else ""
    return name or otherwise


def well_formed(text: str) -> str:
    """`text` with the halves of surrogate pairs, as JavaScript cuts them, joined again; a single one is replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def arguments_of(text: str) -> Any:
    """A call's input: its arguments as JSON where they are, else their text; None where there are none."""
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return well_formed(text)


def is_progress(value: Any) -> bool:
    """Whether `value` is the payload of ``agent_progress``."""
    if not isinstance(value, dict) or not value.keys() <= {"fraction", "message"}:
        return False
    fraction, message = value.get("fraction"), value.get("message")
    if not isinstance(fraction, int | float) or isinstance(fraction, bool):
        return False
    return 0 <= fraction <= 1 and isinstance(message, str | None)
