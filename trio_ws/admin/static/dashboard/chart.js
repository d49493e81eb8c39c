/** Figures over time, drawn by uPlot: a legend that tells the values in words, hover and arrow keys to look back. */

import { el, say } from "./dom.js";
import { time, timeToMinute } from "./format.js";
import { colour } from "./theme.js";

const { uPlot } = window;
const FONT = '11px Inter, system-ui, "Segoe UI", Roboto, sans-serif';
const HEIGHT = 148;

/**
 * One chart.
 *
 * `series`: {column, label, colour}; `format` tells a value; `floor` and `ceiling` bound the scale: the least top that it
 * has, and a top that it never leaves; `line`: a value, or a function that gives one or null, drawn as the threshold.
 */
export class Chart {
  #options;
  #plot;
  #frame;
  #said;
  #values;
  #when;
  #history = null;
  #end = 0;
  #span = 300;

  constructor(options) {
    this.#options = options;
    this.#values = options.series.map(() => el("dd", { text: "–" }));
    this.#when = el("span", { class: "when", text: "now" });
    this.#said = el("p", { class: "sr", "aria-live": "polite" });
    this.#frame = el("div", { class: "plot", tabindex: "0", role: "img", "aria-label": options.title });
    this.root = el(
      "div",
      { class: "chart" },
      this.#frame,
      el(
        "div",
        { class: "told" },
        el(
          "dl",
          { class: "legend" },
          ...options.series.map(({ label, colour: name }, n) =>
            el("div", { data: { colour: name } }, el("dt", { text: label }), this.#values[n])),
        ),
        this.#when,
      ),
      this.#said,
    );
    this.#frame.addEventListener("keydown", (event) => this.#step(event));
    this.#frame.addEventListener("blur", () => this.#look(null));
    new ResizeObserver(() => {
      const width = this.#frame.clientWidth;
      if (width && this.#plot && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
      else if (width && !this.#plot && this.#history) this.#make();
    }).observe(this.#frame);
  }

  /** Shows the `span` seconds before `end`, in Unix time. */
  draw(history, end, span) {
    this.#history = history;
    this.#end = end;
    this.#span = span;
    if (!this.#plot) {
      if (!this.#frame.clientWidth) return; // not laid out yet: the observer makes it
      this.#make();
    }
    this.#plot.setData(this.#data());
    if (this.#plot.cursor.idx == null) this.#tell(null);
  }

  /** Takes the colours of a new theme. */
  recolour() {
    this.#plot?.redraw(false, true);
  }

  #data() {
    const times = this.#history.columns.get("at");
    const none = times.map(() => null);
    return [times, ...this.#options.series.map(({ column }) => this.#history.columns.get(column) ?? none)];
  }

  #make() {
    const { series, format, floor = 1, ceiling = Infinity, low = null } = this.#options;
    const bounds = (_, __, top) => {
      const line = this.#line();
      const wanted = Math.max(floor, (top ?? 0) * 1.12, line !== null && top > line * 0.6 ? line * 1.1 : 0);
      return [low === null ? 0 : Math.min(low, this.#least() - 0.01), Math.min(ceiling, wanted)];
    };
    const axis = { font: FONT, stroke: () => colour("soft"), ticks: { show: false } };
    this.#plot = new uPlot(
      {
        width: this.#frame.clientWidth,
        height: HEIGHT,
        padding: [8, 16, 0, 0],
        legend: { show: false },
        cursor: {
          sync: { key: "time" },
          y: false,
          drag: { x: false, y: false },
          points: { size: 6, width: 0, fill: (u, n) => colour(series[n - 1].colour) },
        },
        scales: {
          x: { time: true, range: () => [this.#end - this.#span, this.#end] },
          y: { range: bounds },
        },
        axes: [
          {
            ...axis,
            size: 22,
            gap: 4,
            space: 64,
            grid: { show: false },
            values: (_, splits) => splits.map(this.#span <= 120 ? time : timeToMinute),
          },
          {
            ...axis,
            gap: 6,
            space: 30,
            size: (_, values) => 14 + 6.4 * Math.max(2, ...(values ?? []).map((value) => value.length)),
            grid: { stroke: () => colour("line"), width: 1 },
            values: (_, splits) => splits.map(format),
          },
        ],
        series: [
          {},
          ...series.map(({ colour: name }, n) => ({
            stroke: () => colour(name),
            fill: n === 0 ? () => colour(name, 0.1) : undefined,
            width: 1.5,
            points: { show: false },
            spanGaps: false,
          })),
        ],
        hooks: {
          draw: [(u) => this.#threshold(u)],
          setCursor: [(u) => this.#tell(u.cursor.idx)],
        },
      },
      this.#data(),
      this.#frame,
    );
  }

  #line() {
    const { line = null } = this.#options;
    return typeof line === "function" ? line() : line;
  }

  #least() {
    const [times, ...columns] = this.#data();
    const shown = columns.flatMap((values) => values.filter((v, n) => v !== null && times[n] >= this.#end - this.#span));
    return Math.min(1, ...shown);
  }

  #threshold(u) {
    const line = this.#line();
    const { min, max } = u.scales.y;
    if (line === null || line > max || line < min) return;
    const y = Math.round(u.valToPos(line, "y", true)) + 0.5;
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour("bad", 0.7);
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  /** Tells the values at one place of the data; null is the newest. */
  #tell(at) {
    const { series, format, title } = this.#options;
    const [times, ...columns] = this.#data();
    const n = at ?? times.length - 1;
    const values = columns.map((column) => format(column[n] ?? null));
    values.forEach((value, i) => say(this.#values[i], value));
    say(this.#when, at === null || at === undefined ? "now" : time(times[n]));
    const said = series.map(({ label }, i) => `${label} ${values[i]}`).join(", ");
    const shown = at === null || at === undefined ? `${title}, now: ${said}. Arrow keys look back.` : "";
    if (shown) this.#frame.setAttribute("aria-label", shown);
    return `${time(times[n] ?? 0)}: ${said}`;
  }

  #look(at) {
    if (!this.#plot) return;
    const left = at === null ? -10 : this.#plot.valToPos(this.#plot.data[0][at], "x");
    this.#plot.setCursor({ left, top: at === null ? -10 : HEIGHT / 3 });
  }

  #step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.#look(null);
    if (!move || !this.#plot) return;
    event.preventDefault();
    const times = this.#plot.data[0];
    const first = Math.max(0, times.findIndex((at) => at >= this.#end - this.#span));
    const now = this.#plot.cursor.idx ?? times.length - 1;
    const at = Math.min(times.length - 1, Math.max(first, now + move));
    this.#look(at);
    say(this.#said, this.#tell(at));
  }
}
