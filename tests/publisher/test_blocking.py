"""The publisher that blocks: single events, batches, and runs beside which threads work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.publisher.fake import URL, Fake, drop, lines_of, refusal
from trio_ws.publisher import (
    BatchRefused,
    ConfirmationTimeout,
    EventTooLarge,
    IllegalTransition,
    InvalidEvent,
    Publisher,
    QuestionClosed,
    QuestionExpired,
    Refused,
    RunCancelled,
    RunFailed,
    RunLost,
    TooManyRuns,
    Unreachable,
)
from trio_ws.publisher.waiting import MAX_WAITING


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    made: list[float] = []
    monkeypatch.setattr("trio_ws.publisher.blocking.time.sleep", made.append)
    return made


@pytest.fixture
def publisher(fake: Fake, pauses: list[float]) -> Iterator[Publisher]:
    with httpx.Client(transport=httpx.MockTransport(fake)) as client:
        yield Publisher(URL, client=client)


def test_an_event_is_published(fake: Fake, publisher: Publisher) -> None:
    accepted = publisher.publish("a/b", "note", {"n": 1}, priority="high", key="k", ttl=5)
    assert (accepted.seq, accepted.duplicate, accepted.state) == (1, False, "held")
    [event] = fake.accepted
    assert event.pop("id") == accepted.id
    assert event == {
        "user": "a/b",
        "type": "note",
        "payload": {"n": 1},
        "priority": "high",
        "key": "k",
        "ttl": 5,
    }
    assert fake.requests == [("POST", "/v1/users/a%2Fb/events")]


def test_the_key_goes_along(fake: Fake) -> None:
    seen: list[str] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return fake(request)

    with httpx.Client(transport=httpx.MockTransport(look)) as client:
        Publisher(URL, "schlüssel", client=client).publish("ada", "note")
    assert seen == ["Bearer schlüssel"]


@pytest.mark.parametrize("url", ["", "server", "ftp://server", "http://", "http://server:x"])
def test_what_is_no_url_is_said_at_once(url: str) -> None:
    with pytest.raises(ValueError):
        Publisher(url)


def test_it_is_asked_again_under_the_same_id_and_published_once(
    fake: Fake, publisher: Publisher, pauses: list[float]
) -> None:
    fake.script = [
        httpx.ConnectError("refused"),
        503,
        429,
        502,
        504,
        lambda _: httpx.Response(503, json={"error": {"code": "draining"}}, headers={"retry-after": "7"}),
        drop(fake),
        httpx.ReadTimeout("slow"),
    ]
    assert publisher.publish("ada", "note").duplicate
    assert len(fake.accepted) == 1
    assert len(pauses) == 8
    assert pauses[0] == pytest.approx(0.1, rel=0.1)
    assert pauses[5] >= 7


def test_it_gives_up(fake: Fake, publisher: Publisher, pauses: list[float]) -> None:
    fake.script = [httpx.ConnectError("refused")] * 9
    with pytest.raises(Unreachable, match=r"server\.test.*refused"):
        publisher.publish("ada", "note")
    assert (len(pauses), fake.script) == (8, [])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(401, "unauthorized", "no key"), Refused),
        (refusal(422, "invalid", "no", field="type"), InvalidEvent),
        (refusal(413, "event_too_large", "no", field="payload"), EventTooLarge),
        (refusal(504, "confirmation_timeout", "no", state="sent"), ConfirmationTimeout),
        (refusal(500, "internal_error", "a bug"), Refused),
        (httpx.Response(404, text="<html>"), Refused),
        (httpx.Response(200, text="<html>"), Refused),
    ],
)
def test_a_refusal_is_an_error_at_once(
    fake: Fake, publisher: Publisher, answer: httpx.Response, error: type[Exception]
) -> None:
    fake.script = [lambda _: answer]
    with pytest.raises(error) as caught:
        publisher.publish("ada", "note")
    assert len(fake.requests) == 1
    if isinstance(caught.value, InvalidEvent):
        assert caught.value.field in ("type", "payload")


@pytest.mark.parametrize("payload", [float("nan"), {"x": "\ud800"}, object()])
def test_what_has_no_json_form_is_not_sent(fake: Fake, publisher: Publisher, payload: Any) -> None:
    with pytest.raises(InvalidEvent):
        publisher.publish("ada", "note", payload)
    assert fake.requests == []


def test_waiting_for_the_confirmation(fake: Fake, publisher: Publisher) -> None:
    place = {"id": "x", "seq": 1, "epoch": "e", "state": "confirmed", "duplicate": False}
    fake.script = [lambda _: httpx.Response(200, json={**place, "confirmed_after": 0.25})]
    assert publisher.publish("ada", "note", wait=5).confirmed_after == 0.25
    assert fake.requests[0][1].endswith("?wait=confirmed&timeout=5")


def test_many_events_are_few_calls(fake: Fake, publisher: Publisher) -> None:
    many = [{"user": f"u{n % 3}", "type": "note", "payload": {"n": n}} for n in range(1200)]
    accepted = publisher.publish_many(many)
    assert [one.seq for one in accepted] == list(range(1, 1201))
    assert [event["payload"]["n"] for event in fake.accepted] == list(range(1200))
    assert len(fake.requests) == 3
    publisher.publish_many({"user": "u", "type": "note", "payload": "x" * 400_000} for _ in range(4))
    assert len(fake.requests) == 5


def test_json_that_is_ready_may_have_lines(fake: Fake, publisher: Publisher) -> None:
    publisher.publish_many([{"user": "u", "type": "note", "payload": b'{\n "n": [1,\n2]\n}'}])
    assert fake.payloads("note") == [{"n": [1, 2]}]


def test_lines_that_are_refused_for_now_are_sent_again_alone(
    fake: Fake, publisher: Publisher, pauses: list[float]
) -> None:
    full = {"error": {"code": "buffer_full", "message": "full", "status": 503, "retry_after": 3}}
    place = {"id": "0", "seq": 1, "epoch": "e", "state": "held", "duplicate": False}
    fake.script = [lines_of(place, full, place)]
    accepted = publisher.publish_many([{"user": "u", "type": "note", "id": str(n)} for n in range(3)])
    assert [event["id"] for event in fake.accepted] == ["1"]
    assert (len(accepted), pauses) == (3, [3])


def test_a_batch_that_gets_on_is_not_given_up(fake: Fake, publisher: Publisher) -> None:
    full = {"error": {"code": "buffer_full", "message": "full", "status": 503}}
    place = {"id": "0", "seq": 1, "epoch": "e", "state": "held", "duplicate": False}
    fake.script = [lines_of(place, *[full] * left) for left in range(19, -1, -1)]
    assert len(publisher.publish_many([{"user": "u", "type": "note"}] * 20)) == 20


def test_a_batch_tells_which_were_refused(fake: Fake, publisher: Publisher) -> None:
    wrong = {"error": {"code": "invalid", "message": "no", "field": "type", "status": 422}}
    full = {"error": {"code": "buffer_full", "message": "full", "status": 503}}
    place = {"id": "0", "seq": 1, "epoch": "e", "state": "held", "duplicate": False}
    fake.script = [lines_of(wrong, full, place), *[lines_of(full)] * 8]
    with pytest.raises(BatchRefused, match="2 of 3") as caught:
        publisher.publish_many([{"user": "u", "type": "note"}] * 3)
    kinds = [type(result).__name__ for result in caught.value.results]
    assert kinds == ["InvalidEvent", "Refused", "Accepted"]


def test_a_run_from_start_to_end(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada", "r1", name="researcher", input={"q": 1}) as run:
        run.think("hm")
        with run.tool("search", {"q": "x"}) as tool:
            tool.output("a")
            tool.output("b")
            tool.result = {"n": 2}
        run.delta("Hel")
        run.delta("lo")
        run.progress(0.25)
        run.progress(0.5, "half")
        with run.run(name="child") as child:
            child.result = 1
        run.result = {"pages": 7}
    assert (run.id, run.outcome) == ("r1", "completed")
    assert fake.runs["r1"]["opened"] == {"run": "r1", "lease": 30, "name": "researcher", "input": {"q": 1}}
    assert fake.runs["r1"]["closed"] == {"outcome": "completed", "result": {"pages": 7}}
    assert fake.runs[child.id]["opened"]["parent"] == "r1"
    told = [(event["type"], event["payload"]) for event in fake.accepted]
    duration = told[3][1].pop("duration")
    assert 0 <= duration < 30
    assert told == [
        ("agent_thinking", {"text": "hm"}),
        ("tool_executing", {"call": 1, "tool": "search", "input": {"q": "x"}}),
        ("tool_output", {"call": 1, "text": "ab"}),
        ("tool_completed", {"call": 1, "tool": "search", "outcome": "completed", "output": {"n": 2}}),
        ("agent_delta", {"text": "Hello"}),
        ("agent_progress", {"fraction": 0.5, "message": "half"}),
    ]


def test_what_waits_is_sent_soon_by_itself(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada") as run:
        run.delta("one")
        fake.wait_for(lambda: fake.payloads("agent_delta") == [{"text": "one"}])
        run.delta("x" * 5000)
        fake.wait_for(lambda: len(fake.payloads("agent_delta")) == 2)


def test_a_long_text_is_cut_into_events_that_a_server_takes(fake: Fake, publisher: Publisher) -> None:
    text = "".join(map(str, range(300_000)))
    with publisher.run("ada") as run:
        run.delta(text)
    pieces = [payload["text"] for payload in fake.payloads("agent_delta")]
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 16 * 1024


def written(fake: Fake) -> str:
    return "".join(payload["text"] for payload in fake.payloads("agent_delta"))


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "outcome", "error"),
    [
        (Boom("secret"), "failed", {"kind": "Boom"}),
        (RunFailed("no such city"), "failed", {"kind": "RunFailed", "message": "no such city"}),
        (ExceptionGroup("", [ExceptionGroup("", [Boom("x")]), ValueError()]), "failed", {"kind": "Boom"}),
        (KeyboardInterrupt(), "cancelled", None),
    ],
)
def test_what_leaves_the_block_is_told_and_passes_on(
    fake: Fake, publisher: Publisher, raised: BaseException, outcome: str, error: dict[str, str] | None
) -> None:
    with pytest.raises(type(raised)) as caught, publisher.run("ada") as run, run.tool("t") as tool:
        run.delta("so far")
        run.result = tool.result = "not told"
        raise raised
    assert caught.value is raised
    assert run.outcome == outcome
    closed = fake.runs[run.id]["closed"]
    assert closed == {"outcome": outcome, **({"error": error} if error else {})}
    [completed] = fake.payloads("tool_completed")
    assert (completed["outcome"], completed.get("error")) == (outcome, error)
    assert "output" not in completed
    assert fake.payloads("agent_delta") == [{"text": "so far"}]


def test_a_run_can_fail_without_an_exception(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada") as run:
        run.fail("NoSuchCity", "there is none")
    assert run.outcome == "failed"
    assert fake.runs[run.id]["closed"]["error"] == {"kind": "NoSuchCity", "message": "there is none"}


def test_the_applications_words_go_before_an_exceptions(fake: Fake, publisher: Publisher) -> None:
    told = {"kind": "NoSuchCity", "message": "there is none"}
    with pytest.raises(Boom), publisher.run("ada", "r1") as run, run.tool("t"):
        run.fail(**told)
        raise Boom("secret")
    assert fake.runs["r1"]["closed"] == {"outcome": "failed", "error": told}
    [completed] = fake.payloads("tool_completed")
    assert completed["error"] == {"kind": "Boom"}, "they are the run's, not a tool's"
    with pytest.raises(KeyboardInterrupt), publisher.run("ada", "r2") as run:
        run.fail(**told)
        raise KeyboardInterrupt
    assert fake.runs["r2"]["closed"] == {"outcome": "cancelled"}


def test_a_cancel_is_raised_at_the_next_call_and_ends_the_block_quietly(
    fake: Fake, publisher: Publisher
) -> None:
    with publisher.run("ada") as run, run.tool("search"):
        fake.cancelling.add(run.id)
        run.think("its answer tells of the cancel")
        assert run.cancelling
        run.think("never said")
    assert run.outcome == "cancelled"
    assert fake.runs[run.id]["closed"] == {"outcome": "cancelled"}
    assert [payload["outcome"] for payload in fake.payloads("tool_completed")] == ["cancelled"]
    assert len(fake.payloads("agent_thinking")) == 1


def test_heartbeats_tell_of_a_cancel_while_nothing_is_said(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada", lease=0.1) as run:
        fake.wait_for(
            lambda: (
                sum(path.endswith("cancelling&timeout=0.03333333333333333") for _, path in fake.requests) > 2
            )
        )
        fake.cancelling.add(run.id)
        fake.wait_for(lambda: run.cancelling)
        run.check()
    assert run.outcome == "cancelled"


def test_heartbeats_go_on_whatever_answers(fake: Fake, publisher: Publisher, monkeypatch: Any) -> None:
    monkeypatch.setattr("trio_ws.publisher.blocking.AGAIN", 0.01)
    fake.beats = [503, httpx.ConnectError("refused"), 401, lambda _: httpx.Response(200, text="<html>"), 500]
    with publisher.run("ada", lease=0.1) as run:
        fake.wait_for(lambda: not fake.beats)
        fake.cancelling.add(run.id)
        fake.wait_for(lambda: run.cancelling)


def test_a_heartbeat_that_comes_behind_the_end_says_nothing(fake: Fake, publisher: Publisher) -> None:
    def beat_first(request: httpx.Request) -> httpx.Response:
        answer = fake._answer(request)
        fake.wait_for(lambda: not fake.beats)
        return answer

    with publisher.run("ada", lease=0.1) as run:
        fake.wait_for(lambda: len(fake.requests) > 2)
        fake.beats = [lambda _: refusal(409, "run_ended", "it has ended")]
        fake.script = [beat_first]
    assert run.outcome == "completed"


def test_a_publisher_that_is_closed_ends_its_threads_quietly(fake: Fake) -> None:
    client = httpx.Client(transport=httpx.MockTransport(fake))
    publisher = Publisher(URL, client=client)
    with pytest.raises(RuntimeError), publisher.run("ada", lease=0.1) as run:
        run.delta("x")
        client.close()
        for thread in threading.enumerate():
            if thread.name.startswith(f"run {run.id}"):
                thread.join(30)
                assert not thread.is_alive()


def test_a_cancel_of_a_run_around_ends_both(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada") as outer:
        with outer.run() as inner:
            fake.cancelling.add(outer.id)
            outer.think("…")
            inner.delta("never said")
        pytest.fail("the block of the outer run goes on")
    assert (outer.outcome, inner.outcome) == ("cancelled", "cancelled")


def test_a_run_that_the_server_has_lost(fake: Fake, publisher: Publisher) -> None:
    with pytest.raises(RunLost), publisher.run("ada") as run:
        fake.runs[run.id]["closed"] = {"outcome": "lost"}
        run.think("…")
    closes = [path for _, path in fake.requests if path.endswith("/close")]
    assert closes == []  # there is nothing left to close
    with pytest.raises(RunLost), publisher.run("ada") as run:
        fake.runs[run.id]["closed"] = {"outcome": "lost"}
    assert run.outcome == "lost"


def test_a_step_that_is_illegal_is_the_callers_error(fake: Fake, publisher: Publisher) -> None:
    message = "tool_output has no place in run 'r' now: call 3 is not open"
    answer = {
        "error": {
            "code": "illegal_transition",
            "message": message,
            "status": 409,
            "run": "r",
            "type": "tool_output",
        }
    }
    with publisher.run("ada", "r") as run:
        fake.script = [lines_of(answer)]
        with pytest.raises(IllegalTransition) as caught:
            run.publish("tool_output", {"call": 3, "text": "…"})
        assert str(caught.value) == message
    assert run.outcome == "completed"


REFUSED = {"error": {"code": "illegal_transition", "message": "x now: call 3 is not open", "status": 409}}


def test_what_deltas_were_refused_with_is_not_hidden(fake: Fake, publisher: Publisher) -> None:
    with pytest.raises(IllegalTransition), publisher.run("ada") as run:  # sent by the end of the block
        fake.script = [lines_of(REFUSED)]
        run.delta("x")
    assert fake.runs[run.id]["closed"] == {"outcome": "completed"}
    with pytest.raises(IllegalTransition), publisher.run("ada") as run:  # sent by the thread
        fake.script = [lines_of(REFUSED)]
        run.delta("x")
        fake.wait_for(lambda: not fake.script)
        while True:
            run.progress(0.5)
    assert fake.runs[run.id]["closed"]["outcome"] == "failed"


@pytest.mark.parametrize("text", [b"bytes", None, 1, "half \ud800"])
def test_a_delta_is_a_text(fake: Fake, publisher: Publisher, text: Any) -> None:
    with publisher.run("ada") as run:
        with pytest.raises(InvalidEvent):
            run.delta(text)
        with pytest.raises(InvalidEvent):
            run.progress(0.5, text or 0)
        run.delta("fine")
    assert written(fake) == "fine"


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, 2])
def test_progress_is_a_fraction(fake: Fake, publisher: Publisher, fraction: float) -> None:
    with publisher.run("ada") as run, pytest.raises(InvalidEvent):
        run.progress(fraction)


def test_a_result_that_has_no_json_form_has_failed(fake: Fake, publisher: Publisher) -> None:
    failed = {"outcome": "failed", "error": {"kind": "InvalidEvent"}}
    with pytest.raises(InvalidEvent), publisher.run("ada") as run:
        with pytest.raises(InvalidEvent), run.tool("t") as tool:
            tool.result = object()
        run.result = object()
    [completed] = fake.payloads("tool_completed")
    assert failed.items() <= completed.items()
    assert fake.runs[run.id]["closed"] == failed
    assert run.outcome == "failed"


def test_a_result_that_is_too_large_has_failed(fake: Fake, publisher: Publisher) -> None:
    with pytest.raises(EventTooLarge), publisher.run("ada") as run:
        fake.script = [lambda _: refusal(413, "event_too_large", "no", field="payload")]
        run.result = "x"
    assert fake.runs[run.id]["closed"] == {"outcome": "failed", "error": {"kind": "EventTooLarge"}}


def test_what_finds_no_room_does_not_keep_a_run_from_its_end(fake: Fake, publisher: Publisher) -> None:
    full = {"error": {"code": "buffer_full", "message": "full", "status": 503}}
    with pytest.raises(Refused, match="full"), publisher.run("ada") as run:
        fake.script = [lines_of(full)] * 9
        run.delta("x")
    assert fake.runs[run.id]["closed"] == {"outcome": "completed"}


def test_deltas_that_are_refused_for_now_are_kept(fake: Fake, publisher: Publisher) -> None:
    full = {"error": {"code": "buffer_full", "message": "full", "status": 503}}
    with publisher.run("ada") as run:
        fake.script = [lines_of(full)]
        run.delta("x")
        fake.wait_for(lambda: not fake.script)
        run.delta("y")
    assert written(fake) == "xy"


def test_what_waits_is_bounded_and_kept(fake: Fake, publisher: Publisher) -> None:
    text, said = "x" * 16384, 0
    with publisher.run("ada") as run:
        fake.script = [httpx.ConnectError("refused")] * 1000
        for _ in range(100):
            try:
                run.delta(text)
                said += 1
            except Unreachable:
                pass
        assert 1 <= said * len(text) / MAX_WAITING <= 2
        fake.script = []
    assert written(fake) == said * text


def test_an_event_of_a_batch_needs_a_user_and_a_type(fake: Fake, publisher: Publisher) -> None:
    for event in ({"user": "ada"}, {"type": "note"}, {"users": "*", "type": "note"}):
        with pytest.raises(InvalidEvent):
            publisher.publish_many([event])
    assert fake.requests == []


def test_too_many_runs(fake: Fake, publisher: Publisher) -> None:
    fake.script = [lambda _: refusal(429, "too_many_runs", "too many")] * 9
    with pytest.raises(TooManyRuns), publisher.run("ada"):
        pytest.fail("it was opened")


def test_the_server_is_away_in_the_middle(fake: Fake, publisher: Publisher) -> None:
    away = httpx.ConnectError("refused")
    with publisher.run("ada") as run:
        fake.script = [away, drop(fake), away]
        run.think("one")
        fake.script = [drop(fake), away]
        run.delta("two")
        run.think("three")
        run.delta("four")
        fake.script = [away, drop(fake), drop(fake)]
    assert [(e["type"], e["payload"]["text"]) for e in fake.accepted] == [
        ("agent_thinking", "one"),
        ("agent_delta", "two"),
        ("agent_thinking", "three"),
        ("agent_delta", "four"),
    ]
    assert fake.runs[run.id]["closed"] == {"outcome": "completed"}


def test_an_exception_is_not_hidden_by_a_server_that_is_away(fake: Fake, publisher: Publisher) -> None:
    with pytest.raises(Boom) as caught, publisher.run("ada") as run, run.tool("t"):
        fake.script = [httpx.ConnectError("refused")] * 50
        raise Boom
    assert [note.partition(": ")[0] for note in caught.value.__notes__] == [
        "The end of tool t could not be told",
        f"The end of run {run.id} could not be told",
    ]


def test_a_question_is_asked_until_it_is_answered(fake: Fake, publisher: Publisher) -> None:
    fake.answers = [{}, {"state": "answered", "answer": "yes"}, {"state": "expired"}, {"state": "withdrawn"}]
    with publisher.run("ada") as run:
        run.delta("before")
        assert run.ask("Deploy?", choices=["yes", "no"], timeout=60) == "yes"
        with pytest.raises(QuestionExpired):
            run.ask("And now?")
        with pytest.raises(QuestionClosed):
            run.ask("And now?")
    assert fake.types()[:2] == ["agent_delta", "question_asked"]
    [asked, *_] = fake.payloads("question_asked")
    assert asked.pop("question")
    assert asked == {"prompt": "Deploy?", "choices": ["yes", "no"], "timeout": 60}


def test_an_answer_is_of_the_type_that_was_asked_for(fake: Fake, publisher: Publisher) -> None:
    fake.answers = [{"state": "answered", "answer": [1, 2]}]
    with publisher.run("ada") as run:
        assert run.ask("Which?", schema=set[int]) == {1, 2}
    [asked] = fake.payloads("question_asked")
    assert asked["schema"]["items"] == {"type": "integer"}


def test_a_cancel_takes_the_question_back(fake: Fake, publisher: Publisher) -> None:
    fake.answers = [{"cancelling": True}]
    with publisher.run("ada") as run:
        run.ask("Deploy?")
    assert run.outcome == "cancelled"
    assert [method for method, path in fake.requests if "/questions/" in path] == ["GET", "DELETE"]


def test_a_run_may_be_told_of_by_many_threads(fake: Fake, publisher: Publisher) -> None:
    def in_thread(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work)
        thread.start()
        return thread

    with publisher.run("ada") as run:

        def work() -> None:
            for _ in range(20):
                with run.tool("t") as tool:
                    tool.output(f"{tool.call}")

        for thread in [in_thread(work) for _ in range(4)]:
            thread.join()
    assert sorted(p["call"] for p in fake.payloads("tool_executing")) == list(range(1, 81))
    assert all(p["text"] == str(p["call"]) for p in fake.payloads("tool_output"))
    assert len(fake.payloads("tool_output")) == len(fake.payloads("tool_completed")) == 80


def test_its_threads_end_with_it(fake: Fake, publisher: Publisher) -> None:
    with publisher.run("ada", lease=0.1) as run:
        run.delta("x")
    for thread in threading.enumerate():
        if thread.name.startswith(f"run {run.id}"):
            thread.join(30)
            assert not thread.is_alive()


def test_cancelled_is_an_error_of_ones_own_run_only(fake: Fake, publisher: Publisher) -> None:
    with pytest.raises(RunCancelled), publisher.run("ada"):
        raise RunCancelled("another")
