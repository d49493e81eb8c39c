/** client.js under Node, over real sockets: `node --experimental-websocket client_js.mjs URL OPTIONS`. See README.md. */

import { createInterface } from "node:readline";
import { connect } from "../../../trio_ws/admin/static/client.js";
import { drive, KEY } from "./drive.mjs";

const [url, json] = process.argv.slice(2);
const options = JSON.parse(json);
const storage = new Map(options.saved && [[KEY, JSON.stringify(options.saved)]]);
globalThis.sessionStorage = {
  getItem: (key) => storage.get(key) ?? null,
  setItem: (key, value) => storage.set(key, value),
  removeItem: (key) => storage.delete(key),
};
// Node 20 tells of a failed handshake by an error alone, without the close that follows it in a browser.
globalThis.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener("error", () => this.readyState === 0 && this.onclose?.({ code: 1006, reason: "" }));
  }
};
const report = (value) => process.stdout.write(JSON.stringify(value) + "\n");
report({ ready: true });
const obey = drive(connect, url, options, report);
createInterface({ input: process.stdin }).on("line", (line) => obey(JSON.parse(line)));
