import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { connect } from "../../trio_ws/admin/static/client.js";
import { answer, cancelRun, ended, foldRuns } from "../../trio_ws/admin/static/runs.js";
import { event, World } from "./world.mjs";

let world;
beforeEach(() => {
  world = new World();
  Math.random = () => 0.5;
});

const of = (run) => (seq, type, payload = {}, more = {}) => event(seq, { type, payload, run, ts: seq, ...more });
const a = of("a");

/** A client that has been welcomed, its runs, and what it was told of changes. */
async function fold(options = {}, welcome = {}) {
  const c = connect("ws://server/ws", { user: "ada", onError: (error) => assert.fail(error), ...options });
  const changes = [];
  const runs = foldRuns(c, { onChange: (run) => changes.push(run), ...options });
  await world.welcome(welcome);
  return { c, runs, changes };
}

test("a run from its beginning to its end", async () => {
  const { runs, changes } = await fold();
  await world.say(
    a(1, "agent_started", { name: "researcher", parent: "p" }),
    a(2, "agent_thinking", { text: "hm" }),
    a(3, "tool_executing", { call: 1, tool: "search", input: "x" }),
    a(4, "tool_output", { call: 1, text: "one " }),
    a(5, "tool_output", { call: 1, text: "two" }),
  );
  assert.deepEqual(runs.get("a").tools, [{ call: 1, tool: "search", input: "x", since: 3, text: "one two" }]);
  await world.say(
    a(6, "tool_completed", { call: 1, tool: "search", outcome: "completed", duration: 2 }),
    a(7, "agent_progress", { fraction: 0.5, message: "half" }),
    a(8, "agent_delta", { text: "Hel" }),
    a(10, "agent_delta", { text: "lo" }, { merged: { from: 9, n: 1 } }),
    a(11, "custom", { text: "no part of it" }),
    a(12, "constructor", {}),
    event(13, { type: "agent_delta", payload: { text: "of no run" } }),
    a(14, "agent_completed", { outcome: "failed", duration: 13, error: { kind: "ValueError" } }),
  );
  assert.deepEqual(JSON.parse(JSON.stringify(runs.get("a"))), {
    ...{ run: "a", seq: 14, status: "failed", started: 1, text: "Hello", text_from: 0, tools: [], calls: 1, questions: [] },
    ...{ name: "researcher", parent: "p", thought: "hm", progress: 0.5, message: "half", ended: 14 },
    ...{ last_tool: { call: 1, tool: "search", outcome: "completed", duration: 2 }, error: { kind: "ValueError" } },
  });
  assert.ok(ended(runs.get("a")));
  assert.deepEqual([changes.length, changes[0].text, runs.size], [10, "", 1], "each change gives a state of its own");
});

test("a snapshot stands for everything up to its seq", async () => {
  const { runs } = await fold({ from: "snapshot", key: null }, { seq: 90, head: 90 });
  assert.equal(world.sent("hello")[0].from, "snapshot");
  const payload = { status: "running", started: 5, text: "so far", text_from: 7, tools: [], calls: 2, questions: [], name: "n" };
  await world.say({ t: "snapshot", seq: 92, run: "a", payload, ts: 9 });
  assert.deepEqual(runs.get("a"), { ...payload, run: "a", seq: 92 });
  await world.say(a(91, "agent_delta", { text: "far" }), a(92, "agent_started"), a(93, "agent_delta", { text: ", and on" }));
  assert.equal(runs.get("a").text, "so far, and on");
  await world.say({ t: "snapshot", seq: 92, run: "a", payload, ts: 9 });
  assert.equal(runs.get("a").seq, 93, "an older one is no news");
  await world.say(event(94, { type: "snapshot", run: "a", payload: { status: "failed" } }));
  assert.equal(runs.get("a").status, "running", "an event of the application's that is called so");
});

test("a gap leaves open runs incomplete, unless a snapshot heals it", async () => {
  const { runs } = await fold();
  const gap = (from, lost, more = {}) => {
    const to = from + Object.values(lost).reduce((sum, n) => sum + n, 0) - 1;
    return { t: "gap", from, to, reason: "evicted", lost, critical: 0, ...more };
  };
  await world.say(a(1, "agent_started"), of("b")(2, "agent_started"), of("b")(3, "agent_completed", { outcome: "completed" }));
  await world.say(gap(4, { note: 2 }), gap(6, { agent_progress: 1 }, { reason: "superseded" }));
  await world.say(gap(7, { agent_delta: 3, note: 1 }, { snapshots: ["a"], healed: 3 }));
  assert.equal(runs.get("a").incomplete, undefined);
  await world.say(gap(11, { agent_delta: 1 }));
  assert.deepEqual([runs.get("a").incomplete, runs.get("b").incomplete], [true, undefined]);
  const payload = { status: "running", started: 1, text: "whole", text_from: 0, tools: [], calls: 0, questions: [] };
  await world.say({ t: "snapshot", seq: 11, run: "a", payload, ts: 9 });
  assert.deepEqual([runs.get("a").incomplete, runs.get("a").text], [undefined, "whole"]);
  await world.say(of("c")(12, "agent_thinking", { text: "I began long ago" }));
  assert.deepEqual([runs.get("c").incomplete, runs.get("c").started], [true, 12]);
});

