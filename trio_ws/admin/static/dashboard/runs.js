/** A user's runs: what each agent is at, what it waits for, and how it ended. Those that are open come first. */

import { get, userPath } from "./api.js";
import { el, keyed, say } from "./dom.js";
import { duration, moment, percent, plural } from "./format.js";
import { brief } from "./story.js";

const ENDED = 5; // runs that are over, of which so many are shown unasked
const TONES = { running: "idle", cancelling: "warn", completed: "good", failed: "bad", lost: "bad" };
const COLUMNS = [["Run", ""], ["Status", ""], ["Doing", ""], ["Progress", "number wide"], ["Began", "number wide"], ["Took", "number wide"]];

/** While it is open: the calls that are under way, or what it says of its progress. Afterwards: what it failed of. */
export function doing({ ended, error, tools, message }) {
  if (ended !== undefined) return [error?.kind, error?.message].filter(Boolean).join(": ");
  return tools.map(({ tool }) => tool).join(", ") || (message ?? "");
}

export class Runs {
  #user;
  #runs = [];
  #all = false;
  #rows = el("tbody");
  #more = el("button", { type: "button", class: "more", on: { click: () => this.#extend() } });
  root = el(
    "section",
    { class: "panel", "aria-labelledby": "runs-title", hidden: true },
    el("h2", { id: "runs-title", text: "Runs" }),
    el(
      "table",
      { class: "table runs" },
      el("caption", { class: "sr", text: "Runs, open ones first, newest first" }),
      el("thead", {}, el("tr", {}, ...COLUMNS.map(([text, name]) => el("th", { scope: "col", class: name, text })))),
      this.#rows,
    ),
    this.#more,
  );

  constructor(user) {
    this.#user = user;
  }

  async refresh(signal) {
    const { runs } = await get(`${userPath(this.#user)}/runs`, signal);
    this.#runs = runs.sort((a, b) => (a.ended !== undefined) - (b.ended !== undefined) || b.started - a.started);
    this.#draw();
  }

  #extend() {
    this.#all = true;
    this.#draw();
  }

  #draw() {
    const open = this.#runs.filter(({ ended }) => ended === undefined).length;
    const shown = this.#all ? this.#runs : this.#runs.slice(0, open + ENDED);
    const left = this.#runs.length - shown.length;
    this.root.hidden = !this.#runs.length;
    this.#more.hidden = !left;
    say(this.#more, `${plural(left, "run")} before`);
    keyed(this.#rows, shown, ({ run }) => run, (run) => this.#row(run), fill);
  }

  #row({ run, name, started }) {
    return el(
      "tr",
      {},
      el("th", { scope: "row", title: run }, el("span", { class: "name", text: name ?? brief(run) }), name && el("code", { class: "soft", text: brief(run) })),
      el("td", {}, el("span", { class: "chip" })),
      el("td", {}, el("span", { class: "name" }), el("ul", { class: "asks" })),
      el("td", { class: "number wide" }),
      el("td", { class: "number wide", text: moment(started) }),
      el("td", { class: "number wide" }),
    );
  }
}

function fill(row, run) {
  const [, status, does, progress, , took] = row.children;
  const now = Math.max(run.started, Date.now() / 1000);
  status.firstChild.dataset.tone = TONES[run.status] ?? "idle";
  say(status.firstChild, run.status);
  say(does.firstChild, doing(run));
  keyed(does.lastChild, run.questions, ({ question }) => question, ({ prompt }) => el("li", { class: "name", text: `asks: ${prompt}` }));
  say(progress, run.progress === undefined ? "" : percent(run.progress));
  say(took, run.ended === undefined ? duration(Math.floor(now - run.started)) : duration(run.ended - run.started));
}
