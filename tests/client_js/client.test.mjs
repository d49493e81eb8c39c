import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { connect, delay, Ledger, reaction } from "../../trio_ws/admin/static/client.js";
import { event, World } from "./world.mjs";

const URL_ = "ws://server/ws";
let world;
beforeEach(() => {
  world = new World();
  Math.random = () => 0.5;
});

/** A client with what it handed to its handlers. */
function open(options = {}) {
  const c = connect(URL_, { user: "ada", onError() {}, ...options });
  const got = [];
  const states = [];
  const gaps = [];
  c.on("*", (e) => void got.push(e.seq));
  c.on("gap", (g) => void gaps.push(g));
  c.on("state", (s) => void states.push(s.state));
  return { c, got, states, gaps };
}

test("delays: quick at first, then doubling to 20 s with full jitter", () => {
  assert.deepEqual([0, 1, 2].map((n) => delay(n, () => 0.5)), [0.1, 0.5, 1]);
  assert.equal(delay(0, () => 0), 0.095);
  assert.deepEqual([3, 4, 5, 6, 7, 50].map((n) => delay(n, () => 1)), [2, 4, 8, 16, 20, 20]);
  assert.equal(delay(5, () => 0), 0);
});

test("the close table", () => {
  for (const code of [1000, 1007, 1009, 4400, 4403, 4409, 4429, 4499]) assert.equal(reaction(code), "stop", code);
  for (const code of [1001, 1005, 1006, 1011, 4500, 4501, 4502, 4503]) assert.equal(reaction(code), "retry", code);
  assert.equal(reaction(4401), "token");
});

const welcome = { session: "s", epoch: "e", seq: 5, head: 9, resumed: false };

test("the ledger: each seq exactly once, without a hole", () => {
  const ledger = new Ledger();
  ledger.welcome(welcome);
  assert.equal(ledger.event({ seq: 6, id: "a" }), "new");
  assert.throws(() => ledger.event({ seq: 6, id: "a" }));
  assert.throws(() => ledger.event({ seq: 8, id: "b" }));
  assert.equal(ledger.event({ seq: 6, id: "a", retry: 1 }), "repeat");
  assert.throws(() => ledger.event({ seq: 8, id: "b", retry: 1 }), "a retry never runs ahead");
  assert.equal(ledger.event({ seq: 8, id: "b", merged: { from: 7, n: 1 } }), "new");
  for (const merged of [{ from: 9, n: 1 }, { from: 9, n: 3 }, { from: 11, n: 0 }, { from: 9 }]) {
    assert.throws(() => ledger.event({ seq: 11, id: "b", merged }), JSON.stringify(merged));
  }
  assert.throws(() => ledger.gap({ from: 10, to: 11 }));
  assert.throws(() => ledger.gap({ from: 9, to: 9.5 }));
  assert.throws(() => ledger.gap({ from: 9, to: 8 }));
  assert.equal(ledger.gap({ from: 9, to: 12 }), true);
  assert.throws(() => ledger.live(13));
  assert.equal(ledger.received, 12);
});

test("the ledger: a resume that goes on from earlier repeats, and one that leaves out is refused", () => {
  const ledger = new Ledger();
  ledger.welcome(welcome);
  ledger.event({ seq: 6, id: "a" });
  ledger.event({ seq: 7, id: "b" });
  ledger.welcome({ ...welcome, seq: 6, resumed: true });
  assert.equal(ledger.event({ seq: 7, id: "b" }), "repeat");
  assert.equal(ledger.event({ seq: 8, id: "c" }), "new");
  assert.throws(() => ledger.welcome({ ...welcome, seq: 9, resumed: true }));
  assert.equal(ledger.session, undefined, "somebody else has the session");
  assert.throws(() => ledger.welcome({ ...welcome, epoch: "other", resumed: true }));
});

test("the ledger: a reset makes a gap of what was not received, and knows events again by id", () => {
  const ledger = new Ledger();
  ledger.welcome(welcome);
  ledger.event({ seq: 6, id: "a" });
  assert.deepEqual(ledger.welcome({ session: "s2", epoch: "e2", seq: 0, head: 3, resumed: false }), {
    from: 7, to: 9, reason: "reset", lost: {}, critical: 0, anew: true });
  assert.equal(ledger.event({ seq: 1, id: "a" }), "known");
  assert.equal(ledger.event({ seq: 2, id: "b" }), "new");
  ledger.live(2);
  assert.equal(ledger.event({ seq: 3, id: "a" }), "new", "after the replay an equal id is another event");
});

