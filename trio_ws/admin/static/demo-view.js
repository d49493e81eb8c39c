/** How the demo page shows it: a story as cards, the last minute as a strip. */

import { ended } from "/runs.js";

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Sets a text if it is another one; whether it was. */
export function say(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

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
