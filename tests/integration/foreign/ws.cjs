// npm's `ws` as a client that is told in lines of JSON what to send, and tells what happens: `node ws.cjs MODULE URL SUBPROTOCOL`.
const [module_, url, subprotocol] = process.argv.slice(2);
const WebSocket = require(module_);

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const socket = new WebSocket(url, subprotocol ? [subprotocol] : []);
socket.on("open", () => tell({ open: socket.protocol }));
socket.on("message", (data, isBinary) => tell(isBinary ? { binary: data.length } : { message: data.toString() }));
socket.on("close", (code) => tell({ closed: code }));
socket.on("error", (error) => tell({ error: String(error) }));
require("node:readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => socket.send(JSON.parse(line)));
