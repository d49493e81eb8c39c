/** Agent runs as they progress, without a framework. */

import { connect } from "/client.js";

const $ = (id) => document.getElementById(id);
const { url, user } = document.body.dataset;
const runs = new Map();
let lost = 0;

const c = connect(url, { user });

c.on("agent_started", ({ payload: { run } }) => row(run));
c.on("text", ({ payload: { run, text } }) => (row(run).textContent += text));
c.on("agent_completed", ({ payload: { run } }) => row(run).classList.add("done"));
c.on("gap", ({ from, to }) => {
  lost += to - from + 1;
  $("lost").hidden = false;
  $("lost").textContent = `${lost} events will not come.`;
});
c.on("state", show);
show(c.status);

$("stop").onclick = () =>
  c.send("stop").then(
    () => ($("answer").textContent = "stopped"),
    (error) => ($("answer").textContent = `refused: ${error.message}`),
  );

function row(run) {
  if (!runs.has(run)) runs.set(run, $("runs").appendChild(document.createElement("li")));
  return runs.get(run);
}

function show({ state, done, total, retryAt, reason }) {
  $("status").textContent = {
    catching_up: `catching up, ${done} of ${total}`,
    offline: retryAt ? `offline, next attempt at ${new Date(retryAt).toLocaleTimeString()}` : "offline",
    ended: `ended: ${reason}`,
  }[state] ?? state;
}
