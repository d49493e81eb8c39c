/**
 * client.js on fake timers and scripted sockets, as a world for the referee: one JSON object a line on standard input,
 * each answered by one line. {begin: options} starts a client anew; {do: …} acts on its newest socket;
 * {until: seconds} turns the clock to what the client does next, or to then.
 *
 *   node virtual.mjs PATH_OF_CLIENT_JS
 */

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { World } from "../../client_js/world.mjs";
import { drive, KEY } from "./drive.mjs";

const { connect } = await import(pathToFileURL(process.argv[2]));
let world, obey, seen, known;

/** What the client has done since it was last asked, in order: reports as they came, then sockets. */
function look() {
  world.sockets.forEach((socket, n) => {
    const state = (known[n] ??= { sent: 0 });
    const tell = (what, value) => seen.push({ at: world.now, what, value, connection: n + 1 });
    if (!state.told) tell("connect", [].concat(socket.protocol ?? []));
    state.told = true;
    for (; state.sent < socket.raw.length; state.sent++) tell("message", socket.raw[state.sent]);
    if (socket.closed && !state.gone) tell("gone", null);
    state.gone = socket.closed;
  });
}

async function begin(options) {
  world = new World();
  [seen, known] = [[], []];
  if (options.saved) world.storage.set(KEY, JSON.stringify(options.saved));
  obey = drive(connect, "ws://server/ws", options, (value) => {
    look();
    seen.push({ at: world.now, what: "report", value });
  });
  await world.settle();
}

async function act({ answer, send, binary, close, cut, command }) {
  if (answer === "accept") await world.open();
  else if (answer === "refuse" || cut) await world.shut();
  else if (send !== undefined) world.socket.onmessage?.({ data: send });
  else if (binary !== undefined) world.socket.onmessage?.({ data: new Blob([Buffer.from(binary, "hex")]) });
  else if (close) await world.shut(close.code, close.reason);
  else if (command) obey(command);
  await world.settle();
}

async function until(end) {
  await world.settle();
  let steps = 0;
  for (look(); !seen.length && (await world.step(end)); look()) {
    if (++steps > 10000) throw new Error("the client spins");
  }
  look();
  return seen.shift() ?? null;
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer = null;
  if (asked.begin) await begin(asked.begin);
  else if (asked.do) await act(asked.do);
  else answer = await until(asked.until);
  process.stdout.write(JSON.stringify({ now: world.now, seen: answer }) + "\n");
}
