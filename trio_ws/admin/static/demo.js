/**
 * The demo page: one story told twice, by client.js and by a bare WebSocket, over the same breakable network.
 */

import { connect } from "/client.js";

const KEPT = 8; // runs and gaps on the page
const SETTLE = 1500; // ms after which what the bare WebSocket has not seen is lost
const LIFECYCLE = new Set(["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]);

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** What a user was shown: runs and gaps, newest first. Plain data, so that a reload can keep it. */
class Story {
  constructor(items = []) {
    this.items = items;
    this.flood = undefined;
    this.evicted = 0; // of a flood that is still to be heard of
  }

  run(number) {
    let run = this.items.find((item) => item.run === number);
    if (!run) {
      run = { run: number, agent: "", task: "", steps: [], answer: "", state: "working" };
      this.put(run);
    }
    return run;
  }

  put(item) {
    this.items.unshift(item);
    this.items.length = Math.min(this.items.length, KEPT);
  }

  apply({ type, payload, ts }) {
    if (type === "progress") {
      if (this.flood?.number !== payload.flood) {
        this.flood = { number: payload.flood, of: payload.of, got: 0, gone: this.evicted };
        this.evicted = 0;
      }
      this.flood.got++;
      return;
    }
    if (typeof payload?.run !== "number") return;
    const run = this.run(payload.run);
    const call = run.steps.find((step) => step.call === payload.call && step.call !== undefined);
    switch (type) {
      case "agent_started":
        return Object.assign(run, { agent: payload.agent, task: payload.task, started: ts });
      case "agent_thinking":
        return run.steps.push({ thought: payload.thought });
      case "tool_executing":
        return run.steps.push({ call: payload.call, tool: payload.tool, input: payload.input, output: "", state: "working" });
      case "tool_output":
        if (call) call.output += payload.text;
        else run.steps.push({ call: payload.call, tool: "?", input: "its start was missed", output: payload.text, state: "working" });
        return;
      case "tool_completed":
        if (call) Object.assign(call, { state: payload.ok ? "done" : "failed", summary: payload.summary });
        return;
      case "text":
        run.answer += payload.text;
        return;
      case "agent_completed":
        return Object.assign(run, { state: "done", duration: payload.duration });
    }
  }

  gap({ reason, lost, critical }) {
    const count = Object.values(lost).reduce((sum, n) => sum + n, 0);
    const { flood } = this;
    if (flood && flood.got + flood.gone < flood.of) flood.gone += lost.progress ?? 0;
    else this.evicted += lost.progress ?? 0;
    const last = this.items[0];
    if (last?.gap === reason && reason !== "reset") {
      last.count += count;
      last.critical += critical;
    } else if (reason !== "settled") this.put({ gap: reason, count, critical });
    if (reason === "reset") this.items.forEach((run) => run.state === "working" && (run.state = "lost"));
  }

  characters(run) {
    return run.answer.length + run.steps.reduce((sum, step) => sum + (step.output?.length ?? 0), 0);
  }
}

/** Draws a story; what has not changed is left alone. */
class View {
  #box;
  #drawn = new Map();

  constructor(box) {
    this.#box = box;
  }

  draw(items) {
    const elements = items.map((item) => {
      const drawn = this.#drawn.get(item) ?? (item.gap ? { element: make("p", "gap") } : this.#frame());
      this.#drawn.set(item, drawn);
      if (item.gap) drawn.element.textContent = gapText(item);
      else this.#fill(drawn, item);
      return drawn.element;
    });
    for (const item of this.#drawn.keys()) if (!items.includes(item)) this.#drawn.delete(item);
    if (elements.some((element, n) => this.#box.children[n] !== element) || this.#box.children.length !== elements.length) {
      this.#box.replaceChildren(...elements);
    }
  }

  #frame() {
    const element = $("run").content.firstElementChild.cloneNode(true);
    const part = (name) => element.querySelector(`.${name}`);
    return { element, agent: part("agent"), number: part("number"), pill: part("pill"), task: part("task"),
      steps: part("steps"), answer: part("answer"), drawn: [] };
  }

  #fill(view, run) {
    view.element.className = `run ${run.state}`;
    say(view.agent, run.agent || "Somebody");
    say(view.number, `run ${run.run}`);
    say(view.pill, {
      working: "working",
      done: `done in ${run.duration} s`,
      holed: `done, but ${run.missing} characters are missing`,
      lost: "stuck for ever",
    }[run.state]);
    say(view.task, run.task || "its beginning is not here");
    say(view.answer, run.answer);
    run.steps.forEach((step, n) => {
      view.drawn[n] ??= view.steps.appendChild(step.thought === undefined ? callElement() : make("li", "thought"));
      const element = view.drawn[n];
      if (step.thought !== undefined) return say(element, step.thought);
      element.className = `call ${step.state}`;
      const [tool, input, mark, output] = ["tool", "input", "mark", "output"].map((name) => element.querySelector(`.${name}`));
      say(tool, step.tool);
      say(input, step.input);
      say(mark, { working: "running", done: step.summary, failed: step.summary }[step.state]);
      if (say(output, step.output)) output.scrollTop = output.scrollHeight;
    });
  }
}

function callElement() {
  const element = make("li", "call");
  const details = make("details", "");
  const summary = make("summary", "");
  details.open = true;
  summary.append(make("span", "tool"), make("span", "input"), make("span", "mark"));
  details.append(summary, make("pre", "output"));
  element.append(details);
  return element;
}

function gapText({ gap, count, critical }) {
  if (gap === "reset") return "The server has started anew: what it had not delivered is gone, and this says so.";
  return `${count} events will not come: ${gap}. Critical among them: ${critical}.`;
}

/** Sets a text if it is another one; whether it was. */
function say(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

function figures(box, entries) {
  entries.forEach(([name, value, tone = ""], n) => {
    const div = box.children[n] ?? box.appendChild(make("div", ""));
    if (!div.children.length) div.append(make("dt", "", name), make("dd", ""));
    div.className = tone;
    say(div.lastChild, String(value));
  });
}

/** The whole of what a hand-written client usually does. */
class Bare {
  story = new Story();
  events = 0;
  reconnects = 0;
  missed = 0;
  characters = 0;
  open = false;
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

  #take(event) {
    this.events++;
    this.since ??= event.ts;
    if (LIFECYCLE.has(event.type)) this.#seen.add(event.id);
    this.story.apply(event);
    redraw();
  }

  /** Whether it has seen an event; it is asked once. */
  saw(id) {
    return this.#seen.delete(id);
  }

  finished(run) {
    const own = this.story.items.find((item) => item.run === run.run);
    const missing = ours.characters(run) - (own ? ours.characters(own) : 0);
    this.characters += missing;
    if (own?.state === "done" && missing) Object.assign(own, { state: "holed", missing });
    else if (own?.state === "working") own.state = "lost";
  }
}

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
  const tab = make("a", "", name);
  tab.href = `?user=${name}`;
  if (name === user) tab.setAttribute("aria-current", "page");
  $("users").append(tab);
}
$("tab").href = `?user=${user}`;

// What was shown is kept with the session: both when the page goes away, and neither if it crashes.
const kept = `demo:${user}`;
const ours = new Story(JSON.parse(sessionStorage.getItem(kept) ?? "[]"));
sessionStorage.removeItem(kept);
addEventListener("pagehide", () => sessionStorage.setItem(kept, JSON.stringify(ours.items)));
addEventListener("pageshow", () => sessionStorage.removeItem(kept));

const views = [new View($("runs")), new View($("bare-runs"))];
const watched = []; // what the bare WebSocket should see as well: {id, ts, at} and finished runs
const tally = { cutAt: undefined, recovery: undefined };
let slow = false;
let failing = false;

const c = connect(address, {
  user,
  key: `trio-ws:demo:${user}`,
  onError: (error, event, final) => final && console.error(error, event),
});
const bare = new Bare(`${address}&user=${user}`);

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
    tally.recovery = Math.round(performance.now() - tally.cutAt);
    tally.cutAt = undefined;
  }
  redraw();
});