test("says hello, handles in order, and acks what was handled", async () => {
  const { c, got, states } = open({ token: "t0p" });
  assert.deepEqual(await world.welcome({ head: 2 }), { t: "hello", token: "t0p", user: "ada", from: "retained" });
  assert.deepEqual([world.socket.url, world.socket.protocol], [URL_, "trio-ws.v1"]);
  assert.deepEqual({ ...c.status }, { state: "catching_up", done: 0, total: 2 });
  await world.say(event(1), event(2), { t: "live", seq: 2 });
  assert.deepEqual(got, [1, 2]);
  assert.deepEqual(world.sent("ack"), []);
  await world.pass(0.06);
  assert.deepEqual(world.sent("ack"), [{ t: "ack", seq: 2 }]);
  await world.say(event(3, { critical: true }));
  assert.equal(world.sent("ack").at(-1).seq, 3, "a critical one at once");
  assert.deepEqual(states, ["catching_up", "live"]);
});

test("acks after so many events, and at once on a hidden page", async () => {
  open();
  await world.welcome({ ack: { events: 3, delay: 60 } });
  await world.say(event(1), event(2));
  assert.equal(world.sent("ack").length, 0);
  await world.say(event(3));
  assert.equal(world.sent("ack").at(-1).seq, 3);
  world.hidden = true;
  await world.say(event(4));
  assert.equal(world.sent("ack").at(-1).seq, 4);
});

