/**
 * The demo page: one story told twice, by client.js and by a bare WebSocket, over the same breakable network.
 */

import { connect } from "/client.js";
import { LIFECYCLE, Story } from "/demo-story.js";
import { milliseconds, say, Strip, View } from "/demo-view.js";
import { answer, cancelRun, ended } from "/runs.js";

const SETTLE = 1500; // ms after which what the bare WebSocket has not seen is lost
const KEY = "trio-ws:api-key";

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The whole of what a hand-written client usually does. */
class Bare {
  story = new Story();
  events = 0;
  reconnects = 0;
  missed = 0;
  characters = 0;
  open = false;
  deaf = false; // open, and what the other side got since does not come
  since; // the ts of its first event: what is older it can't have seen
  #seen = new Set();

  constructor(url) {
    const start = () => {
      const ws = new WebSocket(url);
      ws.onopen = () => (this.open = true);
      ws.onmessage = ({ data }) => this.#take(JSON.parse(data));
      ws.onclose = () => {
        this.open = false;
        this.reconnects++;
        setTimeout(start, 1000);
      };
    };
    start();
  }

  get state() {
    return !this.open ? "offline" : this.deaf ? "deaf" : "live";
  }

  #take(event) {
    event.seq = ++this.events; // it has none
    event.run = event.payload?.run?.toString(); // likewise
    this.deaf = false;
    this.since ??= event.ts;
    const loud = LIFECYCLE.has(event.type);
    if (loud) this.#seen.add(what(event));
    this.story.apply(event);
    strips[1].tick(loud);
    redraw();
  }

  /** Asked once for each critical event, in order: whether it has seen the like. */
  judge(event) {
    if (this.#seen.delete(event)) return;
    this.missed++;
    this.deaf = this.open;
  }

  /** A run that is over on the other side. */
  finished(run) {
    const own = this.story.items.find((item) => item.run === run);
    const missing = ours.characters(run) - this.story.characters(run);
    this.characters += Math.max(0, missing);
    if (!own) return;
    const over = ended(this.story.runs.get(run));
    if (!over) own.state = "stuck";
    else if (missing > 0) Object.assign(own, { state: "holed", missing });
  }
}

/** What an event says, as far as both sides are told of it. */
const what = ({ run, type, payload }) => [run, type, payload?.text, payload?.call, payload?.prompt].join();

const about = await fetch("/demo/about").then((answer) => (answer.ok ? answer.json() : undefined));
if (!about) {
  say($("notice"), "This server runs without the demo. Start it with: trio-ws demo");
  say($("badge"), "no demo");
  throw new Error("no demo");
}

const asked = new URLSearchParams(location.search);
const user = about.users.includes(asked.get("user")) ? asked.get("user") : about.users[0];
const link = Math.random().toString(36).slice(2);
const scheme = location.protocol === "https:" ? "wss" : "ws";
const address = `${scheme}://${location.hostname}:${about.faulty_port}${about.path}?link=${link}`;

for (const name of about.users) {
  const tab = Object.assign(document.createElement("a"), { textContent: name, href: `?user=${name}` });
  if (name === user) tab.setAttribute("aria-current", "page");
  $("users").append(tab);
}
$("tab").href = `?user=${user}`;

// What was shown is kept with the session: both when the page goes away, and neither if it crashes.
const kept = `demo:${user}`;
const ours = new Story(JSON.parse(sessionStorage.getItem(kept) ?? "{}"));
sessionStorage.removeItem(kept);
addEventListener("pagehide", () => sessionStorage.setItem(kept, JSON.stringify(ours.save())));
addEventListener("pageshow", () => sessionStorage.removeItem(kept));

const views = [new View($("runs"), $("run"), { cancel, answer: reply }), new View($("bare-runs"), $("run"))];
const strips = [$("strip"), $("bare-strip")].map((canvas) => new Strip(canvas));
const watched = []; // what the bare WebSocket should see as well: {event, ts, at}, and runs that are over
const tally = { cutAt: undefined, recovery: undefined };
let slow = false;
let failing = false;

const c = connect(address, {
  user,
  key: `trio-ws:demo:${user}`,
  from: "snapshot",
  onError: (error, event, final) => final && console.error(error, event),
});
const bare = new Bare(`${address}&user=${user}${about.twin}`);

c.on("*", (event) => {
  if (failing) {
    failing = false;
    tell(`The handler failed at ${event.type}, seq ${event.seq}. It was not confirmed, and comes again.`, true);
    throw new Error("the handler was told to fail");
  }
  if (event.retry && !slow) tell(`${event.type}, seq ${event.seq}, came again, and is confirmed now.`);
  return slow ? sleep(150).then(() => take(event)) : take(event);
});
c.on("gap", (gap) => {
  ours.gap(gap);
  redraw();
});
c.on("state", (status) => {
  if (status.state === "offline") tally.cutAt ??= performance.now();
  if (status.state === "live" && tally.cutAt !== undefined) {
    tally.recovery = (performance.now() - tally.cutAt) / 1000;
    tally.cutAt = undefined;
  }
  strips[0].state(status.state);
  redraw();
});
strips[0].state(c.status.state);

function take(event) {
  ours.apply(event);
  const at = performance.now();
  const loud = LIFECYCLE.has(event.type);
  if (loud) watched.push({ event: what(event), ts: event.ts, at });
  if (event.type === "agent_completed") watched.push({ run: event.run, at });
  strips[0].tick(loud);
  redraw();
}

