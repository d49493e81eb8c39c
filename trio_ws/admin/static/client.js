/**
 * The browser client of trio-ws: each event once, in order, over connections that may be cut at any time.
 * How to use it: client.d.ts. Times are in seconds.
 */

const ATTEMPT_TIMEOUT = 4;
const STABLE_AFTER = 5; // then attempt 1 starts over
const FIRST_DELAYS = [0.1, 0.5, 1];
const TICK = 5; // performance.now() may stand still while a machine sleeps
const REDO_AFTER = 6; // if the server sends no failed event again
const MAX_QUEUED = 1000; // events; beyond that the connection rests
const MAX_UNDERWAY = 16; // messages unanswered
const MAX_WAITING = 1000; // messages in all
const REMEMBERED = 1000; // ids
const MAX_MISTAKES = 5; // the server closes for good at the 10th
const RESERVED = ["*", "gap", "state"];

/** Seconds before an attempt, counted from 0. */
export const delay = (attempt, random = Math.random) =>
  attempt < FIRST_DELAYS.length
    ? FIRST_DELAYS[attempt] * (0.95 + 0.1 * random())
    : random() * Math.min(20, 2 ** (attempt - 2));

/** What a close code asks for. */
export const reaction = (code) =>
  code === 4401 ? "token" : [1000, 1007, 1009].includes(code) || (code >= 4400 && code < 4500) ? "stop" : "retry";

/**
 * The accounting rule: the proof that nothing was lost in silence. `cursor` is where this connection stands, which is
 * `received`, unless the server had to go on from a little earlier. Within one `life` seqs mean the same.
 */
export class Ledger {
  constructor(saved) {
    this.session = saved?.session;
    this.epoch = saved?.epoch;
    this.cursor = this.received = this.processed = this.head = saved?.seq ?? 0;
    this.life = 0;
    this.foreign = !!saved;
    this.ids = new Set();
    this.void = new Set();
  }

  /** Returns the gap of a reset, if any. */
  welcome({ session, epoch, seq, head, resumed }) {
    check(seq <= head, "above the head");
    const known = this.epoch !== undefined;
    let gap;
    if (known && resumed) {
      check(epoch === this.epoch, "another epoch");
      if (seq > this.received) {
        if (!this.foreign) this.session = undefined; // another page has it: begin one here
        check(this.foreign, "left out");
        this.received = this.processed = seq;
      }
    } else {
      if (known) {
        const to = Math.max(this.received, this.head);
        gap = { from: this.received + 1, to, reason: "reset", lost: {}, critical: 0, anew: true };
        this.life++;
        [this.void, this.ids] = [this.ids, new Set()]; // these may come again, under new seqs
      }
      this.received = this.processed = seq;
    }
    if (session !== this.session) this.begun = seq; // not before
    Object.assign(this, { session, epoch, head, cursor: seq, foreign: false });
    return gap;
  }

  event({ seq, id, retry, merged }) {
    if (retry > 0 && seq <= this.cursor) return "repeat";
    check(!merged || (merged.n > 0 && merged.from + merged.n === seq), "merged does not add up");
    this.#advance(merged?.from ?? seq, seq);
    if (seq <= this.received) return "repeat";
    this.received = seq;
    this.ids.add(id);
    if (this.ids.size > REMEMBERED) this.ids.delete(this.ids.values().next().value);
    return this.void.has(id) ? "known" : "new";
  }

  gap({ from, to }) {
    this.#advance(from, to);
    if (to <= this.received) return false;
    this.received = to;
    return true;
  }

  live(seq) {
    check(seq <= this.cursor, "too early");
    this.void.clear();
  }

  #advance(first, last) {
    check(first === this.cursor + 1 && last >= first && Number.isInteger(last), `${first} to ${last} after ${this.cursor}`);
    this.cursor = last;
    this.head = Math.max(this.head, last);
  }
}

function check(holds, what) {
  if (!holds) throw new Error(what);
}

