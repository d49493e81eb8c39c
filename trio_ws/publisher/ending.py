"""How a block ended, as the events that tell of it have it: the kind of an error, and never its text by itself."""

from __future__ import annotations

from typing import Any

from ..errors import RunFailed


def ending_of(
    exc: BaseException, cancelled: tuple[type[BaseException], ...]
) -> tuple[str, dict[str, Any] | None]:
    """The outcome of a block that `exc` left, and the error to tell of.

    Args:
      cancelled: the exceptions that stand for a cancellation.
    """
    leaf = _leaf(exc, cancelled)
    if leaf is None:
        return "cancelled", None
    error = {"kind": type(leaf).__name__}
    if isinstance(leaf, RunFailed):
        error["message"] = str(leaf)
    return "failed", error


def completed(
    call: int, tool: str, outcome: str, duration: float, output: Any, error: dict[str, Any] | None
) -> dict[str, Any]:
    """The payload of `tool_completed`."""
    told = {"call": call, "tool": tool, "outcome": outcome, "duration": round(duration, 6)}
    if output is not None:
        told["output"] = output
    if error is not None:
        told["error"] = error
    return told


def executing(call: int, tool: str, input: Any) -> dict[str, Any]:
    """The payload of `tool_executing`."""
    return {"call": call, "tool": tool, **({} if input is None else {"input": input})}


def progress(fraction: float, message: str | None) -> dict[str, Any]:
    """The payload of `agent_progress`."""
    return {"fraction": fraction, **({} if message is None else {"message": message})}


def _leaf(exc: BaseException, cancelled: tuple[type[BaseException], ...]) -> BaseException | None:
    """The first exception within that is no cancellation."""
    if isinstance(exc, BaseExceptionGroup):
        return next((leaf for inner in exc.exceptions if (leaf := _leaf(inner, cancelled)) is not None), None)
    return None if isinstance(exc, cancelled) else exc
