/**
 * The runs of a user's agents, folded from their events: what a page renders.
 *
 * ```js
 * import { connect } from "https://admin.example.com/client.js";
 * import { answer, cancelRun, foldRuns } from "https://admin.example.com/runs.js";
 *
 * const c = connect("wss://example.com/ws", { token, from: "snapshot", key: null });
 * const runs = foldRuns(c, { onChange: (run) => render(run) });   // a Map of states by run id
 * await answer(c, "q1", "yes");                                   // the first valid answer wins, from whichever tab
 * await cancelRun(c, "r1");                                       // agent_cancelling comes, and when it has ended agent_completed
 * ```
 *
 * With `key: null` a reload begins anew, with snapshots. A page whose reload resumes its session has to keep the states
 * with it: save `[...runs.values()]` on `pagehide`, and hand them on as `known`.
 */

import type { Client } from "./client.js";

/** A call of a tool that is under way. */
export interface Tool {
  /** Its number within the run, from 1. */
  call: number;
  tool: string;
  input?: any;
  /** Since when, in seconds since the Unix epoch. */
  since: number;
  /** Its output so far. */
  text?: string;
}

/** A question that waits for the user. */
export interface Question {
  /** Its id. */
  question: string;
  prompt: string;
  /** One of these is a valid answer; */
  choices?: any[];
  /** or what fits this. */
  schema?: any;
  /** Until when, in seconds since the Unix epoch. */
  expires?: number;
  /** When it was asked. */
  ts: number;
}

/** A run as it stands. */
export interface Run {
  /** Its id. */
  readonly run: string;
  /** Everything of it up to here is in it. */
  readonly seq: number;
  readonly status: "running" | "cancelling" | "completed" | "failed" | "cancelled" | "lost";
  readonly name?: string;
  /** The id of the run that it is part of. */
  readonly parent?: string;
  /** Seconds since the Unix epoch; of one that is incomplete, when it was first heard of. */
  readonly started: number;
  readonly ended?: number;
  /** The last one. */
  readonly thought?: string;
  /** The answer as it is written; `text_from` characters of it were cut off at the front. */
  readonly text: string;
  readonly text_from: number;
  /** 0 to 1. */
  readonly progress?: number;
  readonly message?: string;
  /** Those under way. */
  readonly tools: readonly Tool[];
  readonly last_tool?: { call: number; tool: string; outcome: string; duration: number };
  /** How many there were. */
  readonly calls: number;
  /** Those that are open. */
  readonly questions: readonly Question[];
  readonly result?: any;
  readonly error?: { kind: string; message?: string };
  /** Which of `input`, `result` and `error` were too large for the snapshot that this began with. */
  readonly left_out?: readonly string[];
  /** Events of it may be missing: its beginning was not heard, or a gap took some that no snapshot has healed. */
  readonly incomplete?: true;
}

export interface FoldOptions {
  /** Called with each new state of a run. A state is replaced, never changed: two that are `===` are the same. */
  onChange?: (run: Run) => void;
  /** How many runs are kept; beyond that those that ended first are forgotten. Default: 50. */
  kept?: number;
  /** States to begin with: of an earlier page that has left them together with the client's session. */
  known?: readonly Run[];
}

/**
 * Folds what comes from `client`, from now on: call it in the same turn as `connect`.
 *
 * Where the server's log has begun anew, runs that were open are `lost`: nobody may be left to tell of their end. One that is
 * heard of again goes on.
 *
 * @returns the states by run id, oldest first; kept up to date, and only to be read
 */
export function foldRuns(client: Client<any>, options?: FoldOptions): ReadonlyMap<string, Run>;

/** Whether a run is over. */
export function ended(run: Run): boolean;

/**
 * Answers a question.
 *
 * @returns rejects with `already_answered`, `unknown_question` or `invalid_answer`; otherwise as `Client.send`
 */
export function answer(client: Client<any>, question: string, answer: unknown): Promise<void>;

/**
 * Asks for the end of a run; asking again is no harm.
 *
 * @returns rejects with `unknown_run` or `run_ended`; otherwise as `Client.send`
 */
export function cancelRun(client: Client<any>, run: string, reason?: string): Promise<void>;
