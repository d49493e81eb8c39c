"""The OpenAPI description of the calls that concern runs; see `openapi.py`."""

from __future__ import annotations

from typing import Any

from .batch import LINES
from .describing import body, call, errors, in_path, waiting
from .schemas import ref


def run_paths() -> dict[str, Any]:
    """The calls that concern runs; those of one run have its name, and its user's, in the path."""
    runs = "/v1/users/{user}/runs"
    run, of_user, of_run = f"{runs}/{{run}}", [in_path("user")], [in_path("user"), in_path("run")]
    of_question = [*of_run, in_path("question")]
    cancelling = waiting("cancelling", "Seconds to wait until the run is to stop, or has ended.")
    answered = waiting("answered", "Seconds to wait until the question is closed, or the run is to stop.")
    return {
        runs: {
            "get": call("listRuns", "A user's runs, as they stand", of_user, {200: "Runs"}, 422, 503),
            "post": {
                **call(
                    "openRun",
                    "A run begins; it lives by its lease",
                    of_user,
                    {201: "RunOpened", 200: "RunOpened"},
                    *(400, 408, 409, 413, 422, 429, 503),
                ),
                "requestBody": body("application/json", ref("RunBody")),
            },
        },
        run: {
            "get": call(
                "lookAtRun", "A run as it stands", [*of_run, *cancelling], {200: "Run"}, 404, 422, 503
            )
        },
        f"{run}/events": {"post": _publish_in_run(of_run)},
        f"{run}/heartbeat": {
            "post": {
                **call(
                    "keepRun",
                    "A sign of life of a run's publisher",
                    [*of_run, *cancelling],
                    {200: "RunSigns"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": {**body("application/json", ref("HeartbeatBody")), "required": False},
            }
        },
        f"{run}/close": {
            "post": {
                **call(
                    "closeRun",
                    "A run ends",
                    of_run,
                    {200: "RunEnded"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": body("application/json", ref("CloseBody")),
            }
        },
        f"{run}/cancel": {
            "post": {
                **call(
                    "cancelRun",
                    "A run is to stop",
                    of_run,
                    {202: "RunCancelling"},
                    *(400, 404, 408, 409, 413, 422, 503),
                ),
                "requestBody": {**body("application/json", ref("CancelBody")), "required": False},
            }
        },
        f"{run}/questions": {
            "post": {
                **call(
                    "ask",
                    "A question to the user, which stands until it is answered, withdrawn or expired",
                    of_run,
                    {201: "Asked", 200: "Asked"},
                    *(400, 404, 408, 409, 413, 422, 429, 503),
                ),
                "requestBody": body("application/json", ref("QuestionBody")),
            }
        },
        f"{run}/questions/{{question}}": {
            "get": call(
                "hear",
                "What has become of a question",
                [*of_question, *answered],
                {200: "Question"},
                404,
                422,
                503,
            ),
            "delete": {
                "operationId": "withdraw",
                "summary": "A question is taken back",
                "parameters": of_question,
                "responses": {"204": {"description": "It is closed"}, **errors(404, 422, 503)},
            },
        },
    }


def _publish_in_run(of_run: list[dict[str, Any]]) -> dict[str, Any]:
    answers = {"schema": {"type": "array", "items": ref("RunAnswer")}}
    described = call(
        "publishInRun",
        "Publish one event of a run, or JSON lines of them, answered by as many lines, in order",
        of_run,
        {202: "RunTold"},
        *(400, 404, 408, 409, 413, 422, 429, 503),
    )
    described["requestBody"] = body("application/json", ref("RunEvent"))
    described["requestBody"]["content"][LINES] = {"schema": {"type": "array", "items": ref("RunEvent")}}
    described["responses"]["200"] = {
        "description": "Of JSON lines, a line each; behind one that is refused for now, all are",
        "content": {LINES: answers},
    }
    return described
