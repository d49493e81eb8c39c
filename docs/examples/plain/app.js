/** Agent runs as they progress, each with a button that stops it, without a framework. */

import { connect } from "/client.js";
import { cancelRun, ended, foldRuns } from "/runs.js";

const $ = (id) => document.getElementById(id);
const { url, user } = document.body.dataset;
const rows = new Map();

const c = connect(url, { user, from: "snapshot", key: null }); // a reload begins anew, with how each run stands
const runs = foldRuns(c, { onChange: draw });
c.on("state", show);
show(c.status);

function draw(run) {
  if (!rows.has(run.run)) rows.set(run.run, row(run.run));
  const [name, status, progress, cancel, text] = rows.get(run.run).children;
  name.textContent = run.name ?? run.run;
  status.textContent = run.status === "running" ? run.tools.map(({ tool }) => tool).join(", ") : run.status;
  progress.hidden = ended(run) || run.progress === undefined;
  progress.value = run.progress ?? 0;
  cancel.hidden = ended(run);
  cancel.disabled = run.status === "cancelling";
  text.textContent = (run.incomplete || run.text_from ? "… " : "") + run.text; // of a long one the end is kept
  for (const id of rows.keys()) {
    if (runs.has(id)) continue;
    rows.get(id).remove(); // the oldest are forgotten
    rows.delete(id);
  }
}

function row(run) {
  const li = $("run").content.firstElementChild.cloneNode(true);
  li.querySelector("button").onclick = () =>
    cancelRun(c, run).catch((error) => ($("answer").textContent = `refused: ${error.message}`));
  return $("runs").appendChild(li);
}

function show({ state, done, total, retryAt, reason }) {
  $("status").textContent = {
    catching_up: `catching up, ${done} of ${total}`,
    offline: retryAt ? `offline, next attempt at ${new Date(retryAt).toLocaleTimeString()}` : "offline",
    ended: `ended: ${reason}`,
  }[state] ?? state;
}
