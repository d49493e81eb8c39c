/**
 * Runs as streams of AG-UI, the protocol of agents' pages: CopilotKit and all that takes an AG-UI agent.
 *
 * ```js
 * import { connect } from "https://admin.example.com/client.js";
 * import { AguiEncoder } from "https://admin.example.com/agui.js";
 *
 * const c = connect("wss://example.com/ws", { token });
 * const encoder = new AguiEncoder("r1");
 * c.on("*", (event) => encoder.encode(event).forEach(show));
 * ```
 */

import type { Event } from "./client.js";

/** An event of AG-UI; the types of its fields are in `@ag-ui/core`. */
export interface AguiEvent {
  type: string;
  /** When it was accepted, in milliseconds since the Unix epoch. */
  timestamp?: number;
  [field: string]: any;
}

/**
 * One run as a legal stream of AG-UI, from whatever of it comes; runs that are nested in it are its subagents.
 *
 * Give it all events of the user in order, as `client.on("*", …)` has them. Where some are missing, in a gap or before
 * the first, the stream is legal all the same: snapshots are folded in, and what is open is ended before the run is.
 */
export class AguiEncoder {
  /** @param run the run to tell of  @param options `thread`: AG-UI's name for its conversation; default: the run's id */
  constructor(run: string, options?: { thread?: string });
  readonly run: string;
  readonly thread: string;
  /** The run has ended, and all that may be told of it is told. */
  readonly ended: boolean;
  /** What `event` is in AG-UI: none, one or several events. */
  encode(event: Event): AguiEvent[];
}
