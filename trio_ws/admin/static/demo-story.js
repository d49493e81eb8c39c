/** What the demo page tells: a story is made of events and gaps, a view draws it. Both sides of the page have one. */

import { ended, foldRuns } from "/runs.js";

const KEPT = 8; // cards on the page
export const LIFECYCLE = new Set(
  ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "question_asked", "agent_completed"],
);

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Sets a text if it is another one; whether it was. */
export function say(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

/**
 * What a user was shown: runs and gaps, newest first. How each run stands is folded by runs.js; what led there, step by
 * step, is kept here. A late tab has the one, by snapshots, and not the other.
 */
export class Story {
  #fold = {};

  /** @param kept what `save` made of an earlier page's */
  constructor({ items = [], runs = [] } = {}) {
    this.items = items; // {run, steps, …} and {gap, …}; all that is in them is plain data
    this.lost = 0; // critical events, by gaps
    this.flood = undefined;
    this.evicted = 0; // of a flood that is still to be heard of
    this.runs = foldRuns({ on: (type, fn) => (this.#fold[type] = fn) }, { known: runs });
  }

  save() {
    return { items: this.items, runs: [...this.runs.values()] };
  }

  #find(run) {
    return this.items.find((item) => !item.gap && item.run === run);
  }

  /** The card of a run, made where there is none. */
  card(run) {
    return this.#find(run) ?? this.#put({ run, steps: [] });
  }

  /** Within which card an item stands, if it is within one. */
  parent(item) {
    const parent = this.runs.get(item.run)?.parent;
    return parent && this.#find(parent);
  }

  #put(item) {
    this.items.unshift(item);
    this.items.length = Math.min(this.items.length, KEPT);
    return item;
  }

  apply(event) {
    this.#step(event);
    this.#fold["*"](event);
  }

  #step({ seq, type, payload: told, run }) {
    const payload = told ?? {};
    if (type === "progress") return this.#flooded(payload);
    if (type === "standing") return payload.questions.forEach((question) => this.card(question.run));
    if (type === "run_report") return Object.assign(this.card(String(payload.run)), { report: payload });
    if (run === undefined) return;
    const card = this.card(run);
    const call = card.steps.find((step) => step.call === payload.call && step.call !== undefined);
    switch (type) {
      case "snapshot":
        return this.#caughtUp(card, payload);
      case "agent_started":
        Object.assign(card, { steps: [], late: false, report: undefined });
        this.#find(payload.parent)?.steps.push({ helper: run });
        return;
      case "agent_thinking":
        return card.steps.push({ thought: payload.text, seq });
      case "tool_executing":
        return card.steps.push({ call: payload.call, tool: payload.tool, input: payload.input, output: "", state: "working", seq });
      case "tool_output":
        if (call) call.output += payload.text;
        else card.steps.push({ call: payload.call, tool: "?", input: "its start was missed", output: payload.text, state: "working" });
        return;
      case "tool_completed":
        if (call) Object.assign(call, { state: payload.outcome, summary: outcomeText(payload), seq, acked: false });
        return;
      case "question_closed":
        if (payload.answer) card.steps.push({ thought: `You: ${payload.answer}`, said: true, seq });
        return;
      case "agent_completed":
      case "agent_lost":
        card.seq = seq;
    }
  }

  /** A snapshot tells how a run stands, and not how it came there. */
  #caughtUp(card, { thought, tools }) {
    card.late ??= !card.steps.length;
    if (card.late && !card.steps.length) {
      this.items.splice(this.items.indexOf(card), 1);
      this.items.unshift(card); // snapshots come oldest first, and questions before them
      if (thought) card.steps.push({ thought });
    }
    for (const { call, tool, input, text = "" } of tools) {
      const known = card.steps.find((step) => step.call === call);
      if (known) known.output = text;
      else card.steps.push({ call, tool, input, output: text, state: "working" });
    }
  }

  #flooded({ flood, of }) {
    if (this.flood?.number !== flood) {
      this.flood = { number: flood, of, got: 0, gone: this.evicted };
      this.evicted = 0;
    }
    this.flood.got++;
  }

  gap(gap) {
    this.#fold.gap(gap);
    const { from, to, reason, lost, critical, healed = 0 } = gap;
    this.lost += reason === "reset" ? to - from + 1 : critical; // of a reset nobody can tell what they were
    const count = Object.values(lost).reduce((sum, n) => sum + n, 0);
    const { flood } = this;
    if (flood && flood.got + flood.gone < flood.of) flood.gone += lost.progress ?? 0;
    else this.evicted += lost.progress ?? 0;
    const last = this.items[0];
    if (last?.gap === reason && reason !== "reset") {
      last.count += count;
      last.critical += critical;
      last.healed += healed;
    } else if (!["settled", "superseded"].includes(reason)) this.#put({ gap: reason, count, critical, healed });
    if (reason !== "reset") return;
    for (const item of this.items) for (const part of [item, ...(item.steps ?? [])]) part.seq = undefined; // void by now
  }

  /** Everything up to `seq` has been acknowledged. */
  confirm(seq) {
    for (const item of this.items) for (const part of [item, ...(item.steps ?? [])]) part.acked ||= part.seq <= seq;
  }

  /** How much was written in a run, by its agent and its tools. */
  characters(run) {
    const steps = this.#find(run)?.steps ?? [];
    return (this.runs.get(run)?.text.length ?? 0) + steps.reduce((sum, step) => sum + (step.output?.length ?? 0), 0);
  }
}

