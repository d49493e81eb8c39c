"""How a block ended, as the events that tell of it have it: the kind of an error, and never its text by itself."""

from __future__ import annotations

from typing import Any

from ..errors import RunFailed


def ending_of(
    exc: BaseException, cancelled: tuple[type[BaseException], ...], said: dict[str, Any] | None = None
) -> tuple[str, dict[str, Any] | None]:
    """The outcome of a block that `exc` left, and the error to tell of.

    Args:
      cancelled: the exceptions that stand for a cancellation.
      said: the application's own words for its failure, which go before the exception's.
    """
    leaf = _leaf(exc, cancelled)
    if leaf is None:
        return "cancelled", None
    return "failed", said or failure(type(leaf).__name__, str(leaf) if isinstance(leaf, RunFailed) else None)


def failure(kind: str, message: str | None) -> dict[str, Any]:
    """What a run failed of, no longer than a server takes it."""
    return {"kind": kind[:128], **({} if message is None else {"message": message[:1024]})}


def _leaf(exc: BaseException, cancelled: tuple[type[BaseException], ...]) -> BaseException | None:
    """The first exception within that is no cancellation."""
    if isinstance(exc, BaseExceptionGroup):
        return next((leaf for inner in exc.exceptions if (leaf := _leaf(inner, cancelled)) is not None), None)
    return None if isinstance(exc, cancelled) else exc
