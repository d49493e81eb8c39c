/** AG-UI's own client, asked over a pipe: a line in, a line out. What it makes of a stream is what a page would show. */

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { AguiEncoder } from "../../trio_ws/admin/static/agui.js";

const require = createRequire(process.argv[2]); // where the packages are
const { from } = require("rxjs");

/** An agent that has done what it does, of the client in a package. */
const played = (client, events) =>
  new (class extends require(client).AbstractAgent {
    run() {
      return from(events);
    }
  })({ threadId: "t" });

/** Runs a stream through the whole pipeline: schemas, chunks, verifier, reducer. */
async function play({ events, client = "@ag-ui/client" }) {
  const agent = played(client, events);
  const warnings = [];
  console.warn = (...words) => warnings.push(words.join(" "));
  console.error = (...words) => warnings.push(words.join(" "));
  let run = null;
  try {
    run = await agent.runAgent({ runId: "r" });
  } catch (error) {
    warnings.push(`threw: ${error.message}`);
  }
  return { messages: agent.messages, state: agent.state, result: run?.result ?? null, interrupts: agent.pendingInterrupts, warnings };
}

/** A run as `agui.js` encodes it: the events of each event. */
function encode({ run, thread, events }) {
  const encoder = new AguiEncoder(run, { thread });
  return events.map((event) => encoder.encode(event));
}

const answers = { encode, play };

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...request } = JSON.parse(line);
  console.log(JSON.stringify(await answers[op](request)));
}
