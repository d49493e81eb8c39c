"""The admin API under a fuzzer that knows only its description, for a while; `scripts/fuzz-api` does it for longer."""

from __future__ import annotations

import pytest
import trio
from api_fuzzing.__main__ import KEY, fuzz

pytestmark = pytest.mark.integration

REACHED = {
    "DELETE /v1/users/{user}/sessions": {200, 422},
    "DELETE /v1/users/{user}/sessions/{session}": {204, 404, 422},
    "GET /healthz": {200, 405},
    "GET /readyz": {200, 405},
    "GET /v1/stats": {200, 405},
    "GET /v1/stream": {200, 422},
    "GET /metrics": {200, 405},
    "GET /v1/users": {200, 422},
    "GET /v1/users/{user}": {200, 422},
    "GET /v1/users/{user}/events": {200, 404, 422},
    "GET /v1/users/{user}/events/{id}": {200, 404, 422},
    "POST /v1/events": {200},
    "POST /v1/tickets": {200, 400, 422},
    "POST /v1/users/{user}/events": {200, 202, 422, 504},
    "GET /v1/users/{user}/runs": {200, 422},
    "POST /v1/users/{user}/runs": {201, 422},
    "GET /v1/users/{user}/runs/{run}": {200, 404, 422},
    "POST /v1/users/{user}/runs/{run}/events": {200, 202, 404, 409, 422},
    "POST /v1/users/{user}/runs/{run}/heartbeat": {200, 404, 422},
    "POST /v1/users/{user}/runs/{run}/close": {200, 404, 422},
    "POST /v1/users/{user}/runs/{run}/cancel": {202, 404, 422},
    "POST /v1/users/{user}/runs/{run}/questions": {201, 404, 422},
    "GET /v1/users/{user}/runs/{run}/questions/{question}": {200, 404, 422},
    "DELETE /v1/users/{user}/runs/{run}/questions/{question}": {204, 404, 422},
}
"""Answers that a run has to meet: one that only ever met refusals would show little."""


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (KEY, []),
        (None, ["--phases", "fuzzing"]),
    ],  # all of it once; without a key, that it is as open as it says
    ids=["key", "no key"],
)
async def test_every_answer_is_as_it_is_described(key: str | None, options: list[str]) -> None:
    with trio.fail_after(300):
        findings = await fuzz(max_examples=20, seed=3, key=key, options=options)
    assert not findings.failures, "\n".join([*findings.failures, findings.output])
    if key is not None:
        missed = {call: statuses - findings.statuses(call) for call, statuses in REACHED.items()}
        assert not any(missed.values()), f"{missed}\n{findings.output}"
    refused = {call for call, status in findings.answers if status == 401}
    guarded = {call for call in REACHED if "/v1/" in call or call == "GET /metrics"}
    assert refused == (guarded if key else set())
