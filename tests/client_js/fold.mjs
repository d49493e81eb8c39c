/** Folds plans with runs.js: a JSON array of plans on standard input, each a list of events and gaps; states go out. */

import { text } from "node:stream/consumers";
import { foldRuns } from "../../trio_ws/admin/static/runs.js";

const states = JSON.parse(await text(process.stdin)).map((plan) => {
  const on = {};
  const runs = foldRuns({ on: (type, fn) => (on[type] = fn) }, { kept: 4 });
  for (const { gap, event } of plan) gap ? on.gap(gap) : on["*"](event);
  return [...runs.values()];
});
process.stdout.write(JSON.stringify(states));
