/** A browser for client.js that has no network and no time of its own: sockets are scripted, the clock is turned by hand. */

export class World {
  now = 0;
  slept = 0; // seconds that only the wall clock knows of
  sockets = [];
  storage = new Map();
  listeners = new Map();
  hidden = false;
  #timers = new Map();
  #ids = 0;

  constructor() {
    const world = this;
    globalThis.WebSocket = class {
      readyState = 0;
      sent = [];
      raw = []; // the same, as it was sent
      closed = false;
      constructor(url, protocol) {
        Object.assign(this, { url, protocol });
        world.sockets.push(this);
      }
      send(text) {
        if (this.readyState !== 1) return;
        this.raw.push(text);
        this.sent.push(JSON.parse(text));
      }
      close() {
        this.closed = true;
        this.readyState = 3;
      }
    };
    globalThis.performance = { now: () => this.now * 1000 };
    Date.now = () => 1.7e12 + (this.now + this.slept) * 1000;
    globalThis.setTimeout = (fn, ms) => {
      const id = ++this.#ids;
      this.#timers.set(id, { fn, at: this.now + Math.max(0, ms) / 1000 });
      return id;
    };
    globalThis.clearTimeout = (id) => this.#timers.delete(id);
    globalThis.sessionStorage = {
      getItem: (key) => this.storage.get(key) ?? null,
      setItem: (key, value) => this.storage.set(key, value),
      removeItem: (key) => this.storage.delete(key),
    };
    globalThis.addEventListener = (type, fn, { signal }) => this.#listen(type, fn, signal);
    globalThis.document = {
      get hidden() {
        return world.hidden;
      },
      addEventListener: (type, fn, { signal }) => this.#listen(type, fn, signal),
    };
  }

  #listen(type, fn, signal) {
    const set = this.listeners.get(type) ?? new Set();
    this.listeners.set(type, set.add(fn));
    signal.addEventListener("abort", () => set.delete(fn));
  }

  /** What the browser tells the page. */
  async fire(type) {
    for (const fn of [...(this.listeners.get(type) ?? [])]) fn();
    await this.settle();
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get timers() {
    return this.#timers.size;
  }

  /** Lets promises run their course. */
  async settle() {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }

  /** Turns the clock; timers go off on the way. `late` holds them up, as sleep does. */
  async pass(seconds, { late = false } = {}) {
    const end = this.now + seconds;
    if (late) this.now = end;
    while (await this.step(end));
  }

  /** Turns the clock to the next timer, and lets it go off; where there is none before `end`, turns it to `end`. */
  async step(end) {
    await this.settle();
    const [id, next] = [...this.#timers].sort((a, b) => a[1].at - b[1].at)[0] ?? [];
    const due = next?.at <= end;
    this.now = Math.max(this.now, due ? next.at : end);
    if (due) {
      this.#timers.delete(id);
      next.fn();
      await this.settle();
    }
    return due;
  }

  /** The server's side of the newest socket. */
  async open() {
    this.socket.readyState = 1;
    this.socket.onopen?.();
    await this.settle();
    return this.socket.sent.at(-1);
  }

  async say(...frames) {
    this.socket.onmessage?.({ data: JSON.stringify(frames.length === 1 ? frames[0] : frames) });
    await this.settle();
  }

  async shut(code = 1006, reason = "") {
    const { socket } = this;
    socket.readyState = 3;
    socket.onclose?.({ code, reason });
    await this.settle();
  }

  /** Opens, and welcomes. */
  async welcome(more = {}) {
    const hello = await this.open();
    const frame = { t: "welcome", session: "s1", epoch: "e1", seq: 0, head: 0, resumed: false };
    await this.say({ ...frame, heartbeat: { active: 2, idle: 25, grace: 2 }, ack: { events: 32, delay: 0.05 }, ...more });
    return hello;
  }

  sent(kind) {
    return this.socket.sent.filter((frame) => frame.t === kind);
  }
}

export const event = (seq, more = {}) => ({ t: "event", seq, id: `id-${seq}`, type: "note", payload: { n: seq }, ts: 1, ...more });
