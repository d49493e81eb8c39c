/**
 * Runs as streams of AG-UI, the protocol of agents' pages. How to use it: agui.d.ts.
 *
 * It does what `trio_ws.agui.AguiEncoder` does, event for event; docs/agui.md has the mapping.
 */

const OWNER = "subagentRunId";
const METADATA = "trio-ws"; // in an event's metadata: what AG-UI has no place for
const VERBATIM = "agui"; // the type of event that is one of AG-UI's as it is; and in a payload what only AG-UI asks for

// What must be there: text, list, object, or any value.
const REQUIRED = Object.fromEntries(
  `RUN_STARTED threadId:t runId:t
  RUN_FINISHED threadId:t runId:t
  RUN_ERROR message:t
  TEXT_MESSAGE_START messageId:t
  TEXT_MESSAGE_CONTENT messageId:t delta:t
  TEXT_MESSAGE_END messageId:t
  TOOL_CALL_START toolCallId:t toolCallName:t
  TOOL_CALL_ARGS toolCallId:t delta:t
  TOOL_CALL_END toolCallId:t
  TOOL_CALL_RESULT messageId:t toolCallId:t content:v
  STATE_SNAPSHOT snapshot:v
  STATE_DELTA delta:l
  MESSAGES_SNAPSHOT messages:l
  ACTIVITY_SNAPSHOT messageId:t activityType:t content:o
  ACTIVITY_DELTA messageId:t activityType:t patch:l
  RAW event:v
  CUSTOM name:t value:v
  STEP_STARTED stepName:t
  STEP_FINISHED stepName:t
  REASONING_START messageId:t
  REASONING_MESSAGE_START messageId:t role:t
  REASONING_MESSAGE_CONTENT messageId:t delta:t
  REASONING_MESSAGE_END messageId:t
  REASONING_END messageId:t
  REASONING_ENCRYPTED_VALUE subtype:t entityId:t encryptedValue:t
  SUBAGENT_STARTED subagentRunId:t name:t
  SUBAGENT_FINISHED subagentRunId:t
  SUBAGENT_ERROR subagentRunId:t message:t`
    .split("\n")
    .map((line) => line.trim().split(" "))
    .map(([type, ...fields]) => [type, fields.map((field) => field.split(":"))]),
);
const IS = { t: (v) => typeof v === "string", l: Array.isArray, o: (v) => object(v) === v, v: (v) => v !== undefined };

// What streams are made of: the field that names one, and how it is opened, where that can be done for it, and ended.
const STREAMS = {
  text: { id: "messageId", start: { type: "TEXT_MESSAGE_START", role: "assistant" }, end: { type: "TEXT_MESSAGE_END" } },
  thought: {
    id: "messageId",
    start: { type: "REASONING_MESSAGE_START", role: "reasoning" },
    end: { type: "REASONING_MESSAGE_END" },
  },
  span: { id: "messageId", end: { type: "REASONING_END" } },
  tool: { id: "toolCallId", end: { type: "TOOL_CALL_END" } },
  step: { id: "stepName", end: { type: "STEP_FINISHED" } },
  agent: { id: OWNER, end: { type: "SUBAGENT_FINISHED", outcome: { type: "suspended" } } }, // it goes on beyond this stream
};
const PLACE = {
  TEXT_MESSAGE_START: ["text", "start"],
  TEXT_MESSAGE_CONTENT: ["text", "within"],
  TEXT_MESSAGE_END: ["text", "end"],
  REASONING_MESSAGE_START: ["thought", "start"],
  REASONING_MESSAGE_CONTENT: ["thought", "within"],
  REASONING_MESSAGE_END: ["thought", "end"],
  REASONING_START: ["span", "start"],
  REASONING_END: ["span", "end"],
  TOOL_CALL_START: ["tool", "start"],
  TOOL_CALL_ARGS: ["tool", "within"],
  TOOL_CALL_END: ["tool", "end"],
  STEP_STARTED: ["step", "start"],
  STEP_FINISHED: ["step", "end"],
  SUBAGENT_STARTED: ["agent", "start"],
  SUBAGENT_FINISHED: ["agent", "end"],
  SUBAGENT_ERROR: ["agent", "end"],
};

const object = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : {});
const list = (value) => (Array.isArray(value) ? value.filter((item) => object(item) === item) : []);
const text = (payload) => (typeof payload.text === "string" ? payload.text : "");
const json = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const pick = (from, ...keys) => Object.fromEntries(keys.filter((key) => from[key] !== undefined).map((key) => [key, from[key]]));
const metadata = (about) => (Object.keys(about).length ? { metadata: { [METADATA]: about } } : {});
const letters = (words) => [...words].length; // as the server counts them

