/** The one sentence above all figures: do users get their events? */

import { el, icon, picture, say } from "./dom.js";
import { duration, moment, percent, plural } from "./format.js";

const FIRING = {
  critical_loss: "Users have lost critical events.",
  low_confirmation: "Too few events are confirmed in time.",
  slow_response: "Events reach users late.",
  slow_recovery: "Users wait long after a cut.",
};

/** Tone, sentence and explanation of a state {link, stats, history}. */
export function judge({ link, stats, history }) {
  if (!stats) {
    return link.link === "away"
      ? ["bad", "The server does not answer.", "It is asked again and again; this page needs nothing from you."]
      : ["idle", "Asking the server …", ""];
  }
  if (link.link === "away") {
    return ["bad", "The server does not answer.", `What is shown is how things stood at ${moment(stats.at)}.`];
  }
  if (stats.draining) {
    return ["warn", "The server is going away.", "It accepts nothing more, hands over what is pending, and tells clients to come back."];
  }
  const { nodes, cluster } = stats;
  if (nodes ? nodes.every(({ state }) => state === "suspended" || state === "unknown") : cluster?.suspended) {
    return ["bad", "This node accepts nothing.", "It can't renew its lease: the store does not answer, or not in time. It can't ask the others; who reaches the store takes over what it has."];
  }
  const silent = (nodes ?? []).filter(({ state }) => state === "missing" || state === "suspended");
  if (silent.length) {
    const names = silent.map(({ node, name, state }) => `${name ?? node} is ${state}`);
    return ["warn", `${plural(silent.length, "node")} of ${nodes.length} ${silent.length === 1 ? "does" : "do"} not serve.`, `${names.join(", ")}. The figures are those of the nodes that answer.`];
  }
  if (stats.store.state === "failing") {
    return ["bad", "Nothing durable is accepted.", "The store fails; what was committed is delivered. It is tried again and again."];
  }
  if (stats.store.state === "slow") {
    return ["warn", "Nothing durable is accepted for now.", "The store is slow: a commit has taken more than a second so far."];
  }
  const firing = stats.alerts.filter(({ state }) => state === "firing");
  if (firing.length) {
    const [first] = Object.keys(FIRING).filter((name) => firing.some((alert) => alert.name === name));
    const more = firing.length > 1 ? ` ${plural(firing.length, "alert")} are firing.` : "";
    return ["bad", FIRING[first] ?? "An alert is firing.", `${firing.map(({ summary }) => summary).join(" ")}${more}`];
  }
  const waiting = stats.buffer.publishers_waiting;
  if (waiting) {
    return ["warn", "Publishers wait for room.", `The buffer is full of critical events that nobody has confirmed; ${plural(waiting, "publisher")} wait.`];
  }
  const held = stats.delivery.events_held;
  const pending = held ? `${plural(held, "event")} ${held === 1 ? "is" : "are"} held` : "nothing is held";
  if (!stats.connections.current) {
    return ["idle", "Nobody is connected.", held ? `${pending} for those who come back.` : "No event waits for anybody."];
  }
  const rate = history.now("rate");
  if (rate === null) return ["good", "Users get their events.", `No event had to be confirmed in the last minute; ${pending}.`];
  const median = duration(history.now("p50"));
  return ["good", "Users get their events.", `${percent(rate)} confirmed in time in the last minute, half of them within ${median}; ${pending}.`];
}

export class Verdict {
  #icon = icon("idle");
  #sentence = el("h1", { text: "Asking the server …" });
  #why = el("p");
  root = el("div", { class: "verdict", data: { tone: "idle" } }, this.#icon, el("div", {}, this.#sentence, this.#why));

  draw(state) {
    const [tone, sentence, why] = judge(state);
    this.root.dataset.tone = tone;
    picture(this.#icon, tone);
    say(this.#sentence, sentence);
    say(this.#why, why);
  }
}