export function connect(address, options) {
  const url = new URL(address, globalThis.location?.href).href.replace(/^http/, "ws");
  const { token, user, from, key, attempts, maxMessageBytes, onError } = {
    from: "retained",
    key: `trio-ws:${url} ${options?.user ?? ""}`,
    attempts: 5,
    maxMessageBytes: 65536,
    onError: console.error,
    ...options,
  };
  const ledger = new Ledger(load());
  const listeners = new Map();
  const timers = new Map();
  const leave = new AbortController();
  const figures = { events: 0, handled: 0, duplicates: 0, gaps: 0, failures: 0, connections: 0, violations: 0 };
  let status;
  // The connection.
  let turn = 0; // counts attempts: what belongs to an earlier one is void
  let failed = 0; // attempts since a stable connection
  let ws, welcome, welcomedAt, fatal, after, kept, refused, deadline, interval, probed, tick, mistakes, start;
  // What was received, and is handled one after the other.
  const queue = [];
  let acked = 0;
  let unacked = 0;
  let busy, again, resting;
  // Unanswered messages.
  const messages = new Map();
  const prefix = Math.random().toString(36).slice(2);
  let underway = 0;
  let count = 0;

  function on(type, fn) {
    const set = listeners.get(type) ?? new Set();
    listeners.set(type, set.add(fn));
    return () => set.delete(fn);
  }

  const of = (type) => [...(listeners.get(type) ?? [])];

  function send(type, payload = null) {
    return new Promise((resolve, reject) => {
      const id = `${prefix}-${++count}`;
      const text = JSON.stringify({ t: "message", id, type, payload });
      check(status.state !== "ended", "ended");
      check(messages.size < MAX_WAITING, "too many messages");
      check(new Blob([text]).size <= maxMessageBytes, "too large");
      messages.set(id, { text, resolve, reject });
      post();
    });
  }

  function close() {
    ack();
    say({ t: "bye" });
    end(1000, "closed");
  }

  async function attempt() {
    const mine = ++turn;
    timer("try", ATTEMPT_TIMEOUT, () => lost(1006, "the attempt took too long"));
    set({ state: "connecting" });
    try {
      kept ??= typeof token === "function" ? await token() : token;
      if (mine !== turn) return;
      ws = new WebSocket(url, "trio-ws.v1");
      ws.onopen = hello;
      ws.onmessage = ({ data }) => receive(data);
      ws.onclose = ({ code, reason }) => lost(code, reason);
    } catch (error) {
      if (mine === turn) lost(1006, `${error.name} before connecting`);
    }
  }

  function hello() {
    const { session, epoch, received } = ledger;
    // Should the resume fail, "now" would skip in silence what came meanwhile.
    say({ t: "hello", token: kept, user, session, epoch, seq: epoch && received, from: epoch && from === "now" ? "pending" : from });
  }

  function welcomed(frame) {
    check(!welcome && frame.ack, "a strange welcome");
    const { life } = ledger;
    const reset = ledger.welcome(frame);
    welcome = frame;
    welcomedAt = now();
    refused = false;
    mistakes = acked = unacked = underway = 0;
    start = ledger.received;
    figures.connections++;
    stop("try");
    interval = frame.heartbeat.active;
    heard();
    watch();
    keepTokenFresh(frame.expires);
    if (reset) {
      figures.gaps++;
      put("gap", reset, 0, life);
    }
    save(true);
    if (frame.resumed) ack(); // the last one may have been lost
    if (again) nack();
    for (const message of messages.values()) message.sent = false;
    post();
    catchUp();
  }

  function lost(code, reason) {
    if (fatal) ({ code, reason } = fatal); // what came after it may have got lost
    if (welcome && now() - welcomedAt >= STABLE_AFTER) failed = 0;
    const [low, high] = after ?? [];
    drop();
    const what = reaction(code);
    if (what === "token" && !refused && typeof token === "function") {
      refused = true;
      kept = undefined;
    } else if (what !== "retry") return end(code, reason);
    if (resting) return set({ state: "offline", code, reason });
    let seconds = delay(failed++);
    if (low >= 0 && high >= low) seconds = Math.min(3600, low + Math.random() * (high - low));
    timer("try", seconds, attempt);
    set({ state: "offline", code, reason, retryAt: Date.now() + seconds * 1000 });
  }

  /** Leaves the socket to itself: a half-open one may take for ever to close. */
  function drop() {
    const socket = ws;
    turn++;
    ws = welcome = fatal = after = undefined;
    for (const name of timers.keys()) if (name !== "redo") stop(name);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  function end(code, reason) {
    if (status.state === "ended") return;
    drop();
    leave.abort();
    stop("redo");
    queue.length = 0;
    again?.();
    store(null);
    set({ state: "ended", code, reason });
    for (const { reject } of messages.values()) reject(new Error(`ended: ${reason || code}`));
    messages.clear();
  }

  /** The page goes away, perhaps into the back-forward cache: the session waits. */
  function park() {
    ack();
    drop();
    save(false);
    set({ state: "offline", reason: "the page was left" });
  }

  /** The page is back, or the network. */
  function wake() {
    if (welcome) probe();
    else if (status.state === "offline" && !resting) attempt();
  }

  function heard() {
    probed = false;
    tick = Date.now();
    deadline = now() + interval + welcome.heartbeat.grace;
    check(deadline > now(), "no time");
  }

  function watch() {
    const late = now() - deadline;
    const slept = Date.now() - tick > 2000 * TICK;
    tick = Date.now();
    // The machine slept, or the page was busy: what was sent meanwhile is yet to be read.
    if ((late > 1 || slept) && !probed) probe();
    else if (late >= 0) lost(1006, "the server fell silent");
    else timer("watch", Math.min(-late, TICK), watch);
  }

  function probe() {
    probed = true;
    say({ t: "ping" });
    deadline = now() + ATTEMPT_TIMEOUT;
    watch();
  }

  function keepTokenFresh(expires) {
    if (!expires || typeof token !== "function") return;
    const mine = turn;
    const pause = Math.max(1, (expires - Date.now() / 1000) * 0.8);
    const renew = async () => {
      const fresh = await Promise.resolve().then(token).catch(() => {});
      if (mine !== turn) return;
      if (fresh) say({ t: "auth", token: (kept = fresh) });
      timer("token", pause, renew);
    };
    timer("token", pause, renew);
  }

  function receive(data) {
    const socket = ws;
    try {
      for (const frame of [].concat(JSON.parse(data))) { // of a binary one there is no JSON
        take(frame);
        if (socket !== ws) return;
      }
      if (welcome) heard();
    } catch (error) {
      figures.violations++;
      lost(1006, `protocol violation: ${error.message}`);
    }
    if (status.done < ledger.received - start) catchUp();
    pump();
    if (welcome && queue.length >= MAX_QUEUED) {
      resting = true; // a browser can't stop reading
      lost(1006, "the handlers are behind");
    }
  }

  function take(frame) {
    check(typeof frame?.t === "string", "no frame");
    check(welcome || !["event", "gap", "live", "ping", "snapshot", "standing"].includes(frame.t), "no welcome");
    switch (frame.t) {
      case "welcome":
        return welcomed(frame);
      case "event":
        interval = welcome.heartbeat.active;
        return event(frame);
      case "gap":
        if (!ledger.gap(frame)) return;
        figures.gaps++;
        return put("gap", frame, frame.to);
      case "snapshot":
      case "standing":
        figures.events++;
        return put("event", { payload: { questions: frame.questions }, ...frame, type: frame.t }, 0);
      case "live":
        ledger.live(frame.seq);
        return set({ state: "live" });
      case "ping":
        ledger.head = Math.max(ledger.head, frame.seq);
        interval = frame.next;
        return say({ t: "pong" });
      case "accepted":
      case "rejected":
        return answered(frame);
      case "drain":
        after = [].concat(frame.after);
        return;
      case "error":
        if (frame.fatal) {
          fatal = frame;
          if (frame.retry_after >= 0) after = [frame.retry_after, frame.retry_after];
        } else {
          mistakes++;
          if (again) timer("redo", 1, again);
        }
    }
  }

  function event(frame) {
    const verdict = ledger.event(frame);
    const head = queue[0];
    if (verdict === "repeat") {
      if (again && head.seq === frame.seq && head.life === ledger.life) {
        head.value.retry = frame.retry; // but given as it came first
        again();
        return;
      }
      figures.duplicates++;
      if (frame.retry > 0) acked = 0; // the ack was lost
      return frame.seq > ledger.processed || ack();
    }
    figures[verdict === "new" ? "events" : "duplicates"]++;
    put(verdict === "new" && "event", frame, frame.seq);
  }

  function put(kind, { t, questions, ...value }, seq, life = ledger.life) {
    queue.push({ kind, value, seq, life });
  }

  async function pump() {
    if (busy) return;
    busy = true;
    for (let entry; (entry = queue[0]); ) {
      const handled = entry.kind && handle(entry);
      if (handled) await handled;
      if (entry !== queue[0]) continue;
      if (entry.failed?.length && entry.tries < attempts) {
        await wait();
        continue;
      }
      queue.shift();
      done(entry);
      if (resting && queue.length <= MAX_QUEUED / 2) {
        resting = false;
        wake();
      }
    }
    busy = false;
  }

  /** On a redelivery, calls those handlers that failed. */
  function handle(entry) {
    const { kind, value } = entry;
    const todo = entry.failed ?? (kind === "gap" ? of("gap") : [...of(RESERVED.includes(value.type) || value.type), ...of("*")]);
    const waits = [];
    entry.failed = [];
    entry.tries = (entry.tries ?? 0) + 1;
    const fail = (fn, error) => {
      if (kind === "event") entry.failed.push(fn);
      figures.failures++;
      report(error, value, kind === "gap" || entry.tries >= attempts);
    };
    for (const fn of todo) {
      try {
        const result = fn(value);
        if (typeof result?.then === "function") waits.push(result.then(null, (error) => fail(fn, error)));
      } catch (error) {
        fail(fn, error);
      }
    }
    return waits.length && Promise.all(waits);
  }

  async function wait() {
    await new Promise((resolve) => {
      timer("redo", REDO_AFTER, (again = resolve));
      nack();
    });
    again = undefined;
    stop("redo");
  }

  function nack() {
    const { seq, life } = queue[0];
    if (welcome && seq && life === ledger.life && mistakes < MAX_MISTAKES) say({ t: "nack", seq });
  }

  function done({ kind, seq, life, value }) {
    if (kind === "event") figures.handled++;
    if (life !== ledger.life || seq <= ledger.processed) return;
    ledger.processed = seq;
    if (!welcome) return;
    unacked++;
    const idle = !queue.length;
    // Timers of a hidden page are slow; a critical event gains nothing from waiting.
    if (unacked >= welcome.ack.events || (idle && (value.critical || globalThis.document?.hidden))) ack();
    else if (unacked === 1) timer("ack", welcome.ack.delay, ack);
  }

  function ack() {
    const seq = Math.min(ledger.processed, ledger.cursor); // a new session was sent no more
    stop("ack");
    unacked = 0;
    if (!welcome || seq <= acked) return;
    save(true);
    say({ t: "ack", seq: (acked = seq) });
  }

  function say(frame) {
    if (ws?.readyState === 1) ws.send(JSON.stringify(frame));
  }

  function post() {
    if (!welcome) return;
    for (const message of messages.values()) {
      if (underway >= MAX_UNDERWAY) return;
      if (message.sent) continue;
      message.sent = true;
      underway++;
      ws.send(message.text);
    }
  }

  function answered({ id, error }) {
    const message = messages.get(id);
    if (!message) return;
    messages.delete(id);
    if (message.sent) underway--;
    if (error === undefined) message.resolve();
    else message.reject(new Error(error));
    post();
  }

  function catchUp() {
    const { received, head } = ledger;
    set({ state: "catching_up", done: received - start, total: head - start });
  }

  function set(value) {
    status = Object.freeze(value);
    for (const fn of of("state")) {
      try {
        fn(value);
      } catch (error) {
        report(error, value, true);
      }
    }
  }

  function report(...args) {
    try {
      onError(...args);
    } catch (error) {
      console.error(error);
    }
  }

  function timer(name, seconds, fn) {
    stop(name);
    timers.set(name, setTimeout(fn, Math.min(seconds * 1000, 2 ** 31 - 1)));
  }

  function stop(name) {
    clearTimeout(timers.get(name));
    timers.delete(name);
  }

  // A duplicated tab copies sessionStorage: `open` says that the session is another page's.
  function load() {
    try {
      const saved = JSON.parse(sessionStorage.getItem(key));
      if (saved?.epoch && !saved.open) return saved;
    } catch {}
  }

  function save(open) {
    const { session, epoch, processed, begun } = ledger;
    if (session) store(JSON.stringify({ session: processed < begun ? undefined : session, epoch, seq: processed, open }));
  }

  function store(value) {
    if (key === null) return;
    try {
      if (value === null) sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, value);
    } catch {}
  }

  function listen(target, type, fn) {
    target?.addEventListener?.(type, fn, { signal: leave.signal });
  }

  listen(globalThis, "online", () => {
    failed = 0;
    wake();
  });
  listen(globalThis, "offline", () => ws && lost(1006, "the network is off"));
  listen(globalThis, "pagehide", park);
  listen(globalThis, "pageshow", wake);
  listen(globalThis.document, "resume", wake);
  listen(globalThis.document, "visibilitychange", () => document.hidden || wake());
  save(true);
  attempt();
  return {
    on,
    send,
    close,
    get status() {
      return status;
    },
    get figures() {
      return { ...figures, queued: queue.length, acked };
    },
  };
}

const now = () => performance.now() / 1000;