function isAgui(event) {
  const required = Object.hasOwn(REQUIRED, event.type) ? REQUIRED[event.type] : null;
  return required !== null && required.every(([field, kind]) => IS[kind](event[field]));
}

function owned({ [OWNER]: _, ...bare }, owner) {
  return owner === undefined ? bare : { ...bare, [OWNER]: owner };
}

/** Lets through what is legal now, and mends what is not: what was lost before it never breaks a stream. */
class Gate {
  #open = new Map(); // what is open, in the order in which it was opened, with its owner
  #owners = new Map(); // of what was ever opened, by its field and name, whatever kind it is of
  #agents = new Set();

  admit(event) {
    const [kind, part] = PLACE[event.type] ?? [];
    if (!kind) return [event];
    const stream = STREAMS[kind];
    const key = JSON.stringify([kind, event[stream.id], kind === "step" ? event[OWNER] : undefined]);
    if (part === "start") return this.#start(key, kind, event);
    if (this.#open.has(key)) {
      const before = kind === "agent" ? this.#endAll((owner) => owner === event[OWNER]) : [];
      if (kind !== "agent") event = owned(event, this.#open.get(key));
      if (part === "end") this.#open.delete(key);
      return [...before, event];
    }
    if (part === "end" || !stream.start) return [];
    const start = owned({ ...stream.start, [stream.id]: event[stream.id] }, event[OWNER]);
    return [...this.#start(key, kind, start), owned(event, this.#open.get(key))];
  }

  isOpen(kind, id) {
    return this.#open.has(JSON.stringify([kind, id, undefined]));
  }

  /** Ends all that is open, what was opened last first. */
  close() {
    return this.#endAll(() => true);
  }

  #start(key, kind, event) {
    if (this.#open.has(key)) return [];
    if (kind === "agent") {
      const { [OWNER]: agent, parentSubagentRunId: parent, ...rest } = event;
      if (this.#agents.has(agent)) return [];
      if (!this.#agents.has(parent)) event = { ...rest, [OWNER]: agent };
      this.#agents.add(agent);
      this.#open.set(key, undefined);
    } else {
      const { id } = STREAMS[kind];
      const name = JSON.stringify([id, event[id], kind === "step" ? event[OWNER] : undefined]);
      if (!this.#owners.has(name)) this.#owners.set(name, event[OWNER]);
      const owner = this.#owners.get(name);
      this.#open.set(key, owner);
      event = owned(event, owner);
    }
    return [event];
  }

  #endAll(isMeant) {
    const keys = [...this.#open].filter(([, owner]) => isMeant(owner)).map(([key]) => key);
    return keys.reverse().map((key) => {
      const [kind, id] = JSON.parse(key);
      const owner = kind === "agent" ? id : this.#open.get(key);
      this.#open.delete(key);
      return owned({ ...STREAMS[kind].end, [STREAMS[kind].id]: id }, owner);
    });
  }
}

/** What is told of one run: the encoder's own, or one that is nested in it, which is a subagent. */
class Lane {
  started = false;
  ended = false;
  upto = 0; // events up to here are in a snapshot that was told
  text = null; // the message that is being written
  written = 0; // letters of the answer that were told
  thought = "";
  calls = new Map();
  pending = [];
  questions = new Set();

  constructor(run, parent) {
    this.run = run;
    this.parent = parent;
    this.owner = parent ? run : undefined;
  }
}

export class AguiEncoder {
  #root;
  #lanes;
  #gate = new Gate();
  #ending = {};
  #told = [];

  constructor(run, { thread = run } = {}) {
    this.run = run;
    this.thread = thread;
    this.#root = new Lane(run, null);
    this.#lanes = new Map([[run, this.#root]]);
  }

  get ended() {
    return this.#root.ended;
  }

  encode(event) {
    this.#told = [];
    const payload = object(event.payload);
    const lane = event.type === "standing" ? null : this.#laneOf(event, payload);
    if (event.type === "standing") {
      this.#standing(payload);
    } else if (lane && !lane.ended && !this.ended) {
      if (event.type === "snapshot") {
        lane.upto = Math.max(lane.upto, event.seq);
        this.#begin(lane, payload);
        this.#snapshot(lane, payload, event);
      } else if (event.seq > lane.upto) {
        this.#begin(lane, event.type === "agent_started" ? payload : {});
        this.#event(lane, payload, event);
      }
    }
    if (event.ts) for (const told of this.#told) told.timestamp = Math.round(event.ts * 1000);
    return this.#told;
  }

  #laneOf({ run, type }, { parent: name }) {
    let lane = this.#lanes.get(run);
    const parent = this.#lanes.get(name);
    if (!lane && run && parent && !parent.ended && (type === "agent_started" || type === "snapshot")) {
      this.#lanes.set(run, (lane = new Lane(run, parent)));
    }
    return lane;
  }

  #event(lane, payload, event) {
    const { type } = event;
    if (!lane.parent && ["agent_delta", "agent_thinking", "tool_executing"].includes(type)) this.#ending = {}; // run again
    if (["agent_thinking", "tool_executing", "question_asked"].includes(type)) this.#closeText(lane);
    if (type === "agent_started") return;
    if (type === "agent_thinking") this.#think(lane, text(payload), object(payload[VERBATIM]), event.seq);
    else if (type === "agent_delta") this.#write(lane, text(payload), event.merged?.from ?? event.seq);
    else if (type === "tool_executing") this.#call(lane, payload);
    else if (type === "tool_completed") this.#return(lane, payload);
    else if (type === "question_asked") this.#ask(lane, payload);
    else if (type === "agent_completed" || type === "agent_lost") this.#finish(lane, payload);
    else if (type === VERBATIM && this.#verbatim(lane, payload)) return;
    else this.#custom(lane, type, event.payload);
  }

  #begin(lane, payload) {
    if (lane.started) return;
    lane.started = true;
    const about = pick(payload, "name", "input");
    if (!lane.parent) {
      const parent = typeof payload.parent === "string" ? { parentRunId: payload.parent } : {};
      this.#told.push({ type: "RUN_STARTED", threadId: this.thread, runId: this.run, ...parent, ...metadata(about) });
      return;
    }
    this.#begin(lane.parent, {});
    const parent = lane.parent.owner === undefined ? {} : { parentSubagentRunId: lane.parent.owner };
    const name = String(payload.name || "agent");
    this.#admit({ type: "SUBAGENT_STARTED", [OWNER]: lane.run, name, ...parent, ...metadata(about) });
  }

  #finish(lane, payload) {
    this.#closeText(lane);
    const { outcome, result = null } = payload;
    const error = object(payload.error);
    const kind = String(error.kind || (outcome === "lost" ? "agent_lost" : outcome));
    const message = String(error.message || (outcome === "lost" ? "the agent is gone" : kind));
    const came = result === null ? {} : { result };
    const about = metadata(pick(payload, "outcome", "duration", "reason"));
    lane.ended = true;
    if (lane.parent) {
      const end =
        outcome === "completed"
          ? { type: "SUBAGENT_FINISHED", outcome: { type: "success" }, ...came }
          : { type: "SUBAGENT_ERROR", message, code: kind };
      this.#admit({ ...end, [OWNER]: lane.owner, ...about });
      return;
    }
    this.#told.push(...this.#gate.close());
    const usage = this.#ending.usage ? { usage: this.#ending.usage } : {};
    const end =
      outcome === "completed" || outcome === "cancelled"
        ? { type: "RUN_FINISHED", threadId: this.thread, runId: this.run, outcome: this.#outcome(lane, outcome), ...came }
        : { type: "RUN_ERROR", message, code: kind };
    this.#told.push({ ...end, ...usage, ...about });
  }

  #outcome({ pending }, outcome) {
    if (outcome === "cancelled") return { type: "cancelled" };
    const { type, interrupts } = object(this.#ending.outcome);
    if (type === "interrupt" && Array.isArray(interrupts)) return { type, interrupts };
    return { type: "success", ...(pending.length ? { pendingToolCallIds: pending } : {}) };
  }

  #think(lane, words, { messageId }, seq) {
    lane.thought = words;
    const id = { messageId: String(messageId || `${lane.run}/thought/${seq}`) };
    this.#admit({ type: "REASONING_START", ...id }, lane);
    this.#admit({ type: "REASONING_MESSAGE_START", role: "reasoning", ...id }, lane);
    this.#admit({ type: "REASONING_MESSAGE_CONTENT", delta: words, ...id }, lane);
    this.#admit({ type: "REASONING_MESSAGE_END", ...id }, lane);
    this.#admit({ type: "REASONING_END", ...id }, lane);
  }

  #write(lane, words, seq) {
    if (!words) return;
    lane.written += letters(words);
    if (lane.text === null || !this.#gate.isOpen("text", lane.text)) {
      lane.text = `${lane.run}/text/${seq}`;
      this.#admit({ type: "TEXT_MESSAGE_START", messageId: lane.text, role: "assistant" }, lane);
    }
    this.#admit({ type: "TEXT_MESSAGE_CONTENT", messageId: lane.text, delta: words }, lane);
  }

  #closeText(lane) {
    if (lane.text !== null) this.#admit({ type: "TEXT_MESSAGE_END", messageId: lane.text }, lane);
    lane.text = null;
  }

  #call(lane, payload) {
    const { call, tool, input = null } = payload;
    if (!Number.isInteger(call) || lane.calls.has(call)) return;
    const { toolCallId: id = `${lane.run}/call/${call}`, toolCallName = tool || "tool", parentMessageId } = object(payload[VERBATIM]);
    lane.calls.set(call, String(id));
    const start = { type: "TOOL_CALL_START", toolCallId: String(id), toolCallName: String(toolCallName) };
    this.#admit(typeof parentMessageId === "string" ? { ...start, parentMessageId } : start, lane);
    if (input !== null) this.#admit({ type: "TOOL_CALL_ARGS", toolCallId: String(id), delta: json(input) }, lane);
    this.#admit({ type: "TOOL_CALL_END", toolCallId: String(id) }, lane);
  }