function take(event) {
  ours.apply(event);
  const at = performance.now();
  if (LIFECYCLE.has(event.type)) watched.push({ id: event.id, ts: event.ts, at });
  if (event.type === "agent_completed") watched.push({ run: ours.run(event.payload.run), at });
  redraw();
}

/** What the bare WebSocket should have seen by now. */
function compare() {
  while (watched.length && watched[0].at < performance.now() - SETTLE) {
    const { id, ts, run } = watched.shift();
    if (bare.since === undefined) continue;
    if (run) run.started > bare.since && bare.finished(run);
    else if (!bare.saw(id) && ts > bare.since) bare.missed++;
  }
  redraw();
}

let drawing = false;
function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    badge();
    const { events, handled, gaps, duplicates, failures, connections, violations } = c.figures;
    figures($("figures"), [
      ["events", events],
      ["confirmed", handled, "good"],
      ["gaps", gaps],
      ["duplicates", duplicates],
      ["reconnects", Math.max(0, connections - 1)],
      ["failures", failures],
      ["last recovery", tally.recovery === undefined ? "–" : `${tally.recovery} ms`],
      ["lost in silence", violations, violations ? "bad" : "good"], // the accounting rule proves it
    ]);
    figures($("bare-figures"), [
      ["events", bare.events],
      ["reconnects", bare.reconnects],
      ["critical lost", bare.missed, bare.missed && "bad"],
      ["characters lost", Math.max(0, bare.characters), bare.characters > 0 && "bad"],
    ]);
    flooded();
    views[0].draw(ours.items);
    views[1].draw(bare.story.items);
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
function badge() {
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
    box.append(Object.assign(make("span", ""), { ariaHidden: "true" })); // a countdown is not read out
  }
  if (state.data !== texts[status.state]) state.data = texts[status.state];
  say(box.lastChild, seconds);
}

function tell(text, loud = false) {
  $("notice").classList.toggle("loud", loud);
  say($("notice"), text);
}

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) tell(`The server refused that: ${answer.status}.`, true);
}

const network = (fault, seconds = 0) => post("/demo/network", { link, fault, seconds });
$("cut").onclick = () => network("cut");
$("away").onclick = () => network("cut", 3);
$("silence").onclick = () => network("silence", 5);
$("flood").onclick = () => post("/demo/flood", { user, count: 1000 });
$("fail").onclick = () => (failing = true);
$("slow").onclick = ({ currentTarget }) => {
  slow = !slow;
  currentTarget.setAttribute("aria-pressed", slow);
};

setInterval(compare, 500);
setInterval(() => c.status.state === "offline" && redraw(), 100);
redraw();
// For tests and the curious.
Object.assign(window, { client: c, ours, bare });
