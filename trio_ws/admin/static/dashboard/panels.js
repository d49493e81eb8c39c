/** The panels of the overview: which charts there are, and which figures stand below each. */

import { Accounts } from "./accounts.js";
import { Bars } from "./bars.js";
import { Chart } from "./chart.js";
import { el, facts, measure } from "./dom.js";
import { bytes, count, duration, percent, rate } from "./format.js";

const some = (n, tone) => (n > 0 ? tone : "");

/** A share of a limit, as a bar with its number. */
class Meter {
  #bar = el("span", { class: "fill" });
  #value = el("dd");

  constructor(label) {
    this.root = el("div", { class: "meter" }, el("dt", { text: label }), this.#value, el("div", { class: "track", "aria-hidden": "true" }, this.#bar));
  }

  draw(now, limit, format) {
    const share = limit ? now / limit : 0;
    measure(this.#value, `${format(now)} of ${format(limit)}`);
    this.root.title = percent(share);
    this.root.dataset.tone = share >= 0.95 ? "warn" : "none";
    this.#bar.style.setProperty("--share", Math.min(1, share));
  }
}

/** What of an alert's rule a chart shows as a line. */
const threshold = (name) => (state) => state.stats?.alerts.find((alert) => alert.name === name)?.threshold ?? null;

const PANELS = [
  {
    title: "Events",
    note: "a second",
    chart: {
      series: [
        { column: "sent", label: "sent", colour: "blue" },
        { column: "accepted", label: "accepted", colour: "grey" },
        { column: "confirmed", label: "confirmed", colour: "teal" },
      ],
      format: rate,
      floor: 5,
    },
    facts: ({ stats: { delivery, buffer } }) => [
      ["accepted", count(delivery.events_accepted)],
      ["sent", count(delivery.events_sent)],
      ["confirmed", count(delivery.messages_confirmed)],
      ["joined deltas", count(buffer.merged)],
      ["refused", count(delivery.events_refused), some(delivery.events_refused, "warn")],
    ],
  },
  {
    title: "Time to confirmation",
    note: "of the last minute",
    chart: {
      series: [
        { column: "p50", label: "p50", colour: "teal" },
        { column: "p95", label: "p95", colour: "blue" },
        { column: "p99", label: "p99", colour: "violet" },
      ],
      format: duration,
      floor: 0.02,
    },
    line: threshold("slow_response"),
    facts: ({ stats: { delivery } }) => [
      ["p50 since start", duration(delivery.confirmation_p50)],
      ["p95", duration(delivery.confirmation_p95)],
      ["p99", duration(delivery.confirmation_p99)],
      ["mean", duration(delivery.average_confirmation_time)],
    ],
  },
  {
    title: "Confirmed in time",
    note: "of the last minute",
    chart: {
      series: [{ column: "rate", label: "confirmed in time", colour: "teal" }],
      format: percent,
      floor: 1,
      ceiling: 1,
      low: 0.9,
    },
    line: threshold("low_confirmation"),
    facts: ({ stats: { delivery } }) => [
      ["since start", percent(delivery.confirmation_rate)],
      ["timed out", count(delivery.messages_timeout), some(delivery.messages_timeout, "warn")],
      ["confirmed late", count(delivery.messages_late)],
      ["redelivered", count(delivery.redelivered)],
      ["dead letters", count(delivery.dead_letters), some(delivery.dead_letters, "bad")],
    ],
  },
  {
    title: "Connections and sessions",
    chart: {
      series: [
        { column: "connections", label: "connected", colour: "blue" },
        { column: "parked", label: "parked", colour: "amber" },
      ],
      format: count,
      floor: 4,
    },
    meters: [["pool", ({ stats, about }) => [stats.connections.current, about.limits.max_connections, count]]],
    facts: ({ stats: { connections, pool } }) => [
      ["reused", count(pool.connections_reused)],
      ["pool hits", count(pool.pool_hits)],
      ["misses", count(pool.pool_misses)],
      ["hit rate", pool.pool_hits + pool.pool_misses ? percent(pool.pool_hits / (pool.pool_hits + pool.pool_misses)) : "–"],
      ["rejected", count(connections.rejected), some(connections.rejected, "warn")],
      ["superseded", count(connections.superseded)],
    ],
  },
  {
    title: "Buffer",
    note: "events",
    chart: {
      series: [
        { column: "events", label: "in all", colour: "grey" },
        { column: "held", label: "held", colour: "blue" },
        { column: "waiting", label: "publishers waiting", colour: "red" },
      ],
      format: count,
      floor: 10,
    },
    meters: [
      ["held", ({ stats, about }) => [stats.delivery.events_held, about.limits.max_events, count]],
      ["bytes", ({ stats, about }) => [stats.buffer.bytes, about.limits.max_bytes, bytes]],
    ],
    facts: ({ stats: { buffer } }) => [
      ["overflows", count(buffer.overflow_events)],
      ["dropped", count(buffer.non_critical_messages_dropped)],
      ["critical preserved", count(buffer.critical_messages_preserved)],
    ],
  },
  {
    title: "Dropped and repeated",
    note: "events a second",
    chart: {
      series: [
        { column: "evicted", label: "evicted", colour: "amber" },
        { column: "expired", label: "expired", colour: "violet" },
        { column: "superseded", label: "superseded", colour: "grey" },
        { column: "redelivered", label: "redelivered", colour: "blue" },
        { column: "refused", label: "refused", colour: "red" },
      ],
      format: rate,
      floor: 2,
    },
    facts: ({ stats: { delivery } }) => [
      ["evicted", count(delivery.events_evicted)],
      ["expired", count(delivery.events_expired)],
      ["superseded", count(delivery.events_superseded)],
      ["duplicates", count(delivery.events_duplicate)],
    ],
  },
  {
    title: "Recovery after a cut",
    note: "seconds, since start",
    bars: { from: 0.1, late: 5, of: "recovery", nothing: "No cut so far." },
    facts: ({ stats: { recovery } }) => [
      ["recoveries", count(recovery.count)],
      ["within 5 s", recovery.count ? percent(recovery.within_5s) : "–", recovery.count && recovery.within_5s < 0.95 ? "bad" : ""],
      ["p50", recovery.count ? duration(recovery.p50) : "–"],
      ["p95", recovery.count ? duration(recovery.p95) : "–"],
      ["p99", recovery.count ? duration(recovery.p99) : "–"],
    ],
  },
  {
    title: "How long confirmations take",
    note: "seconds, since start",
    bars: { from: 0.01, late: 5, of: "confirmation", nothing: "Nothing was confirmed so far." },
    facts: ({ stats: { serialization } }) => [
      ["encoded fast", count(serialization.fast)],
      ["in a thread", count(serialization.slow)],
      ["encoding p99", serialization.slow ? duration(serialization.p99) : "–"],
      ["timeouts", count(serialization.timeouts), some(serialization.timeouts, "warn")],
      ["truncated", count(serialization.truncated), some(serialization.truncated, "warn")],
    ],
  },
  { title: "Where every event is", note: "since start", accounts: true, facts: () => [] },
];

/** One panel. `state` is {stats, history, about, end, span}. */
class Panel {
  #facts = el("dl", { class: "facts" });
  #content;
  #meters;
  #state = {};

  constructor({ title, note, chart, line, bars, meters = [], facts: of }) {
    this.of = of;
    if (chart) this.#content = new Chart({ ...chart, title, line: line && (() => line(this.#state)) });
    else if (bars) this.#content = new Bars({ title, ...bars });
    else this.#content = new Accounts();
    this.kind = chart ? "chart" : bars ? "bars" : "accounts";
    this.bars = bars;
    this.#meters = meters.map(([label, read]) => ({ meter: new Meter(label), read }));
    const id = `panel-${title.toLowerCase().replaceAll(" ", "-")}`;
    this.root = el(
      "section",
      { class: "panel", "aria-labelledby": id },
      el("h2", { id }, title, note && el("small", { text: ` ${note}` })),
      this.#content.root,
      this.#meters.length > 0 && el("dl", { class: "meters" }, ...this.#meters.map(({ meter }) => meter.root)),
      this.#facts,
    );
  }

  draw(state) {
    this.#state = state;
    const { stats, history, about, end, span } = state;
    if (this.kind === "chart") this.#content.draw(history, end, span);
    else if (this.kind === "bars") this.#content.draw(about.bounds, history.distributions[this.bars.of]);
    else this.#content.draw(stats.delivery);
    for (const { meter, read } of this.#meters) meter.draw(...read(state));
    facts(this.#facts, this.of(state));
  }

  recolour() {
    this.#content.recolour?.();
  }
}

export const panels = () => PANELS.map((panel) => new Panel(panel));