test("an event is acked when its handler's promise has resolved, and the next one waits", async () => {
  const { c } = open();
  const log = [];
  c.on("note", async (e) => {
    log.push(`begin ${e.seq}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    log.push(`end ${e.seq}`);
  });
  await world.welcome();
  await world.say(event(1), event(2));
  assert.deepEqual(log, ["begin 1"]);
  await world.pass(1.5);
  assert.deepEqual(log, ["begin 1", "end 1", "begin 2"]);
  assert.equal(world.sent("ack").at(-1).seq, 1, "not kept back by the slow one after it");
});

test("a handler that fails gets the event again, the others don't", async () => {
  const { c, got } = open();
  let tries = 0;
  c.on("note", (e) => {
    if (e.seq === 1 && ++tries < 3) throw new Error("not yet");
  });
  await world.welcome();
  await world.say(event(1, { critical: true }), event(2));
  assert.deepEqual([got, world.sent("nack"), world.sent("ack")], [[1], [{ t: "nack", seq: 1 }], []]);
  await world.say(event(1, { retry: 1 }));
  assert.equal(world.sent("nack").length, 2);
  await world.say(event(1, { retry: 2 }));
  assert.deepEqual([got, tries], [[1, 2], 3]);
  await world.pass(0.06);
  assert.equal(world.sent("ack").at(-1).seq, 2);
  assert.deepEqual([c.figures.failures, c.figures.handled, c.figures.duplicates], [2, 2, 0]);
});

test("a failed event is tried again from here, and passed over in the end", async () => {
  const errors = [];
  const { c, got } = open({ attempts: 2, onError: (error, e, final) => errors.push([e.seq, final]) });
  c.on("note", (e) => e.seq === 1 && Promise.reject(new Error("never")));
  await world.welcome();
  await world.say(event(1), event(2));
  await world.pass(1);
  await world.say({ t: "ping", seq: 2, next: 25 });
  await world.pass(6);
  assert.deepEqual(errors, [[1, false], [1, true]]);
  assert.deepEqual(got, [1, 2]);
});

test("nacks that the server can't answer never add up to its patience", async () => {
  const { c } = open({ attempts: Infinity });
  c.on("note", () => { throw new Error("never"); });
  await world.welcome();
  await world.say(event(1));
  for (let n = 0; n < 30; n++) {
    await world.say({ t: "error", code: 4400, reason: "nack 1: no longer held", fatal: false });
    await world.say({ t: "ping", seq: 1, next: 25 });
    await world.pass(2);
  }
  assert.ok(world.sent("nack").length < 10, world.sent("nack").length);
  assert.ok(c.figures.failures > 20);
});

test("a lost connection resumes where it was, and acks again what may not have arrived", async () => {
  const { c, got } = open();
  await world.welcome();
  await world.say(event(1), event(2));
  await world.shut();
  assert.equal(c.status.state, "offline");
  assert.equal(c.status.retryAt, Date.now() + 100);
  await world.pass(0.11);
  const hello = await world.welcome({ seq: 2, head: 3, resumed: true });
  assert.deepEqual([hello.session, hello.epoch, hello.seq], ["s1", "e1", 2]);
  assert.deepEqual(world.sent("ack"), [{ t: "ack", seq: 2 }]);
  await world.say(event(3));
  assert.deepEqual(got, [1, 2, 3]);
});

test("a repeat of what was handled is acked again, and not handled", async () => {
  const { c, got } = open();
  await world.welcome();
  await world.say(event(1, { critical: true }));
  await world.say(event(1, { critical: true, retry: 1 }));
  assert.deepEqual([got, world.sent("ack").length, c.figures.duplicates], [[1], 2, 1]);
});

test("a session that begins again, a little earlier: nothing is acked that it was not sent", async () => {
  const { got } = open();
  await world.welcome();
  await world.say(event(1), event(2), event(3));
  await world.pass(0.1);
  await world.shut();
  await world.pass(0.2);
  await world.welcome({ session: "s2", seq: 1, head: 3, resumed: true });
  assert.deepEqual(world.sent("ack"), [{ t: "ack", seq: 1 }]);
  await world.say(event(2, { id: "id-2" }));
  await world.say(event(3));
  assert.deepEqual([got, world.sent("ack").map((a) => a.seq)], [[1, 2, 3], [1, 2, 3]]);
});

test("a hole means a new connection, and nothing out of order for the handlers", async () => {
  const { c, got } = open();
  await world.welcome();
  await world.say(event(1), event(3));
  assert.deepEqual([got, c.figures.violations, c.status.state], [[1], 1, "offline"]);
  assert.ok(world.socket.closed);
});

for (const [name, data] of [["not JSON", "{"], ["binary", new Blob(["{}"])], ["no frame", "5"], ["an event before welcome", JSON.stringify(event(1))],
  ["a heartbeat that is no time", JSON.stringify({ t: "welcome", session: "s", epoch: "e", seq: 0, head: 0, heartbeat: {}, ack: {} })]]) {
  test(`a violation: ${name}`, async () => {
    const { c } = open();
    await world.open();
    world.socket.onmessage({ data });
    assert.deepEqual([c.figures.violations, c.status.state], [1, "offline"]);
    await world.pass(0.2);
    assert.equal(world.sockets.length, 2);
  });
}

test("unknown frames and keys are ignored", async () => {
  const { got } = open();
  await world.welcome({ novel: 1 });
  await world.say({ t: "novelty" }, event(1, { novel: true }));
  assert.deepEqual(got, [1]);
});

test("the schedule: attempts are abandoned after 4 s, and attempt 1 starts over after 5 s of stability only", async () => {
  open();
  const begun = async () => {
    const count = world.sockets.length;
    const from = world.now;
    while (world.sockets.length === count) await world.pass(0.01);
    return Math.round((world.now - from) * 100) / 100;
  };
  const hung = world.socket;
  await world.pass(3.99);
  assert.ok(!hung.closed);
  assert.equal(Math.round((await begun()) * 10), 1);
  assert.ok(hung.closed);
  await world.shut();
  assert.equal(Math.round((await begun()) * 10), 5);
  await world.welcome();
  await world.pass(1);
  await world.shut();
  assert.equal(Math.round((await begun()) * 10), 10);
  await world.welcome({ resumed: true });
  await world.pass(3);
  await world.say({ t: "ping", seq: 0, next: 25 });
  await world.pass(3);
  await world.shut();
  assert.equal(Math.round((await begun()) * 10), 1);
});

test("the server's word replaces the delay: drain, retry_after", async () => {
  const { c } = open();
  await world.welcome();
  await world.say({ t: "drain", after: [2, 4] });
  await world.shut(4503);
  assert.equal(c.status.retryAt, Date.now() + 3000);
  await world.pass(3.1);
  await world.open();
  await world.say({ t: "error", code: 4503, reason: "overloaded", fatal: true, retry_after: 7 });
  await world.shut(1006);
  assert.deepEqual([c.status.code, c.status.reason, c.status.retryAt], [4503, "overloaded", Date.now() + 7000]);
});

test("silence beyond what was promised drops the connection; a late timer asks first", async () => {
  const { c } = open();
  await world.welcome();
  await world.say({ t: "ping", seq: 0, next: 10 });
  assert.equal(world.sent("pong").length, 1);
  await world.pass(11.9);
  assert.equal(c.status.state, "catching_up");
  await world.pass(0.15);
  assert.deepEqual([c.status.state, c.status.reason], ["offline", "the server fell silent"]);
  await world.pass(0.2);
  await world.welcome({ resumed: true });
  await world.pass(60, { late: true });
  assert.equal(world.sent("ping").length, 1, "slept: is it still there?");
  assert.equal(c.status.state, "catching_up");
  await world.pass(4.05);
  assert.equal(c.status.state, "offline");
});

test("a machine that slept is noticed, though the page's own clock stood still", async () => {
  const { c } = open();
  await world.welcome();
  await world.say({ t: "ping", seq: 0, next: 1000 });
  await world.pass(30);
  assert.equal(world.sent("ping").length, 0);
  world.slept = 3600;
  await world.pass(5);
  assert.equal(world.sent("ping").length, 1);
  await world.say({ t: "pong" });
  await world.pass(60);
  assert.deepEqual([world.sent("ping").length, c.status.state], [1, "catching_up"]);
  world.slept = 0; // somebody set the clock back: nothing is concluded from that
  await world.pass(60);
  assert.deepEqual([world.sent("ping").length, c.status.state], [1, "catching_up"]);
});

test("4401: a fresh token once, where there is a source of them", async () => {
  let count = 0;
  const { c } = open({ token: async () => `token-${++count}` });
  await world.settle();
  assert.equal((await world.open()).token, "token-1");
  await world.shut(4401);
  await world.pass(0.2);
  assert.equal((await world.open()).token, "token-2");
  await world.shut(4401, "no valid credentials");
  assert.deepEqual({ ...c.status }, { state: "ended", code: 4401, reason: "no valid credentials" });
  const fixed = open({ token: "fixed" });
  await world.open();
  await world.shut(4401);
  assert.equal(fixed.c.status.state, "ended");
});

test("a token is replaced before it expires", async () => {
  let count = 0;
  open({ token: () => `token-${++count}` });
  await world.settle();
  await world.welcome({ expires: Date.now() / 1000 + 10, heartbeat: { active: 99, idle: 99, grace: 2 } });
  await world.pass(8.1);
  assert.deepEqual(world.sent("auth"), [{ t: "auth", token: "token-2" }]);
});

test("a token that can't be had is asked for again", async () => {
  let count = 0;
  open({ token: () => (++count < 2 ? Promise.reject(new TypeError("offline")) : "t") });
  await world.pass(0.2);
  assert.equal((await world.open()).token, "t");
});

test("a token that comes too late opens nothing", async () => {
  const givers = [];
  const { c } = open({ token: () => new Promise((resolve) => givers.push(resolve)) });
  await world.pass(4.5);
  assert.deepEqual([givers.length, world.sockets.length], [2, 0]);
  c.close();
  givers.forEach((give) => give("late"));
  await world.settle();
  assert.deepEqual([world.sockets.length, c.status.state], [0, "ended"]);
});

test("an end for good: no attempt, no timer, no listener, and messages are rejected", async () => {
  const { c } = open();
  await world.welcome();
  const sending = c.send("stop");
  await world.shut(4403, "ended by the operator");
  assert.deepEqual([c.status.state, c.status.code], ["ended", 4403]);
  await assert.rejects(sending, /ended by the operator/);
  await assert.rejects(c.send("stop"), /ended/);
  assert.deepEqual([world.timers, [...world.listeners.values()].every((set) => set.size === 0), world.storage.size], [0, true, 0]);
});

test("close: what was handled is acked, then bye", async () => {
  const { c } = open();
  await world.welcome();
  await world.say(event(1));
  const { socket } = world;
  c.close();
  assert.deepEqual(socket.sent.slice(1), [{ t: "ack", seq: 1 }, { t: "bye" }]);
  assert.deepEqual([socket.closed, c.status.state, world.timers], [true, "ended", 0]);
});

test("closed from its own handlers and from its own state, it stays closed", async () => {
  const inHandler = open();
  inHandler.c.on("note", () => inHandler.c.close());
  await world.welcome();
  await world.say(event(1), event(2));
  assert.deepEqual([inHandler.c.status.state, world.timers], ["ended", 0]);
  for (const when of ["catching_up", "live", "offline", "connecting"]) {
    world = new World();
    const { c } = open();
    c.on("state", (s) => s.state === when && c.close());
    await world.welcome();
    await world.say({ t: "live", seq: 0 });
    await world.shut();
    await world.pass(1);
    assert.deepEqual([c.status.state, world.timers, world.sockets.length <= 2], ["ended", 0, true], when);
  }
});

test("messages are kept until they are answered, and sent again on each connection", async () => {
  const { c } = open();
  const payload = { run: 7 };
  const first = c.send("stop", payload);
  payload.run = 8;
  await world.welcome();
  const [message] = world.sent("message");
  assert.deepEqual([message.type, message.payload], ["stop", { run: 7 }]);
  await world.shut();
  await world.pass(0.2);
  await world.welcome({ resumed: true });
  assert.deepEqual(world.sent("message"), [message]);
  await world.say({ t: "accepted", id: message.id });
  await first;
  const second = c.send("stop");
  await world.say({ t: "rejected", id: world.sent("message").at(-1).id, error: "no_handler" });
  await assert.rejects(second, { message: "no_handler" });
  await assert.rejects(c.send("big", "x".repeat(70000)), /too large/);
});

test("only so many messages are under way at a time", async () => {
  const { c } = open();
  await world.welcome();
  for (let n = 0; n < 40; n++) c.send("note", n);
  assert.equal(world.sent("message").length, 16);
  for (let n = 0; n < 40; n++) await world.say({ t: "accepted", id: world.sent("message")[n].id });
  assert.deepEqual(world.sent("message").map((m) => m.payload), [...Array(40).keys()]);
});

test("a reload goes on from what was processed; a duplicated tab begins a session of its own", async () => {
  const before = open();
  before.c.on("note", (e) => e.seq === 2 && new Promise(() => {})); // still at it when the page goes
  await world.welcome();
  await world.say(event(1), event(2));
  const copy = new Map(world.storage);
  await world.fire("pagehide");
  assert.ok(world.socket.closed);
  world.listeners.clear();
  open();
  const hello = await world.open();
  assert.deepEqual([hello.session, hello.epoch, hello.seq], ["s1", "e1", 1]);
  world.storage = copy;
  open();
  assert.equal((await world.open()).session, undefined);
});

test("a reload does not skip what was waiting when the server had to begin a new session", async () => {
  const before = open();
  before.c.on("note", (e) => e.seq === 2 && new Promise(() => {})); // still at it when the page goes
  await world.welcome();
  await world.say(event(1), event(2), event(3));
  world.socket.onclose({ code: 1006, reason: "" });
  await world.pass(0.2);
  await world.welcome({ session: "s2", seq: 3, head: 3, resumed: true });
  await world.fire("pagehide");
  world.listeners.clear();
  open();
  const hello = await world.open();
  assert.deepEqual([hello.session || undefined, hello.epoch, hello.seq], [undefined, "e1", 1]);
});

test("back from the back-forward cache it connects again; if another page took the session, with a new one", async () => {
  const { got } = open();
  await world.welcome();
  await world.say(event(1));
  await world.fire("pagehide");
  await world.pass(60);
  assert.equal(world.sockets.length, 1);
  await world.fire("pageshow");
  await world.welcome({ seq: 5, head: 9, resumed: true }); // acked by the other page
  await world.pass(0.2);
  const hello = await world.welcome({ session: "s2", seq: 1, head: 9, resumed: true });
  assert.deepEqual([hello.session, hello.epoch, hello.seq], [undefined, "e1", 1]);
  await world.say(event(2));
  assert.deepEqual(got, [1, 2]);
});

test("the network's and the page's coming back cut waiting short", async () => {
  const { c } = open();
  await world.welcome();
  await world.fire("offline");
  assert.equal(c.status.state, "offline");
  for (let n = 0; n < 4; n++) {
    await world.pass(4.5);
    await world.shut();
  }
  for (const type of ["online", "visibilitychange"]) {
    const count = world.sockets.length;
    await world.fire(type);
    assert.equal(world.sockets.length, count + 1, type);
    await world.shut();
  }
  await world.fire("online");
  await world.welcome({ resumed: true });
  await world.fire("visibilitychange");
  assert.equal(world.sent("ping").length, 1, "connected: is it alive?");
});

test("handlers that are far behind make the connection rest, and nothing is lost", async () => {
  const { c, got } = open();
  let release;
  c.on("note", (e) => e.seq === 1 && new Promise((resolve) => (release = resolve)));
  await world.welcome();
  await world.say(...Array.from({ length: 1200 }, (_, n) => event(n + 1)));
  assert.deepEqual([c.status.state, c.status.reason, c.status.retryAt], ["offline", "the handlers are behind", undefined]);
  await world.pass(60);
  assert.equal(world.sockets.length, 1);
  release();
  await world.settle();
  assert.equal((await world.open()).seq, 1200);
  assert.deepEqual([got.length, got.at(-1)], [1200, 1200]);
});

test("a large message is no reason to hang up while the handlers keep up", async () => {
  const { got, c } = open();
  await world.welcome();
  await world.say(...Array.from({ length: 3000 }, (_, n) => event(n + 1)));
  assert.deepEqual([got.length, c.figures.connections, world.socket.closed], [3000, 1, false]);
});

test("from now: a failing resume must not skip in silence", async () => {
  open({ from: "now" });
  assert.equal((await world.welcome()).from, "now");
  await world.shut();
  await world.pass(0.2);
  assert.equal((await world.open()).from, "pending");
});

test("a reset is told as a gap, in its place", async () => {
  const { got, gaps } = open();
  await world.welcome({ head: 3 });
  await world.say(event(1));
  await world.shut();
  await world.pass(0.2);
  await world.welcome({ session: "s2", epoch: "e2", head: 1 });
  await world.say(event(1, { id: "new" }), { t: "gap", from: 2, to: 4, reason: "evicted", lost: { note: 3 }, critical: 0 });
  assert.deepEqual(gaps.map((g) => [g.reason, g.from, g.to]), [["reset", 2, 3], ["evicted", 2, 4]]);
  assert.deepEqual(got, [1, 1]);
  await world.pass(0.06);
  assert.equal(world.sent("ack").at(-1).seq, 4);
});

test("types that are called like the client's own go to * only", async () => {
  const { c, got, gaps } = open();
  await world.welcome();
  await world.say(event(1, { type: "gap" }), event(2, { type: "state" }), event(3, { type: "*" }));
  assert.deepEqual([got, gaps, c.figures.handled], [[1, 2, 3], [], 3]);
});

test("a handler can be taken away", async () => {
  const { c } = open();
  const log = [];
  const off = c.on("note", (e) => void log.push(e.seq));
  await world.welcome();
  await world.say(event(1));
  off();
  await world.say(event(2));
  assert.deepEqual(log, [1]);
});

test("URLs: relative to the page, http stands for ws, and what is none is told at once", () => {
  connect("https://server/ws", { key: null });
  assert.equal(world.socket.url, "wss://server/ws");
  assert.throws(() => connect("::", {}), TypeError);
});

test("runs: snapshots and standing questions come in order, and are not acked", async () => {
  const { c, got } = open();
  const told = [];
  c.on("snapshot", (e) => void told.push(e));
  c.on("standing", (e) => void told.push(e));
  await world.welcome({ seq: 4, head: 4 });
  const payload = { status: "running", text: "Hello" };
  await world.say({ t: "standing", seq: 4, questions: [{ question: "q" }] }, event(5, { run: "r" }), event(6));
  await world.say({ t: "snapshot", seq: 9, run: "r", payload, ts: 3 }, event(7));
  assert.deepEqual(told, [
    { seq: 4, type: "standing", payload: { questions: [{ question: "q" }] } },
    { seq: 9, type: "snapshot", run: "r", payload, ts: 3 },
  ]);
  assert.deepEqual(got, [4, 5, 6, 9, 7]);
  await world.pass(0.06);
  assert.equal(world.sent("ack").at(-1).seq, 7);
  assert.deepEqual([c.figures.events, c.figures.handled, c.figures.violations], [5, 5, 0]);
});

test("runs: a handler that fails on a snapshot is given it again, and the server hears nothing of it", async () => {
  const { c, got } = open();
  let tries = 0;
  c.on("snapshot", () => {
    if (++tries < 3) throw new Error("not yet");
  });
  await world.welcome({ seq: 4, head: 4, heartbeat: { active: 100, idle: 100, grace: 2 } });
  await world.say({ t: "snapshot", seq: 4, run: "r", payload: {}, ts: 3 }, event(5));
  await world.pass(13);
  assert.deepEqual([tries, got, world.sent("nack")], [3, [4, 5], []]);
});
