/** The alert rules as cards; what changes is said aloud. */

import { el, icon, keyed, measure, picture, say } from "./dom.js";
import { duration, inUnit } from "./format.js";

const NAMES = {
  slow_response: "Response time",
  slow_recovery: "Recovery",
  critical_loss: "Critical events lost",
  low_confirmation: "Confirmation rate",
};
const nameOf = ({ name }) => NAMES[name] ?? name.replaceAll("_", " ");

/** Whether a rule is about too little rather than too much. */
const below = ({ unit }) => unit === "ratio";

const rule = (alert) =>
  below(alert) ? `fires below ${inUnit(alert.threshold, alert.unit)}` : `fires above ${inUnit(alert.threshold, alert.unit)}`;

export class Alerts {
  #before = null;
  #announce;
  root = el("ul", { class: "alerts", "aria-label": "Alerts", role: "list" });

  /** `announce(text)` reads out. */
  constructor(announce) {
    this.#announce = announce;
  }

  draw(alerts, now) {
    keyed(this.root, alerts, ({ name }) => name, make, (card, alert) => fill(card, alert, now));
    const states = new Map(alerts.map((alert) => [alert.name, alert.state]));
    const changed = alerts.filter(({ name, state }) => this.#before ? (this.#before.get(name) ?? "ok") !== state : state === "firing");
    if (changed.length) {
      this.#announce(changed.map((alert) => (alert.state === "firing" ? `Alert: ${nameOf(alert)}. ${alert.summary}` : `Over: ${nameOf(alert)}.`)).join(" "));
    }
    this.#before = states;
  }
}

function make(alert) {
  return el(
    "li",
    { class: "alert" },
    el("h2", {}, icon("good"), nameOf(alert)),
    el("span", { class: "badge" }),
    el("p", { class: "value" }),
    el("p", { class: "rule" }),
    el("p", { class: "since" }),
    el("p", { class: "summary" }),
  );
}

function fill(card, alert, now) {
  const firing = alert.state === "firing";
  card.dataset.tone = firing ? "bad" : "good";
  card.dataset.state = alert.state;
  const [title, badge, value, limit, since, summary] = card.children;
  picture(title.firstChild, firing ? "bad" : "good");
  say(badge, firing ? "firing" : "ok");
  measure(value, inUnit(alert.value, alert.unit));
  say(limit, rule(alert));
  say(since, firing && alert.since !== null ? `for ${duration(Math.max(1, Math.floor(now - alert.since)))}` : "");
  say(summary, firing ? alert.summary : "");
  card.title = alert.summary;
}
