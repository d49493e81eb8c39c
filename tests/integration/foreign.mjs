/** A foreign client: npm's `ws`, the protocol by hand. `node foreign.mjs WS_PACKAGE URL v1|plain COUNT`; prints JSON. */

const [path, url, how, count] = process.argv.slice(2);
const { default: WebSocket } = await import(path);
const seen = [];
let resets = 0;
let resume = {};

function finish() {
  process.stdout.write(JSON.stringify({ seen, resets }) + "\n");
  process.exit(0);
}

function plain() {
  const ws = new WebSocket(url);
  ws.on("open", () => process.stdout.write("open\n"));
  ws.on("message", (data, binary) => {
    const event = JSON.parse(data);
    seen.push([binary, Object.keys(event).sort(), event.payload]);
    if (seen.length === +count) finish();
  });
}

function v1() {
  const ws = new WebSocket(url, "trio-ws.v1");
  const say = (frame) => ws.send(JSON.stringify(frame));
  ws.on("open", () => {
    if (ws.protocol !== "trio-ws.v1") throw new Error(`subprotocol ${ws.protocol}`);
    say({ t: "hello", user: "ada", ...resume });
  });
  ws.on("message", (data) => {
    if (ws.readyState !== WebSocket.OPEN) return; // what had come before we cut it
    for (const frame of [].concat(JSON.parse(data))) {
      if (frame.t === "welcome") Object.assign(resume, { session: frame.session, epoch: frame.epoch, seq: frame.seq });
      if (frame.t === "live") process.stdout.write("live\n");
      if (frame.t === "ping") say({ t: "pong" });
      if (frame.t !== "event") continue;
      seen.push(frame.payload);
      resume.seq = frame.seq;
      if (seen.length % 7 === 0) {
        resets++;
        return ws.terminate();
      }
      say({ t: "ack", seq: frame.seq });
      if (seen.length === +count) {
        ws.on("close", (code) => (code === 1000 ? finish() : process.exit(1)));
        return say({ t: "bye" });
      }
    }
  });
  ws.on("close", (code) => code === 1006 && setTimeout(v1, 10));
}

({ plain, v1 })[how]();
