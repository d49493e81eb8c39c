/** What the demo page tells: a story is made of events and gaps, a view draws it. Both sides of the page have one. */

const KEPT = 8; // runs and gaps on the page
export const LIFECYCLE = new Set(["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]);

const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Sets a text if it is another one; whether it was. */
export function say(element, text) {
  if (element.textContent === text) return false;
  element.textContent = text;
  return true;
}

/** What a user was shown: runs and gaps, newest first. Plain data, so that a reload can keep it. */
export class Story {
  constructor(items = []) {
    this.items = items;
    this.lost = 0; // critical events, by gaps
    this.flood = undefined;
    this.evicted = 0; // of a flood that is still to be heard of
  }

  run(number) {
    let run = this.items.find((item) => item.run === number && !item.past);
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

  apply({ seq, type, payload, ts }) {
    if (type === "progress") return this.#flooded(payload);
    if (typeof payload?.run !== "number") return;
    const run = this.run(payload.run);
    const call = run.steps.find((step) => step.call === payload.call && step.call !== undefined);
    switch (type) {
      case "agent_started":
        return Object.assign(run, { agent: payload.agent, task: payload.task, started: ts });
      case "agent_thinking":
        return run.steps.push({ thought: payload.thought, seq });
      case "tool_executing":
        return run.steps.push({ call: payload.call, tool: payload.tool, input: payload.input, output: "", state: "working", seq });
      case "tool_output":
        if (call) call.output += payload.text;
        else run.steps.push({ call: payload.call, tool: "?", input: "its start was missed", output: payload.text, state: "working" });
        return;
      case "tool_completed":
        if (call) Object.assign(call, { state: payload.ok ? "done" : "failed", summary: payload.summary, seq, acked: false });
        return;
      case "text":
        run.answer += payload.text;
        return;
      case "agent_completed":
        return Object.assign(run, { state: "done", duration: payload.duration, seq });
      case "run_report":
        run.report = payload;
    }
  }

  #flooded({ flood, of }) {
    if (this.flood?.number !== flood) {
      this.flood = { number: flood, of, got: 0, gone: this.evicted };
      this.evicted = 0;
    }
    this.flood.got++;
  }

  gap({ from, to, reason, lost, critical }) {
    this.lost += reason === "reset" ? to - from + 1 : critical; // of a reset nobody can tell what they were
    const count = Object.values(lost).reduce((sum, n) => sum + n, 0);
    const { flood } = this;
    if (flood && flood.got + flood.gone < flood.of) flood.gone += lost.progress ?? 0;
    else this.evicted += lost.progress ?? 0;
    const last = this.items[0];
    if (last?.gap === reason && reason !== "reset") {
      last.count += count;
      last.critical += critical;
    } else if (reason !== "settled") this.put({ gap: reason, count, critical });
    if (reason === "reset") this.#reset();
  }

  /** The seqs of before are void, and so are the runs that were under way. */
  #reset() {
    for (const item of this.items) {
      item.past = true; // a run of that number will be another one
      if (item.state === "working") item.state = "ended";
      for (const part of [item, ...(item.steps ?? [])]) part.seq = undefined;
    }
  }

  /** Everything up to `seq` has been acknowledged. */
  confirm(seq) {
    for (const item of this.items) {
      for (const part of [item, ...(item.steps ?? [])]) part.acked ||= part.seq <= seq;
    }
  }

  static characters(run) {
    return run.answer.length + run.steps.reduce((sum, step) => sum + (step.output?.length ?? 0), 0);
  }
}

/** Draws a story; what has not changed is left alone. */
export class View {
  #box;
  #template;
  #drawn = new Map();

  constructor(box, template) {
    this.#box = box;
    this.#template = template;
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
    const element = this.#template.content.firstElementChild.cloneNode(true);
    const parts = { element, drawn: [] };
    for (const name of ["agent", "number", "pill", "task", "steps", "answer", "report"]) parts[name] = element.querySelector(`.${name}`);
    return parts;
  }

  #fill(view, run) {
    view.element.className = `run ${run.state}`;
    view.pill.classList.toggle("acked", !!run.acked);
    say(view.agent, run.agent || "Somebody");
    say(view.number, `run ${run.run}`);
    say(view.pill, {
      working: "working",
      done: `done in ${run.duration} s`,
      holed: `done, but ${run.missing} characters are missing`,
      lost: "stuck for ever",
      ended: "ended with the server",
    }[run.state]);
    say(view.task, run.task || "its beginning is not here");
    say(view.answer, run.answer);
    say(view.report, run.report ? reportText(run.report) : "");
    run.steps.forEach((step, n) => {
      view.drawn[n] ??= view.steps.appendChild(step.thought === undefined ? callElement() : make("li", ""));
      fillStep(view.drawn[n], step);
    });
  }
}

function fillStep(element, step) {
  const thought = step.thought !== undefined;
  element.className = thought ? "thought" : `call ${step.state}`;
  element.classList.toggle("acked", !!step.acked);
  if (thought) return say(element, step.thought);
  const [tool, input, mark, output] = ["tool", "input", "mark", "output"].map((name) => element.querySelector(`.${name}`));
  say(tool, step.tool);
  say(input, step.input);
  say(mark, { working: "running", done: step.summary, failed: step.summary }[step.state]);
  if (say(output, step.output)) output.scrollTop = output.scrollHeight;
}

function callElement() {
  const element = make("li", "");
  const details = make("details", "");
  const summary = make("summary", "");
  details.open = true;
  summary.append(make("span", "tool"), make("span", "input"), make("span", "mark"));
  details.append(summary, make("pre", "output"));
  element.append(details);
  return element;
}

function gapText({ gap, count, critical }) {
  if (gap === "reset") return "The server has started anew. What it had not delivered is gone, and this line says so.";
  return `${count} events will not come: ${gap}. Critical among them: ${critical}.`;
}

function reportText({ events, confirmed, median, slowest }) {
  const times = median === undefined ? "" : `, in ${milliseconds(median)} by the median, ${milliseconds(slowest)} at most`;
  return `The agent knows: ${confirmed} of ${events} critical events were processed here${times}.`;
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
