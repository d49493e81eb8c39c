/** The nodes of the cluster: one row each, with its lease and its load; and the choice between this node and all. */

import { el, keyed, measure, say } from "./dom.js";
import { count, duration, percent, plural, rate } from "./format.js";

const KEPT = "trio-ws:scope";
const COLUMNS = ["Node", "State", "Lease", "CPU", "Connections", "Users owned", "Accepted", "Held", "Bus p99", "Up"];
const TONES = { serving: "good", draining: "warn", suspended: "bad", missing: "bad", unknown: "idle" };

/** Which of the two is shown, `node` or `cluster`; kept for the tab. */
export class Scope {
  value = sessionStorage.getItem(KEPT) === "node" ? "node" : "cluster";
  root = el("fieldset", { class: "spans" }, el("legend", { class: "sr", text: "Nodes shown" }));

  /** `changed` is called when the other one is asked for. */
  constructor(changed) {
    for (const [value, label] of [["node", "This node"], ["cluster", "All nodes"]]) {
      const choose = () => {
        this.value = value;
        sessionStorage.setItem(KEPT, value);
        changed();
      };
      const input = el("input", { type: "radio", name: "scope", checked: value === this.value, on: { change: choose } });
      this.root.append(el("label", {}, input, el("span", { text: label })));
    }
  }
}

/** What the figures of a node say of its cluster, in a line; nothing where there is none. */
export function standing(cluster) {
  if (!cluster) return "";
  return `One of ${plural(cluster.nodes, "node")}; it has the logs of ${plural(cluster.owned, "user")}.`;
}

export class Nodes {
  #before = new Map(); // node: [at, accepted, cpu]
  #rates = new Map();
  #rows = el("tbody");
  root = el(
    "section",
    { class: "panel nodes", "aria-labelledby": "nodes-title", hidden: true },
    el("h2", { id: "nodes-title", text: "Nodes" }),
    el(
      "div",
      { class: "scrolled", tabindex: "0", role: "region", "aria-labelledby": "nodes-title" },
      el(
        "table",
        { class: "table" },
        el("thead", {}, el("tr", {}, ...COLUMNS.map((text, n) => el("th", { scope: "col", text, class: n > 1 ? "number" : "" })))),
        this.#rows,
      ),
    ),
  );

  /** `nodes`: those of the figures; `at`: when they were taken. */
  draw(nodes, at) {
    this.root.hidden = !nodes;
    if (!nodes) return;
    for (const node of nodes) this.#measure(node, at);
    keyed(this.#rows, nodes, ({ node }) => node, make, (row, node) => this.#fill(row, node));
  }

  /** How much a node accepts, and of a CPU uses, since it was last seen. */
  #measure({ node, accepted, cpu }, at) {
    const before = this.#before.get(node);
    if (accepted === null) this.#rates.delete(node);
    else if (before && at > before[0]) this.#rates.set(node, [1, 2].map((n) => ([at, accepted, cpu][n] - before[n]) / (at - before[0])));
    if (accepted !== null) this.#before.set(node, [at, accepted, cpu]);
  }

  #fill(row, node) {
    const { state, left, connections, owned, held, bus_delay_p99: delay, uptime } = node;
    const [accepted, cpu] = this.#rates.get(node.node) ?? [null, null];
    const chip = row.children[1].firstChild;
    row.dataset.away = String(state === "missing" || state === "unknown");
    row.dataset.tone = chip.dataset.tone = TONES[state] ?? "idle";
    say(chip, state);
    const told = [duration(Math.max(0, left)), percent(cpu), count(connections), count(owned), rate(accepted), count(held), duration(delay), duration(uptime === null ? null : Math.floor(uptime))];
    told.forEach((text, n) => measure(row.children[n + 2], text));
  }
}

function make({ node, name, address, version }) {
  const about = [name && node, address, version && `trio-ws ${version}`].filter(Boolean).join(", ");
  return el(
    "tr",
    {},
    el("th", { scope: "row", title: about }, el("span", { class: "name", text: name ?? node })),
    el("td", {}, el("span", { class: "chip" })),
    ...COLUMNS.slice(2).map(() => el("td", { class: "number" })),
  );
}
