/** The front view: the verdict, the alerts, the figures that matter most, and the panels. */

import { Alerts } from "./alerts.js";
import { el, measure, say } from "./dom.js";
import { count, duration, percent, plural, rate } from "./format.js";
import { Nodes, standing } from "./nodes.js";
import { panels } from "./panels.js";
import { StoreLine } from "./store.js";
import { Verdict } from "./verdict.js";

const SPANS = [[60, "1 min"], [300, "5 min"], [900, "15 min"]];
const KEPT = "trio-ws:span";

// The name, the value, what stands below it, and whether it needs a look.
const TILES = [
  ["Connections", ({ stats }) => count(stats.connections.current), ({ stats }) => `${count(stats.sessions.parked)} parked, ${plural(stats.users, "user")}`],
  ["Accepted", ({ history }) => rate(history.recently("accepted")), ({ history }) => `${rate(history.recently("sent"))} sent`],
  ["Confirmed", ({ history }) => rate(history.recently("confirmed")), ({ stats }) => `${count(stats.delivery.messages_confirmed)} in all`],
  ["Confirmed in time", ({ history }) => percent(history.now("rate")), ({ stats }) => `${percent(stats.delivery.confirmation_rate)} since start`],
  ["p95 to confirmation", ({ history }) => duration(history.now("p95")), ({ history }) => `p50 ${duration(history.now("p50"))}, p99 ${duration(history.now("p99"))}`],
  ["Held events", ({ stats }) => count(stats.delivery.events_held), ({ stats, about }) => `${percent(stats.delivery.events_held / about.limits.max_events)} of the buffer`],
  ["Publishers waiting", ({ stats }) => count(stats.buffer.publishers_waiting), ({ stats }) => `${count(stats.delivery.events_refused)} refused`, ({ stats }) => stats.buffer.publishers_waiting > 0 && "warn"],
  ["Dead letters", ({ stats }) => count(stats.delivery.dead_letters), ({ stats }) => `${count(stats.delivery.redelivered)} redelivered`, ({ stats }) => stats.delivery.dead_letters > 0 && "bad"],
];

export class Overview {
  title = "Overview";
  #verdict = new Verdict();
  #alerts;
  #panels = panels();
  #store = new StoreLine();
  #nodes = new Nodes();
  #standing = el("p", { class: "note" });
  #tiles;
  #changed;
  #span = Number(localStorage.getItem(KEPT)) || 300;

  /** `changed` is called when another span is asked for; `announce` reads out; `scope` is the choice of nodes. */
  constructor(changed, announce, scope) {
    this.#changed = changed;
    this.#alerts = new Alerts(announce);
    this.#tiles = TILES.map(([name]) => el("div", { class: "tile" }, el("dt", { text: name }), el("dd", { class: "figure", text: "–" }), el("dd", { class: "sub" })));
    this.root = el(
      "div",
      { class: "overview" },
      this.#verdict.root,
      this.#alerts.root,
      el("dl", { class: "tiles" }, ...this.#tiles),
      this.#store.root,
      this.#standing,
      el("div", { class: "choices" }, scope, this.#choice()),
      this.#nodes.root,
      el("div", { class: "panels" }, ...this.#panels.map(({ root }) => root)),
    );
  }

  /** `state`: {link, stats, history, about, now}; `stats` is null before the first. */
  draw(state) {
    this.#verdict.draw(state);
    if (!state.stats || !state.about) return;
    this.#alerts.draw(state.stats.alerts, state.now);
    this.#store.draw(state.stats.store);
    this.#nodes.draw(state.stats.nodes, state.stats.at);
    say(this.#standing, state.stats.nodes ? "" : standing(state.stats.cluster));
    TILES.forEach(([, value, sub, tone], n) => {
      const tile = this.#tiles[n];
      measure(tile.children[1], value(state));
      say(tile.children[2], sub(state));
      tile.dataset.tone = tone?.(state) || "none";
    });
    for (const panel of this.#panels) panel.draw({ ...state, end: state.now, span: this.#span });
  }

  recolour() {
    for (const panel of this.#panels) panel.recolour();
  }

  #choice() {
    const choose = (seconds) => {
      this.#span = seconds;
      localStorage.setItem(KEPT, String(seconds));
      this.#changed();
    };
    return el(
      "fieldset",
      { class: "spans" },
      el("legend", { class: "sr", text: "Time shown" }),
      ...SPANS.map(([seconds, label]) =>
        el("label", {}, el("input", { type: "radio", name: "span", checked: seconds === this.#span, on: { change: () => choose(seconds) } }), el("span", { text: label }))),
    );
  }
}
