"""How times that were measured are told."""

from __future__ import annotations

import math
import statistics


def show(name: str, values: list[float]) -> None:
    """One line: how many, and percentiles in milliseconds."""
    ordered = sorted(values)
    at = {
        share: ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * 1e3
        for share in (0.95, 0.99)
    }
    print(
        f"{name}: n={len(values)} median={statistics.median(ordered) * 1e3:.1f} ms "
        f"p95={at[0.95]:.1f} ms p99={at[0.99]:.1f} ms max={ordered[-1] * 1e3:.1f} ms"
    )
