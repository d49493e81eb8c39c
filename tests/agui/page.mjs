/** A page of AG-UI over the example: `node --experimental-websocket page.mjs URL`. Then a tab that comes late. */

import { connect } from "../../trio_ws/admin/static/client.js";
import { TrioWsAgent } from "../../docs/examples/agui/trio-ws-agent.js";

const tab = () => connect(process.argv[2], { user: "ada", key: null });

const first = tab();
const agent = new TrioWsAgent(first, { threadId: "t1" }).clone();
agent.addMessage({ id: "u1", role: "user", content: "What is the answer?" });
const { result } = await agent.runAgent({ runId: "r1" });

const second = tab();
const late = new TrioWsAgent(second, { threadId: "t1" });
await late.connectAgent({ runId: "r1" });

let failure = null;
await agent.runAgent({ runId: "r2" }, { onRunErrorEvent: ({ event }) => void (failure = event.message) });

console.log(JSON.stringify({ result, messages: agent.messages, late: late.messages, failure }));
first.close();
second.close();