  #return(lane, payload) {
    const { call, outcome } = payload;
    if (!Number.isInteger(call)) return;
    this.#call(lane, payload); // where its start was lost
    const toolCallId = lane.calls.get(call);
    lane.calls.delete(call);
    const { pending, parts, messageId } = object(payload[VERBATIM]);
    if (pending) return void lane.pending.push(toolCallId);
    const { output = null } = payload;
    const error = object(payload.error);
    const why = error.message || error.kind || (outcome === undefined || outcome === "completed" ? "" : outcome);
    const result = {
      type: "TOOL_CALL_RESULT",
      messageId: String(messageId || `${lane.run}/result/${call}`),
      toolCallId,
      content: output === null ? String(why) : parts ? output : json(output),
      role: "tool",
    };
    this.#admit({ ...result, ...metadata(pick(payload, "outcome", "duration", "error")) }, lane);
  }

  #ask(lane, payload) {
    const question = String(payload.question);
    if (lane.questions.has(question)) return;
    lane.questions.add(question);
    this.#custom(lane, "question_asked", payload);
  }

  #custom(lane, name, value = null) {
    this.#admit({ type: "CUSTOM", name, value }, lane);
  }

  /** Tells what is AG-UI's already; false where it is none. */
  #verbatim(lane, payload) {
    const told = Object.fromEntries(
      Object.entries(payload).filter(([key, value]) => value !== null || ["value", "snapshot", "event"].includes(key)),
    );
    const { type } = told;
    if (!isAgui(told) || type === "RUN_STARTED") return false;
    if (type === "RUN_FINISHED" || type === "RUN_ERROR") {
      this.#ending = told;
      return true;
    }
    if (type === "TEXT_MESSAGE_START" && told[OWNER] === undefined && (told.role ?? "assistant") === "assistant") {
      this.#closeText(lane);
      lane.text = told.messageId;
    } else if (type === "MESSAGES_SNAPSHOT") {
      this.#closeText(lane); // it may leave that message out
    }
    this.#admit(told, lane);
    return true;
  }

  /** Tells what a snapshot has and the stream has not: more text, calls that began or ended, the end. */
  #snapshot(lane, payload, { seq }) {
    const { thought, text_from: from = 0, status, progress = null, message = null } = payload;
    if (typeof thought === "string" && thought && !lane.thought.startsWith(thought)) {
      this.#closeText(lane);
      this.#think(lane, thought, {}, seq);
    }
    const words = [...text(payload)];
    const missing = from + words.length - lane.written;
    if (missing > 0) {
      lane.written += Math.max(missing - words.length, 0); // what is cut off at its front is not told any more
      this.#write(lane, words.slice(-missing).join(""), seq);
    }
    const calls = new Map(list(payload.tools).map((call) => [call.call, call]));
    const last = object(payload.last_tool);
    for (const call of [...lane.calls.keys()].sort((a, b) => a - b)) {
      if (!calls.has(call)) this.#return(lane, last.call === call ? last : { call });
    }
    for (const [call, open] of [...calls].sort(([a], [b]) => a - b)) {
      if (lane.calls.has(call)) continue;
      this.#closeText(lane);
      this.#call(lane, open);
    }
    if (progress !== null) this.#custom(lane, "agent_progress", { fraction: progress, ...(message === null ? {} : { message }) });
    for (const question of list(payload.questions)) this.#ask(lane, question);
    if (["completed", "failed", "cancelled", "lost"].includes(status)) this.#finish(lane, { ...payload, outcome: status });
    else if (status === "cancelling") this.#custom(lane, "agent_cancelling", {});
  }

  #standing({ questions }) {
    for (const { run, ts, ...question } of list(questions)) {
      const lane = this.#lanes.get(run);
      if (!lane || lane.ended || this.ended) continue;
      this.#begin(lane, {});
      this.#ask(lane, question);
    }
  }

  #admit(told, lane = null) {
    if (lane?.parent && told[OWNER] === undefined && told.type !== "MESSAGES_SNAPSHOT") told = { ...told, [OWNER]: lane.owner };
    this.#told.push(...this.#gate.admit(told));
  }
}
