/**
 * `/v1/stream`, watched for as long as the page is open: read by `fetch`, since an EventSource can't send a key.
 * Events come each second; where none comes for `PATIENCE`, the connection is given up and made anew.
 */

import { open } from "./api.js";

const PATIENCE = 6000; // ms
const DELAYS = [500, 1000, 2000, 4000]; // ms before attempts 1, 2, 3, and all others

/** Splits a text that comes in pieces into server-sent events. */
export class Parser {
  #rest = "";

  /** The events, [name, data], that `text` completes. */
  feed(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map((block) => {
      const event = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(": ");
        event[line.slice(0, colon)] = line.slice(colon + 2);
      }
      return [event.event, event.data];
    }).filter(([, data]) => data);
  }
}

/**
 * Watches. `on.message`, `on.point`, `on.history` get the events' data; `on.state` gets {link, seen, retryAt}: link is
 * `connecting`, `live`, `away` or `locked` (the key is wanted; `resume` goes on), times are of `Date.now`. `path` tells
 * what to ask for.
 */
export class Watch {
  state = { link: "connecting", seen: null, retryAt: null, reason: "" };
  #on;
  #path;
  #attempts = 0;
  #began = 0;
  #request;
  #timer;

  constructor(path, on) {
    this.#path = path;
    this.#on = on;
    setInterval(() => this.#look(), 1000);
    for (const name of ["online", "pageshow"]) addEventListener(name, () => this.state.link === "away" && this.resume());
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
  }

  /** Tries now. */
  resume() {
    clearTimeout(this.#timer);
    this.state.retryAt = null;
    this.#request?.abort();
    this.#run((this.#request = new AbortController()));
  }

  async #run(request) {
    this.#began = Date.now();
    try {
      const response = await open(this.#path(), { signal: request.signal });
      const parser = new Parser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the server has ended the stream");
        for (const [name, data] of parser.feed(value)) this.#take(name, JSON.parse(data));
      }
    } catch (error) {
      if (request !== this.#request) return; // another attempt has taken its place
      request.abort();
      if (error.status === 401) this.#tell({ link: "locked", retryAt: null, reason: error.message });
      else this.#wait(error.message);
    }
  }

  #take(name, data) {
    this.#attempts = 0;
    this.#on[name]?.(data);
    this.#tell({ link: "live", seen: Date.now(), retryAt: null, reason: "" });
  }

  #wait(reason) {
    const delay = DELAYS[Math.min(this.#attempts++, DELAYS.length - 1)];
    this.#tell({ link: "away", retryAt: Date.now() + delay, reason });
    this.#timer = setTimeout(() => this.resume(), delay);
  }

  /** Gives up a connection that says nothing; a laptop that wakes up has one. */
  #look() {
    const { link, seen, retryAt } = this.state;
    const waiting = link === "locked" || retryAt !== null;
    if (!waiting && Date.now() - Math.max(seen, this.#began) > PATIENCE) {
      const request = this.#request;
      this.#request = undefined;
      request?.abort();
      this.#wait("nothing has come for a while");
    }
  }

  #tell(state) {
    this.state = { ...this.state, ...state };
    this.#on.state(this.state);
  }
}
