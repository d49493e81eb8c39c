/**
 * The browser client of trio-ws: each event once, in order, over connections that may be cut at any time.
 *
 * ```js
 * import { connect } from "https://admin.example.com/client.js";
 *
 * const c = connect("wss://example.com/ws", { token: () => fetch("/token").then((r) => r.text()) });
 * c.on("tool_completed", async (event) => { … });   // acknowledged when the promise resolves
 * c.on("gap", (gap) => { … });                      // what will not come, and why
 * c.on("state", (status) => { … });
 * await c.send("stop", { run: 7 });                 // sent again until it is accepted or rejected
 * ```
 *
 * Put up handlers right after `connect`, in the same turn: an event that nobody handles counts as processed.
 */

/** One event. */
export interface Event<Payload = any> {
  /** Its place in the user's log, from 1. */
  seq: number;
  /** Its own id, the same in each redelivery. */
  id: string;
  type: string;
  payload: Payload;
  /** When it was accepted, in seconds since the Unix epoch. */
  ts: number;
  /** Never dropped to make room. */
  critical?: true;
  /** How many times it was redelivered before this. */
  retry?: number;
  /** It stands for itself and the `n` deltas right before it, from `from` on. */
  merged?: { from: number; n: number };
  /** Its payload was over the server's limit and was cut. */
  truncated?: true;
  /** The agent's run that it is part of. */
  run?: string;
}

/**
 * A run as it stands with everything up to `seq`: in place of a history that is not complete (type `snapshot`). It is no
 * part of the log, so it has no `id`, and is never lost or redelivered. `foldRuns` in runs.js makes use of it.
 */
export interface Snapshot {
  seq: number;
  id?: undefined;
  type: "snapshot";
  run: string;
  payload: any;
  ts: number;
}

/** The questions that wait for the user, all of them (type `standing`); likewise no part of the log. */
export interface Standing {
  seq: number;
  id?: undefined;
  type: "standing";
  payload: { questions: any[] };
}

/** Events that will not come: the seqs `from` to `to`, both inclusive. After a reset they are those of the old epoch. */
export interface Gap {
  from: number;
  to: number;
  /** `reset`: what a crash of the server may have cost, or, where it is `anew`, its log is another one now. `settled`: another tab has confirmed them. */
  reason: "evicted" | "expired" | "superseded" | "settled" | "reset";
  /** How many of each type. */
  lost: Record<string, number>;
  /** How many critical events are lost by it. */
  critical: number;
  /** The runs that have lost events by it and whose snapshot follows right behind. */
  snapshots?: string[];
  /** How many of the lost events are in these snapshots. */
  healed?: number;
  /** The log has begun anew, and its seqs with it. */
  anew?: boolean;
}

/** Where a client stands. */
export type Status =
  | { readonly state: "connecting" }
  /** Connected; `done` of the `total` events that were missed have come. */
  | { readonly state: "catching_up"; readonly done: number; readonly total: number }
  /** What comes now is new. */
  | { readonly state: "live" }
  /**
   * The next attempt is at `retryAt`, in milliseconds since the Unix epoch; without it the client waits for the page
   * to come back, or for slow handlers. `code`: the close code, 1006 for whatever broke.
   */
  | { readonly state: "offline"; readonly code?: number; readonly reason: string; readonly retryAt?: number }
  /** For good; the close table of the protocol says what `code` means. 1000: by `close()`. */
  | { readonly state: "ended"; readonly code: number; readonly reason: string };

/** What was counted since the client began. */
export interface Figures {
  /** Received for the first time, snapshots and standing questions among them. */
  events: number;
  /** Done with: handled, or given up. */
  handled: number;
  /** Received again, and not given to handlers again. */
  duplicates: number;
  gaps: number;
  /** Times that a handler threw or rejected. */
  failures: number;
  /** Connections that the server welcomed. */
  connections: number;
  /** Times that the server broke the protocol. */
  violations: number;
  /** Received and not handled yet, at the moment. */
  queued: number;
  /** The last seq that was acknowledged on this connection. */
  acked: number;
}

export interface Options {
  /** A token, or what gets a fresh one; asked again when the server refuses it, and before it expires. */
  token?: string | (() => string | Promise<string>);
  /** Who it is, where the server believes its clients (insecure mode). */
  user?: string;
  /**
   * Where a new session starts: with everything that the server holds (`retained`, the default), with what nobody has
   * confirmed (`pending`), with what comes from now on (`now`), or with a snapshot of each run that the server knows,
   * then what comes (`snapshot`; a server without runs refuses it).
   */
  from?: "retained" | "pending" | "now" | "snapshot";
  /**
   * The key in `sessionStorage` under which the session is kept, so that a reload goes on where the page was. The
   * default is made of URL and user; two clients of one page that share both need a key each. `null` keeps nothing:
   * a reload starts at `from`.
   */
  key?: string | null;
  /** How often a failing event is given to the handlers that fail before they are passed over; default 5. */
  attempts?: number;
  /** The server's `max_message_bytes`: a larger `send` is refused here; default 65536. */
  maxMessageBytes?: number;
  /** Told when a handler fails; `final` says that it will not get this again. Default: `console.error`. */
  onError?: (error: unknown, value: Event | Snapshot | Standing | Gap | Status, final: boolean) => void;
}

type Handler<Value> = (value: Value) => unknown;

export interface Client<Events extends Record<string, any> = Record<string, any>> {
  /**
   * Calls `fn` with each event of `type` (`"*"`: of every type), each gap, or each change of state. Events and gaps come
   * one after the other, in order: the next one comes, and this one is acknowledged, when the promises of all handlers
   * have resolved. A handler that throws or rejects is given the event again, up to `attempts` times.
   *
   * @returns what takes the handler away again
   */
  on(type: "state", fn: (status: Status) => void): () => void;
  on(type: "gap", fn: Handler<Gap>): () => void;
  on(type: "snapshot", fn: Handler<Snapshot>): () => void;
  on(type: "standing", fn: Handler<Standing>): () => void;
  on(type: "*", fn: Handler<Event>): () => void;
  on<Type extends keyof Events & string>(type: Type, fn: Handler<Event<Events[Type]>>): () => void;

  /**
   * Sends a message to the application. It is kept and sent again on each new connection until it is answered.
   *
   * @returns a promise that resolves when the message was accepted, and rejects with an `Error` when it was rejected
   * (the message is the server's word, such as `no_handler`), is too large, is one of more than 1000 that wait, or the
   * client has ended. Awaiting it is the backpressure
   */
  send(type: string, payload?: unknown): Promise<void>;

  /** Ends the session for good: what was handled is acknowledged, and nothing is kept for a reload. */
  close(): void;

  readonly status: Status;
  readonly figures: Figures;
}

/**
 * Opens a client. It reconnects and resumes until `close()`, or until the server ends it for good.
 *
 * @param url where the server is; relative to the page, and `http` stands for `ws`
 * @throws TypeError where `url` is none
 */
export function connect<Events extends Record<string, any> = Record<string, any>>(
  url: string | URL,
  options?: Options,
): Client<Events>;