const outcomeText = ({ outcome, output, error }) =>
  ({ completed: output ?? "done", failed: error?.message ?? error?.kind ?? "failed" })[outcome] ?? outcome;

/** Draws a story; what has not changed is left alone. */
export class View {
  #box;
  #template;
  #acts;
  #drawn = new Map();

  /** @param acts what its buttons do: `cancel(run)` and `answer(question, choice)`; without, there are none */
  constructor(box, template, acts) {
    this.#box = box;
    this.#template = template;
    this.#acts = acts;
  }

  draw(story) {
    const shown = new Map([[this.#box, []]]);
    for (const item of story.items) {
      const drawn = this.#drawn.get(item) ?? (item.gap ? { element: make("p", "gap") } : this.#frame(item));
      this.#drawn.set(item, drawn);
      if (item.gap) drawn.element.textContent = gapText(item);
      else this.#fill(drawn, item, story.runs.get(item.run));
    }
    for (const item of story.items) {
      const parent = story.parent(item);
      const box = parent ? this.#place(parent, item) : this.#box;
      if (!shown.has(box)) shown.set(box, []);
      shown.get(box).push(this.#drawn.get(item).element);
    }
    for (const item of this.#drawn.keys()) if (!story.items.includes(item)) this.#drawn.delete(item);
    for (const [box, elements] of shown) {
      if (elements.length !== box.children.length || elements.some((element, n) => box.children[n] !== element)) {
        box.replaceChildren(...elements);
      }
    }
  }

  /** Where the card of a helper stands in its parent's: at its step, where that is known. */
  #place(parent, { run }) {
    const { drawn, helpers } = this.#drawn.get(parent);
    return drawn[parent.steps.findIndex((step) => step.helper === run)] ?? helpers;
  }

  #frame({ run }) {
    const element = this.#template.content.firstElementChild.cloneNode(true);
    const frame = { element, drawn: [], asked: new Map() };
    for (const part of element.querySelectorAll("[class]")) frame[part.className] = part;
    frame.cancel.hidden = true;
    frame.cancel.onclick = () => this.#acts.cancel(run);
    return frame;
  }

  #fill(frame, card, run) {
    const state = card.state ?? run?.status ?? "running";
    const [, agent, task] = /^([^:]*): (.*)$/.exec(run?.name ?? "") ?? ["", run?.name ?? "Somebody", ""];
    frame.element.className = `run ${state}`;
    frame.pill.classList.toggle("acked", !!card.acked);
    say(frame.agent, agent);
    say(frame.number, `run ${card.run}`);
    say(frame.pill, statusText(state, card, run));
    say(frame.task, task || (run?.incomplete ? "its beginning is not here" : ""));
    say(frame.late, card.late ? `This tab came late: a snapshot tells how it stands, after ${calls(run)}.` : "");
    say(frame.answer, run?.text ?? "");
    say(frame.report, card.report ? reportText(card.report) : "");
    frame.cancel.hidden = !this.#acts || !run || run.status !== "running";
    frame.progress.hidden = run?.progress === undefined || ended(run);
    frame.bar.value = run?.progress ?? 0;
    say(frame.message, run?.message ?? "");
    if (frame.drawn.length > card.steps.length) {
      frame.steps.replaceChildren();
      frame.drawn.length = 0;
    }
    card.steps.forEach((step, n) => {
      frame.drawn[n] ??= frame.steps.appendChild(step.call === undefined ? make("li", "") : callElement());
      fillStep(frame.drawn[n], step);
    });
    this.#ask(frame, run?.questions ?? []);
  }

  #ask(frame, questions) {
    for (const [id, element] of frame.asked) {
      if (questions.some(({ question }) => question === id)) continue;
      element.remove();
      frame.asked.delete(id);
    }
    for (const { question, prompt, choices = [], expires } of questions) {
      if (!frame.asked.has(question)) frame.asked.set(question, frame.questions.appendChild(this.#question(question, prompt, choices)));
      const seconds = Math.max(0, Math.round(expires - Date.now() / 1000));
      say(frame.asked.get(question).lastChild, expires ? `It goes on by itself in ${seconds} s.` : "");
    }
  }

  #question(id, prompt, choices) {
    const element = Object.assign(make("div", "question"), { role: "group", ariaLabel: prompt });
    const row = make("p", "choices");
    element.append(make("p", "prompt", prompt), row, Object.assign(make("p", "time"), { ariaLive: "off" })); // no countdown is read out
    for (const choice of this.#acts ? choices : []) {
      const button = row.appendChild(make("button", "", choice));
      button.onclick = () => {
        for (const other of row.children) other.disabled = true;
        this.#acts.answer(id, choice);
      };
    }
    return element;
  }
}

function statusText(state, { missing }, run) {
  return {
    running: "working",
    cancelling: "cancel requested",
    completed: `done in ${(run?.ended - run?.started).toFixed(1)} s`,
    failed: `failed: ${run?.error?.message ?? run?.error?.kind}`,
    cancelled: "cancelled",
    lost: run?.ended === undefined ? "ended with the server" : "lost: its agent is gone",
    holed: `done, but ${missing} characters are missing`,
    stuck: "stuck for ever",
  }[state];
}

const calls = (run) => (run?.calls === 1 ? "one call" : `${run?.calls} calls`);

function fillStep(element, step) {
  const thought = step.thought !== undefined;
  if (step.helper) return (element.className = "helpers");
  element.className = thought ? (step.said ? "said" : "thought") : `call ${step.state}`;
  element.classList.toggle("acked", !!step.acked);
  if (thought) return say(element, step.thought);
  const [tool, input, mark, output] = ["tool", "input", "mark", "output"].map((name) => element.querySelector(`.${name}`));
  say(tool, step.tool);
  say(input, step.input);
  say(mark, step.summary ?? "running");
  if (say(output, step.output)) output.scrollTop = output.scrollHeight;
}

function callElement() {
  const element = make("li", "");
  const details = make("details", "");
  const summary = make("summary", "");
  details.open = true;
  summary.append(make("span", "tool"), make("span", "input"), make("span", "mark"));
  details.append(summary, Object.assign(make("pre", "output"), { tabIndex: 0 })); // it scrolls, by keyboard too
  element.append(details);
  return element;
}

function gapText({ gap, count, critical, healed }) {
  if (gap === "reset") return "The server has started anew. What it had not delivered is gone, and this line says so.";
  const rest = healed ? ` What ${healed} of them said of runs is in snapshots.` : "";
  return `${count} events will not come: ${gap}. Critical among them: ${critical}.${rest}`;
}

function reportText({ after }) {
  return `The agent knows: all of it was processed here, the last ${milliseconds(after)} after it was told.`;
}

export const milliseconds = (seconds) => (seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`);

const SPAN = 60; // seconds on a strip

/** The last minute as a strip: its colour is the state, a tick is an event. */
export class Strip {
  #canvas;
  #states = []; // {at, state}
  #ticks = [];

  constructor(canvas) {
    this.#canvas = canvas;
  }

  state(state) {
    if (this.#states.at(-1)?.state !== state) this.#states.push({ at: performance.now() / 1000, state });
  }

  tick(loud) {
    this.#ticks.push({ at: performance.now() / 1000, loud });
  }

  draw() {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.round(size * devicePixelRatio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const end = performance.now() / 1000;
    const x = (at) => Math.round(width * (1 - (end - at) / SPAN));
    while (this.#states[1]?.at < end - SPAN) this.#states.shift();
    while (this.#ticks[0]?.at < end - SPAN) this.#ticks.shift();
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    this.#states.forEach(({ at, state }, n) => {
      const from = Math.max(0, x(at));
      const to = n + 1 < this.#states.length ? x(this.#states[n + 1].at) : width;
      pen.globalAlpha = state === "live" ? 0.14 : 0.55;
      pen.fillStyle = colour({ live: "good", offline: "bad", ended: "bad" }[state] ?? "warn");
      pen.fillRect(from, 0, Math.max(to - from, devicePixelRatio), height);
    });
    pen.fillStyle = colour("ink");
    for (const { at, loud } of this.#ticks) {
      pen.globalAlpha = loud ? 0.85 : 0.25;
      pen.fillRect(x(at), height * (loud ? 0.15 : 0.6), devicePixelRatio, height * (loud ? 0.7 : 0.25));
    }
    pen.globalAlpha = 1;
  }
}
