/** A distribution of durations as bars: how many lie in each class. What reads out reads each bar. */

import { el, keyed } from "./dom.js";
import { count, duration, percent } from "./format.js";

/** `from`: the first class is all up to that bound, in seconds; `late`: a bound above which bars are marked;
 * `nothing`: what is said while there is nothing to show. */
export class Bars {
  #from;
  #late;
  #nothing;

  constructor({ title, from, nothing, late = Infinity }) {
    this.#nothing = nothing;
    this.#from = from;
    this.#late = late;
    this.root = el("ol", { class: "bars", role: "list", "aria-label": title });
  }

  /** `counts` has one number more than `bounds`: what lies above the last. */
  draw(bounds, counts) {
    const all = counts.reduce((sum, n) => sum + n, 0);
    const start = Math.max(0, bounds.indexOf(this.#from));
    const classes = [
      { bound: bounds[start], above: false, n: counts.slice(0, start + 1).reduce((sum, n) => sum + n, 0) },
      ...bounds.slice(start + 1).map((bound, i) => ({ bound, above: false, n: counts[start + 1 + i] ?? 0 })),
      { bound: bounds.at(-1), above: true, n: counts[bounds.length] ?? 0 },
    ];
    const most = Math.max(1, ...classes.map(({ n }) => n));
    this.root.dataset.empty = all ? "" : this.#nothing;
    keyed(
      this.root,
      classes,
      ({ bound, above }) => `${bound} ${above}`,
      ({ bound, above }) => {
        const late = above ? bound >= this.#late : bound > this.#late;
        return el(
          "li",
          { data: { late: String(late) } },
          el("span", { class: "column", "aria-hidden": "true" }),
          el("span", { class: "bound", "aria-hidden": "true", text: `${above ? ">" : ""}${short(bound)}` }),
          el("span", { class: "sr" }),
        );
      },
      (li, { bound, above, n }) => {
        const share = all ? n / all : 0;
        const said = `${above ? "over" : "up to"} ${duration(bound)}: ${count(n)}${all ? `, ${percent(share)}` : ""}`;
        li.title = said;
        li.firstChild.style.setProperty("--height", n / most);
        li.firstChild.dataset.none = String(n === 0);
        li.lastChild.textContent = said;
      },
    );
  }
}

/** Seconds without their unit, which is told once, and without the nought that says nothing. */
const short = (s) => String(s).replace(/^0/, "");
