/** Where every accepted event is: `accepted = settled + held + evicted + expired + superseded + moved`, as one bar. */

import { el, keyed, say } from "./dom.js";
import { count, percent, plural } from "./format.js";

const PLACES = [
  ["events_settled", "settled", "teal"],
  ["events_held", "held", "blue"],
  ["events_superseded", "superseded", "grey"],
  ["events_expired", "expired", "violet"],
  ["events_evicted", "evicted", "amber"],
  ["events_moved", "at another node", "pink"], // in a cluster only
];

export class Accounts {
  #bar = el("div", { class: "stack", "aria-hidden": "true" });
  #list = el("dl", { class: "legend rows" });
  #sum = el("p", { class: "note" });
  root = el("div", { class: "accounts" }, this.#bar, this.#list, this.#sum);

  draw(delivery) {
    const all = delivery.events_accepted;
    const places = PLACES.map(([figure, name, colour]) => ({ name, colour, n: delivery[figure] ?? 0 })).filter(
      ({ name, n }) => n || name !== "at another node",
    );
    keyed(
      this.#bar,
      places,
      ({ name }) => name,
      ({ colour }) => el("span", { data: { colour } }),
      (span, { n }) => span.style.setProperty("--share", all ? n / all : 0),
    );
    keyed(
      this.#list,
      places,
      ({ name }) => name,
      ({ name, colour }) => el("div", { data: { colour } }, el("dt", { text: name }), el("dd"), el("dd", { class: "share" })),
      (div, { n }) => {
        say(div.children[1], count(n));
        say(div.children[2], all ? percent(n / all) : "");
      },
    );
    const missing = all - places.reduce((sum, { n }) => sum + n, 0);
    this.#sum.dataset.tone = missing ? "bad" : "none";
    say(
      this.#sum,
      missing
        ? `${plural(Math.abs(missing), "event")} of ${count(all)} unaccounted for: this is a bug of the server.`
        : `${all === 1 ? "The one event" : `All ${count(all)} events`} accepted so far, accounted for.`,
    );
  }
}
