"""Runs over HTTP: opened, told of, watched, asked in, cancelled and closed; what a publisher gets to hear."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import Config, MemoryStore, StoreUnavailable
from trio_ws.admin import create_app
from trio_ws.event import Message, Priority
from trio_ws.hub import Hub, Receipt, open_hub
from trio_ws.publisher import AsyncPublisher, IllegalTransition, QuestionExpired, RunLost

from ..hub.test_durable import Store

RUNS = "/v1/users/a%2Fb/runs"
RUN = f"{RUNS}/r"


def events_of(hub: Hub, user: str = "a/b") -> list[tuple[str, str | None]]:
    """Type and run of all that the log holds."""
    entries = hub.engine.buffer.mailboxes[user].entries.values()
    return [(entry.type, entry.run) for entry in entries]


async def post(client: httpx.AsyncClient, path: str, body: Any = None, **more: Any) -> httpx.Response:
    if isinstance(body, list):
        lines = "".join(json.dumps(line) + "\n" for line in body)
        return await client.post(
            path, content=lines, headers={"content-type": "application/x-ndjson"}, **more
        )
    return await client.post(path, **({} if body is None else {"json": body}), **more)


def answer_question(hub: Hub, question: str, answer: Any, user: str = "a/b") -> None:
    payload = {"question": question, "answer": answer}
    hub.desk.answered(user, "tab", Message(id="m", type="agent_answer", payload=payload))


async def test_a_run_from_start_to_end(open_api) -> None:
    async with open_api() as (hub, client):
        opened = await post(client, RUNS, {"run": "r", "name": "researcher", "input": {"q": 1}, "lease": 5})
        assert opened.status_code == 201
        told = opened.json()
        assert (told["run"], told["seq"], told["lease"], told["duplicate"]) == ("r", 1, 5, False)
        assert told["expires"] == pytest.approx(hub.engine.wall_clock() + 5, abs=1)
        one = await post(
            client, f"{RUN}/events", {"type": "agent_thinking", "payload": {"text": "hm"}, "id": "x"}
        )
        assert one.status_code == 202
        assert {"id": "x", "seq": 2, "duplicate": False, "cancelling": False}.items() <= one.json().items()
        lines = [
            {"type": "tool_executing", "payload": {"call": 1, "tool": "search"}},
            {"type": "tool_output", "payload": {"call": 1, "text": "a"}},
            {"type": "tool_output", "payload": {"call": 2, "text": "a"}},
            {"type": "note", "payload": 1, "priority": "high"},
            {"type": "agent_delta", "payload": {"text": "Hel"}},
        ]
        many = await post(client, f"{RUN}/events", lines)
        assert many.status_code == 200
        codes = [json.loads(line).get("error", {}).get("code") for line in many.text.splitlines()]
        assert codes == [None, None, "illegal_transition", None, None]
        snapshot = (await client.get(RUN)).json()
        assert {
            "run": "r",
            "status": "running",
            "name": "researcher",
            "text": "Hel",
        }.items() <= snapshot.items()
        assert (await client.get(RUNS)).json() == {"runs": [snapshot]}
        closed = await post(client, f"{RUN}/close", {"outcome": "completed", "result": {"pages": 7}})
        assert closed.status_code == 200
        assert (closed.json()["outcome"], closed.json()["duplicate"]) == ("completed", False)
        assert (await client.get(RUN)).json()["result"] == {"pages": 7}
        assert events_of(hub) == [
            ("agent_started", "r"),
            ("agent_thinking", "r"),
            ("tool_executing", "r"),
            ("tool_output", "r"),
            ("note", "r"),
            ("agent_delta", "r"),
            ("tool_completed", "r"),
            ("agent_completed", "r"),
        ]


async def test_repeating_a_call_changes_nothing(open_api) -> None:
    async with open_api() as (_, client):
        body = {"run": "r", "name": "n", "lease": 5}
        assert [(await post(client, RUNS, body)).status_code for _ in range(2)] == [201, 200]
        other = await post(client, RUNS, {**body, "name": "m"})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "illegal_transition")
        start = {"type": "tool_executing", "payload": {"call": 1, "tool": "t"}, "id": "x"}
        seqs = [(await post(client, f"{RUN}/events", start)).json() for _ in range(2)]
        assert [(told["seq"], told["duplicate"]) for told in seqs] == [(2, False), (2, True)]
        question = {"question": "q", "prompt": "?"}
        assert [(await post(client, f"{RUN}/questions", question)).status_code for _ in range(2)] == [
            201,
            200,
        ]
        ends = [
            await post(client, f"{RUN}/close", {"outcome": "failed", "error": {"kind": "E"}})
            for _ in range(2)
        ]
        assert [(end.status_code, end.json()["duplicate"]) for end in ends] == [(200, False), (200, True)]
        assert ends[0].json()["seq"] == ends[1].json()["seq"]
        for path, body in [
            ("close", {"outcome": "completed"}),
            ("events", start | {"id": "y"}),
            ("heartbeat", {}),
        ]:
            late = await post(client, f"{RUN}/{path}", body)
            assert (late.status_code, late.json()["error"]["code"]) == (409, "run_ended")
        again = await post(client, RUNS, {"run": "r"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "run_ended")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (RUNS, {"run": ""}, "run"),
        (RUNS, {"lease": 0.5}, "lease"),
        (RUNS, {"lease": 3601}, "lease"),
        (RUNS, {"more": 1}, "more"),
        (RUNS, {"name": "a\nb"}, "name"),
        (f"{RUN}/events", {"type": "agent_delta"}, "payload"),
        (f"{RUN}/events", {"type": "agent_delta", "payload": {"text": "x"}, "priority": "low"}, "priority"),
        (f"{RUN}/events", {"type": "agent_completed", "payload": {"outcome": "completed"}}, "type"),
        (f"{RUN}/events", {"type": "agent_progress", "payload": {"fraction": 2}}, "payload"),
        (f"{RUN}/heartbeat", {"lease": 0}, "lease"),
        (f"{RUN}/heartbeat?wait=confirmed", {}, "wait"),
        (f"{RUN}/close", {"outcome": "lost"}, "outcome"),
        (f"{RUN}/close", {"outcome": "failed", "error": {}}, "error"),
        (f"{RUN}/cancel", {"reason": "x" * 1025}, "reason"),
        (f"{RUN}/questions", {}, "prompt"),
        (f"{RUN}/questions", {"prompt": "?", "choices": []}, "choices"),
        (f"{RUN}/questions", {"prompt": "?", "choices": ["a", "a"]}, "choices"),
        (f"{RUN}/questions", {"prompt": "?", "schema": {"pattern": "x"}}, "schema"),
    ],
)
async def test_what_is_wrong_is_told_and_changes_nothing(open_api, path: str, body: Any, field: str) -> None:
    async with open_api() as (hub, client):
        await post(client, RUNS, {"run": "r"})
        refused = await post(client, path, body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error.get("field")) == (422, "invalid", field)
        assert [type for type, _ in events_of(hub)] == ["agent_started"]


async def test_what_is_not_known(open_api) -> None:
    async with open_api() as (_, client):
        calls = ["events", "heartbeat", "close", "cancel", "questions"]
        answers = [await post(client, f"{RUN}/{call}", {"type": "note"}) for call in calls]
        answers += [await client.get(RUN), await client.get(f"{RUN}/questions/q")]
        answers += [await client.delete(f"{RUN}/questions/q")]
        assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(404, "unknown_run")}
        await post(client, RUNS, {"run": "r"})
        answers = [await client.get(f"{RUN}/questions/q"), await client.delete(f"{RUN}/questions/q")]
        assert {a.json()["error"]["code"] for a in answers} == {"unknown_question"}
        assert (await client.get(f"{RUNS}")).json()["runs"][0]["run"] == "r"
        assert (await client.get("/v1/users/nobody/runs")).json() == {"runs": []}


async def test_too_many_runs(open_api) -> None:
    async with open_api(Config(max_runs_per_user=1)) as (_, client):
        await post(client, RUNS, {"run": "r"})
        refused = await post(client, RUNS, {"run": "s"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_runs")
        assert refused.headers["retry-after"] == "1"


async def test_behind_a_line_that_is_refused_for_now_all_are(open_api) -> None:
    async with open_api(Config(max_events_per_user=4)) as (_, client):
        await post(client, RUNS, {"run": "r"})
        lines = [
            *[{"type": "agent_thinking", "payload": {"text": f"{n}"}, "id": f"{n}"} for n in range(5)],
            {"type": "agent_thinking", "payload": {"text": "0"}, "id": "0"},  # which it has already
        ]
        answers = [
            json.loads(line) for line in (await post(client, f"{RUN}/events", lines)).text.splitlines()
        ]
        codes = [answer.get("error", {}).get("code") for answer in answers]
        first = codes.index("buffer_full")
        assert codes == [None] * first + ["buffer_full"] * (6 - first)
        assert answers[-1]["error"]["retry_after"] == 1


async def test_no_call_waits_for_room_for_long(open_api, autojump_clock: MockClock) -> None:
    async with open_api(Config(max_events_per_user=2)) as (_, client):
        await post(client, RUNS, {"run": "r"})
        await client.post("/v1/users/a%2Fb/events", json={"type": "agent_started"})
        for path, body in [(RUNS, {"run": "s"}), (f"{RUN}/questions", {"prompt": "?"})]:
            full = await post(client, path, body)
            assert (full.status_code, full.json()["error"]["code"]) == (503, "buffer_full")
        closed = await post(client, f"{RUN}/close", {"outcome": "completed"})
        assert closed.status_code == 200  # the end has room always


async def test_a_lease_lapses_unless_it_is_renewed(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (_, client):
        await post(client, RUNS, {"run": "r", "lease": 5})
        for _ in range(3):
            await trio.sleep(4)
            beat = await post(client, f"{RUN}/heartbeat")
            assert beat.json()["cancelling"] is False
        await post(client, f"{RUN}/heartbeat", {"lease": 60})
        await trio.sleep(59)
        assert (await client.get(RUN)).json()["status"] == "running"
        await trio.sleep(2)
        assert (await client.get(RUN)).json()["status"] == "lost"
        late = await post(client, f"{RUN}/heartbeat")
        assert late.json()["error"]["code"] == "run_ended"


@pytest.mark.parametrize("call", ["look", "heartbeat"])
async def test_waiting_for_a_cancel(open_api, autojump_clock: MockClock, call: str) -> None:
    async with open_api() as (_, client):
        await post(client, RUNS, {"run": "r"})
        query = "?wait=cancelling&timeout=10"

        async def wait() -> dict[str, Any]:
            request = client.get(RUN + query) if call == "look" else post(client, f"{RUN}/heartbeat{query}")
            body: dict[str, Any] = (await request).json()
            return {"cancelling": body.get("cancelling", body.get("status") == "cancelling")}

        began = trio.current_time()
        assert await wait() == {"cancelling": False}
        assert trio.current_time() - began == pytest.approx(10)
        heard: list[Any] = []

        async def watch() -> None:
            heard.append(await wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            asked = await post(client, f"{RUN}/cancel", {"reason": "enough"})
            assert (asked.status_code, asked.json()) == (202, {"run": "r", "cancelling": True})
        assert heard == [{"cancelling": True}]
        assert trio.current_time() - began == pytest.approx(10)
        event = await post(client, f"{RUN}/events", {"type": "agent_delta", "payload": {"text": "bye"}})
        assert event.json()["cancelling"] is True
        assert (await post(client, f"{RUN}/cancel")).status_code == 202
        await post(client, f"{RUN}/close", {"outcome": "cancelled"})
        late = await post(client, f"{RUN}/cancel")
        assert (late.status_code, late.json()["error"]["code"]) == (409, "run_ended")


async def test_who_waits_hears_that_the_server_goes_away(open_api, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    async with open_api() as (hub, client):
        await post(client, RUNS, {"run": "r"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, f"{RUN}?wait=cancelling&timeout=60")
            await wait_all_tasks_blocked()
            nursery.start_soon(hub.drain)
    assert trio.current_time() - began < 30


async def test_a_question_is_heard_of_when_it_is_answered(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (hub, client):
        await post(client, RUNS, {"run": "r", "lease": 300})
        asked = await post(
            client, f"{RUN}/questions", {"question": "q", "prompt": "?", "choices": ["y", "n"]}
        )
        assert asked.json()["question"] == "q"
        path = f"{RUN}/questions/q"
        assert (await client.get(path)).json() == {"question": "q", "state": "open", "cancelling": False}
        heard: list[Any] = []

        async def wait() -> None:
            heard.append((await client.get(f"{path}?wait=answered&timeout=60")).json())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            answer_question(hub, "q", "y")
        assert heard == [{"question": "q", "state": "answered", "answer": "y", "cancelling": False}]
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).json()["state"] == "answered"
        await post(client, f"{RUN}/questions", {"question": "w", "prompt": "?", "timeout": 30})
        assert (await client.get(f"{RUN}/questions/w?wait=answered&timeout=60")).json()["state"] == "expired"
        await post(client, f"{RUN}/questions", {"question": "v", "prompt": "?"})
        assert (await client.delete(f"{RUN}/questions/v")).status_code == 204
        assert (await client.get(f"{RUN}/questions/v")).json()["state"] == "withdrawn"


async def test_a_run_of_this_process_is_its_own(open_api) -> None:
    async with open_api() as (hub, client), hub.run("a/b", "r") as run:
        for call in ("events", "heartbeat", "close", "questions"):
            refused = await post(client, f"{RUN}/{call}", {"type": "note"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "illegal_transition")
        assert (await client.get(RUN)).json()["status"] == "running"
        assert (await post(client, f"{RUN}/cancel")).status_code == 202
        await trio.sleep_forever()
    assert run.outcome == "cancelled"


async def test_a_run_that_outlived_its_server_goes_on(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    for life in range(2):
        async with open_hub(store=store) as hub:
            transport = httpx.ASGITransport(app=create_app(hub))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin.test") as client:
                if life == 0:
                    await post(client, RUNS, {"run": "r", "lease": 5})
                else:
                    await trio.sleep(4)
                    told = await post(
                        client, f"{RUN}/events", {"type": "agent_thinking", "payload": {"text": "on"}}
                    )
                    assert told.status_code == 202


async def test_the_publisher_plays_a_run_to_a_hub(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (_, client):
        publisher = AsyncPublisher("http://admin.test", client=client)
        async with publisher.run("a/b", name="researcher", lease=5) as run:
            await run.think("hm")
            async with run.tool("search", {"q": "x"}) as tool:
                await tool.output("line\n")
                tool.result = {"n": 1}
            await run.delta("Hel")
            await run.delta("lo")
            await run.progress(0.5, "half")
            await trio.sleep(60)  # heartbeats keep it
            with pytest.raises(IllegalTransition):
                await run.publish("tool_output", {"call": 9, "text": "x"})
            with pytest.raises(QuestionExpired):
                await run.ask("Deploy?", choices=["yes", "no"], timeout=45)
            async with run.run(name="child") as child:
                pass
            run.result = {"pages": 7}
        [parent, of_child] = (await client.get(RUNS)).json()["runs"]
        assert (parent["status"], parent["text"], parent["result"]) == ("completed", "Hello", {"pages": 7})
        assert parent["last_tool"]["outcome"] == "completed"
        assert (of_child["run"], of_child["parent"]) == (child.id, run.id)


async def test_the_publisher_hears_of_a_cancel_at_once(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (hub, client):
        publisher = AsyncPublisher("http://admin.test", client=client)
        began = trio.current_time()
        async with publisher.run("a/b", "r") as run, run.tool("search"):
            await hub.cancel_run("a/b", "r")
            await trio.sleep_forever()
        assert run.outcome == "cancelled"
        assert trio.current_time() - began < 0.5
        types = [type for type, _ in events_of(hub)]
        assert types[-3:] == ["agent_cancelling", "tool_completed", "agent_completed"]


async def test_the_publisher_hears_that_its_run_is_lost(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (hub, client):
        publisher = AsyncPublisher("http://admin.test", client=client)
        with pytest.raises(RunLost):
            async with publisher.run("a/b", "r", lease=5):
                handle = await hub.find_run("a/b", "r")
                assert handle is not None
                await handle.close("failed")
                await trio.sleep_forever()


async def test_a_run_whose_commit_was_not_waited_out_can_be_opened_again(
    open_api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def committed(self: Receipt) -> None:
        raise StoreUnavailable("slow")

    async with open_api() as (_, client):
        with monkeypatch.context() as patch:
            patch.setattr(Receipt, "committed", committed)
            patch.setattr(Receipt, "to_be_committed", True)
            refused = await post(client, RUNS, {"run": "r"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        again = await post(client, RUNS, {"run": "r"})
        assert (again.status_code, again.json()["duplicate"]) == (200, True)


async def test_what_is_repeated_is_answered_when_it_is_durable(open_api, autojump_clock: MockClock) -> None:
    store = Store()
    asked, withdrawn = ("POST", f"{RUN}/questions"), ("DELETE", f"{RUN}/questions/q")
    async with open_api(store=store) as (_, client):
        await post(client, RUNS, {"run": "r", "lease": 60})
        store.hold()
        for method, path in (asked, asked, withdrawn, withdrawn):
            told = await client.request(method, path, json={"question": "q", "prompt": "Well?"})
            assert (told.status_code, told.json()["error"]["code"]) == (503, "store_unavailable")
        store.let_go()
        assert (await client.delete(f"{RUN}/questions/q")).status_code == 204


async def test_who_waits_with_a_heartbeat_is_answered_before_the_lease_is_over(
    open_api, autojump_clock: MockClock
) -> None:
    async with open_api() as (_, client):
        await post(client, RUNS, {"run": "r", "lease": 5})
        for _ in range(3):
            beat = await client.post(f"{RUN}/heartbeat", params={"wait": "cancelling", "timeout": 60})
            assert (beat.status_code, beat.json()["cancelling"]) == (200, False)
        assert (await client.get(RUN)).json()["status"] == "running"


async def test_a_run_that_is_cut_short_does_not_wait_for_room_for_its_last_words(
    open_api, autojump_clock: MockClock
) -> None:
    async with open_api(Config(max_events_per_user=4)) as (hub, client):
        publisher = AsyncPublisher("http://admin.test", client=client)
        with trio.move_on_after(3):
            async with publisher.run("a/b", "r") as run:
                for _ in range(3):
                    await hub.publish("a/b", "alarm", priority=Priority.CRITICAL)
                await run.delta("There is no room for this.")
                await trio.sleep_forever()
        assert (run.outcome, trio.current_time()) == ("cancelled", pytest.approx(3, abs=0.1))
        assert (await client.get(RUN)).json()["status"] == "cancelled"
