/** A user's recent events, newest first, each a link to its story. */

import { get, userPath } from "./api.js";
import { el, keyed, say } from "./dom.js";
import { bytes, duration, moment } from "./format.js";
import { userLink } from "./search.js";

const PAGE = 50;
const TONES = { held: "warn", sent: "idle", confirmed: "good", settled: "good", evicted: "bad", expired: "bad" };
const COLUMNS = [["Seq", "number"], ["Type", ""], ["State", ""], ["Confirmed after", "number wide"], ["Size", "number wide"], ["Accepted", "number wide"]];

export const eventLink = (user, id) => `${userLink(user)}/events/${encodeURIComponent(id)}`;

export class Events {
  #user;
  #older = []; // pages that were asked for, below the newest
  #newest = [];
  #rows = el("tbody");
  #note = el("p", { class: "note", role: "status" });
  #more = el("button", { type: "button", class: "more", text: "Older events", hidden: true, on: { click: () => this.#extend() } });
  #open = null;
  root = el(
    "section",
    { class: "panel", "aria-labelledby": "events-title" },
    el("h2", { id: "events-title", text: "Recent events" }),
    el(
      "table",
      { class: "table events" },
      el("caption", { class: "sr", text: "Recent events, newest first" }),
      el("thead", {}, el("tr", {}, ...COLUMNS.map(([text, name]) => el("th", { scope: "col", class: name, text })))),
      this.#rows,
    ),
    this.#note,
    this.#more,
  );

  constructor(user) {
    this.#user = user;
  }

  /** Marks the event whose story is shown; null for none. */
  open(id) {
    this.#open = id;
    this.#draw();
  }

  async refresh(signal) {
    const { events } = await this.#ask(null, signal);
    this.#newest = events;
    this.#more.hidden = this.#older.length > 0 ? this.#more.hidden : events.length < PAGE;
    this.#draw();
  }

  #ask(before, signal) {
    return get(`${userPath(this.#user)}/events?limit=${PAGE}${before === null ? "" : `&before=${before}`}`, signal);
  }

  async #extend() {
    const last = this.#all().at(-1);
    try {
      const { events } = await this.#ask(last.seq);
      this.#older.push(...events);
      this.#more.hidden = events.length < PAGE;
      this.#draw();
    } catch (error) {
      say(this.#note, `Older events could not be read: ${error.message}.`);
    }
  }

  /** The newest page, and below it what was asked for besides; what has moved from one to the other is there once. */
  #all() {
    const seen = new Set(this.#newest.map(({ seq }) => seq));
    return [...this.#newest, ...this.#older.filter(({ seq }) => !seen.has(seq))];
  }

  #draw() {
    const events = this.#all();
    keyed(this.#rows, events, ({ seq }) => seq, (event) => this.#row(event), (row, event) => this.#fill(row, event));
    say(this.#note, events.length ? "" : "No event is known.");
  }

  #row({ seq, id, type, critical, size, ts }) {
    return el(
      "tr",
      {},
      el("td", { class: "number", text: String(seq) }),
      el(
        "th",
        { scope: "row" },
        el("a", { href: eventLink(this.#user, id), class: "name", text: type }),
        critical && el("span", { class: "mark", title: "critical", text: "critical" }),
      ),
      el("td", {}, el("span", { class: "chip" })),
      el("td", { class: "number wide" }),
      el("td", { class: "number wide", text: bytes(size) }),
      el("td", { class: "number wide", text: moment(ts) }),
    );
  }

  #fill(row, { id, state, confirmed_after: after }) {
    const open = id === this.#open;
    row.dataset.open = String(open);
    row.children[1].firstChild.toggleAttribute("aria-current", open);
    const chip = row.children[2].firstChild;
    chip.dataset.tone = TONES[state] ?? "idle";
    say(chip, state);
    say(row.children[3], duration(after));
  }
}