/** What the bare WebSocket should have seen by now. */
function compare() {
  while (watched.length && watched[0].at < performance.now() - SETTLE) {
    const { event, ts, run } = watched.shift();
    if (bare.since === undefined) continue;
    if (run) ours.runs.get(run)?.started > bare.since && bare.finished(run);
    else if (ts > bare.since) bare.judge(event);
  }
}

let drawing = false;
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  badges();
  const { handled, gaps, connections, violations, acked, failures, duplicates } = c.figures;
  ours.confirm(acked);
  figures($("figures"), [
    ["critical lost", ours.lost, ours.lost ? "bad" : "good"],
    ["processed", handled],
    ["reconnects", Math.max(0, connections - 1)],
    ["last recovery", tally.recovery === undefined ? "–" : milliseconds(tally.recovery)],
    ["lost in silence", violations, violations ? "bad" : "good"], // the accounting rule proves it
    ["gaps, told", gaps],
    ["repeats dropped", duplicates],
    ["handler failures", failures],
  ]);
  figures($("bare-figures"), [
    ["critical lost", bare.missed, bare.missed ? "bad" : ""],
    ["received", bare.events],
    ["reconnects", bare.reconnects],
    ["characters lost", bare.characters, bare.characters ? "bad" : ""],
  ]);
  flooded();
  views[0].draw(ours);
  views[1].draw(bare.story);
  const asked = [...ours.runs.values()].reduce((sum, run) => sum + run.questions.length, 0);
  document.title = asked ? `(${asked}) trio-ws demo` : "trio-ws demo"; // seen from another tab
}

function figures(box, entries) {
  entries.forEach(([name, value, tone = ""], n) => {
    let cell = box.children[n];
    if (!cell) {
      cell = box.appendChild(document.createElement("div"));
      cell.append(document.createElement("dt"), document.createElement("dd"));
    }
    cell.className = tone;
    say(cell.firstChild, name);
    say(cell.lastChild, String(value));
  });
}

let toldOfFlood = "";
function flooded() {
  if (!ours.flood) return;
  const { of, got, gone } = ours.flood;
  const text = `Flood of ${of}: ${got} arrived${gone ? `, ${gone} evicted and accounted for` : ""}.`;
  if (text !== toldOfFlood) tell((toldOfFlood = text));
}

let state;
function badges() {
  const status = c.status;
  const texts = {
    connecting: "connecting",
    catching_up: `catching up, ${status.done} of ${status.total}`,
    live: "live",
    offline: status.retryAt ? "offline, next attempt in " : "offline",
    ended: `ended: ${status.reason}`,
  };
  const seconds = status.retryAt ? `${Math.max(0, (status.retryAt - Date.now()) / 1000).toFixed(1)} s` : "";
  const box = $("badge");
  box.dataset.state = status.state;
  if (state === undefined) {
    state = box.firstChild;
    box.append(Object.assign(document.createElement("span"), { ariaHidden: "true" })); // a countdown is not read out
  }
  if (state.data !== texts[status.state]) state.data = texts[status.state];
  say(box.lastChild, seconds);
  strips[1].state(bare.open ? "live" : "offline"); // as it takes itself to be
  $("bare-badge").dataset.state = bare.state;
  say($("bare-badge"), { live: "open", deaf: "open, but nothing comes", offline: "closed" }[bare.state]);
}

function tell(text, loud = false) {
  $("notice").classList.toggle("loud", loud);
  say($("notice"), text);
}

async function cancel(run) {
  await cancelRun(c, run, "the user pressed Cancel").catch(({ message }) => tell(`Too late to cancel run ${run}: ${message}.`, true));
}

async function reply(question, choice) {
  await answer(c, question, choice).catch(({ message }) =>
    tell(message === "already_answered" ? "Another tab was first with its answer." : `The answer was refused: ${message}.`, true),
  );
}

/** A call of the admin API. Where it wants a key, the user is asked for it, and it is tried again. */
async function post(path, body = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => undefined);
  if (answer?.ok) return;
  if (answer?.status !== 401) return tell(answer ? `The server refused that: ${answer.status}.` : "The server is away.", true);
  sessionStorage.removeItem(KEY);
  const given = await askForKey();
  if (given === undefined) return;
  sessionStorage.setItem(KEY, given);
  await post(path, body);
}

function askForKey() {
  const dialog = $("ask");
  $("ask-key").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    $("ask-form").onsubmit = (event) => {
      event.preventDefault();
      resolve($("ask-key").value);
      dialog.close();
    };
    dialog.onclose = () => resolve(undefined);
    $("ask-no").onclick = () => dialog.close();
  });
}

function network(fault, seconds = 0) {
  if (fault !== "silence" && c.status.state === "live") tally.cutAt = performance.now(); // a half-open one is noticed later
  return post("/demo/network", { link, fault, seconds });
}

$("cut").onclick = () => network("cut");
$("away").onclick = () => network("cut", 3);
$("half").onclick = () => network("half_open");
$("stall").onclick = () => network("silence", 3);
$("restart").onclick = () => post("/demo/restart");
$("flood").onclick = () => post("/demo/flood", { user, count: 1000 });
$("fail").onclick = () => (failing = true);
$("slow").onclick = ({ currentTarget }) => {
  slow = !slow;
  currentTarget.setAttribute("aria-pressed", slow);
};

setInterval(() => {
  compare();
  strips.forEach((strip) => strip.draw());
  redraw();
}, 200);
redraw();
// For tests and the curious.
Object.assign(window, { client: c, ours, bare });