test("questions: standing ones are all that are open", async () => {
  const { runs, c } = await fold({}, { seq: 0, head: 6 });
  const q = (run, question, ts) => ({ run, question, prompt: "?", choices: ["y", "n"], ts });
  await world.say({ t: "standing", seq: 6, questions: [q("a", "q2", 5), q("b", "q3", 6)] });
  assert.deepEqual([...runs.keys()], ["a", "b"]);
  assert.deepEqual(runs.get("b").questions, [{ question: "q3", prompt: "?", choices: ["y", "n"], ts: 6 }]);
  await world.say(
    a(1, "agent_started"),
    a(2, "question_asked", { question: "q1", prompt: "?" }),
    a(3, "agent_thinking", { text: "patience" }),
  );
  assert.deepEqual(runs.get("a").questions.map((open) => open.question), ["q2"], "q1 was answered elsewhere since");
  assert.equal(runs.get("a").incomplete, undefined);
  await world.say(
    a(4, "question_closed", { question: "q1", outcome: "answered" }),
    a(5, "question_asked", { question: "q2", prompt: "?" }),
    of("b")(6, "question_asked", { question: "q3", prompt: "?" }),
    a(7, "question_closed", { question: "q2", outcome: "expired" }),
    a(8, "question_asked", { question: "q4", prompt: "!", expires: 99 }),
  );
  assert.deepEqual([...runs.values()].flatMap((run) => run.questions.map((open) => open.question)), ["q4", "q3"]);
  await world.say({ t: "standing", seq: 8, questions: [] });
  assert.deepEqual([...runs.values()].flatMap((run) => run.questions), []);
  assert.equal(c.figures.violations, 0);
});

test("an answer and a cancel are messages that are answered", async () => {
  const { c } = await fold();
  const first = answer(c, "q1", "yes");
  const second = assert.rejects(cancelRun(c, "a", "enough"), /run_ended/);
  await world.settle();
  const [asked, cancel] = world.sent("message");
  assert.deepEqual([asked.type, asked.payload], ["agent_answer", { question: "q1", answer: "yes" }]);
  assert.deepEqual([cancel.type, cancel.payload], ["agent_cancel", { run: "a", reason: "enough" }]);
  await world.say({ t: "accepted", id: asked.id }, { t: "rejected", id: cancel.id, error: "run_ended" });
  await Promise.all([first, second]);
  cancelRun(c, "a");
  await world.settle();
  assert.deepEqual(world.sent("message")[2].payload, { run: "a" });
});

test("a reset: open runs are lost, and one that is heard of again begins anew", async () => {
  const { runs } = await fold();
  await world.say(
    ...[a(1, "agent_started"), a(2, "question_asked", { question: "q", prompt: "?" }), a(3, "agent_delta", { text: "written" })],
    ...[of("b")(4, "agent_started"), of("c")(5, "agent_started"), of("c")(6, "agent_completed", { outcome: "cancelled" })],
  );
  await world.shut();
  await world.pass(0.2);
  await world.welcome({ session: "s2", epoch: "e2", head: 1 });
  assert.deepEqual([...runs.values()].map((run) => [run.status, run.incomplete]), [
    ["lost", true],
    ["lost", true],
    ["cancelled", undefined],
  ]);
  assert.deepEqual(runs.get("a").questions, []);
  await world.say(a(1, "agent_delta", { text: ", still here" }, { id: "n1" }), of("b")(2, "agent_started", {}, { id: "n2" }));
  assert.equal(runs.get("a").text, "written, still here");
  assert.deepEqual([...runs.values()].map((run) => [run.status, run.incomplete]), [
    ["running", true],
    ["running", undefined],
    ["cancelled", undefined],
  ]);
});

test("what a reset gave up may go on, and is forgotten after all that has ended", async () => {
  const { runs } = await fold({ kept: 2 });
  await world.say(a(1, "agent_started"));
  await world.shut();
  await world.pass(0.2);
  await world.welcome({ session: "s2", epoch: "e2", head: 0 });
  assert.equal(runs.get("a").status, "lost");
  let seq = 0;
  for (const name of ["b", "c"]) {
    await world.say(of(name)(++seq, "agent_started"), of(name)(++seq, "agent_completed", { outcome: "completed" }));
  }
  assert.deepEqual([...runs.keys()], ["a", "c"]);
});

test("those that ended first are forgotten first", async () => {
  const { runs } = await fold({ kept: 3 });
  let seq = 0;
  for (const name of ["a", "b", "c", "d", "e"]) {
    await world.say(of(name)(++seq, "agent_started"));
    if (name !== "a") await world.say(of(name)(++seq, "agent_completed", { outcome: "completed" }));
  }
  assert.deepEqual([...runs.keys()], ["a", "d", "e"]);
});
