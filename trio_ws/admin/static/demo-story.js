/** What the demo page tells: a story, made of events and gaps. Both sides of the page have one. */

import { foldRuns } from "/runs.js";

const KEPT = 8; // cards on the page
export const LIFECYCLE = new Set(
  ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "question_asked", "agent_completed"],
);

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
    if (type === "standing") return payload.questions?.forEach((question) => this.card(question.run));
    if (type === "run_report") return Object.assign(this.card(String(payload.run)), { report: payload });
    if (run === undefined) return;
    const card = this.card(run);
    const call = card.steps.find((step) => step.call === payload.call && step.call !== undefined);
    switch (type) {
      case "snapshot":
        return this.#caughtUp(card, seq, payload);
      case "agent_started":
        Object.assign(card, { steps: [], late: false, told: 0, report: undefined });
        this.#find(payload.parent)?.steps.push({ helper: run });
        return;
      case "agent_thinking":
        if (!card.late || seq > card.told) card.steps.push({ thought: payload.text, seq });
        return;
      case "tool_executing":
        return call ?? card.steps.push({ call: payload.call, tool: payload.tool, input: payload.input, output: "", state: "working", seq });
      case "tool_output":
        if (seq <= card.told) return;
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

  /** A snapshot tells how a run stands, and not how it came there; what is in it may be told again. */
  #caughtUp(card, seq, { thought, tools }) {
    card.late ??= !card.steps.length;
    card.told = seq;
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
