/** An agent of AG-UI that works elsewhere: what it does comes over trio-ws, however often the network is cut. */

import { AbstractAgent } from "@ag-ui/client";
import { Observable } from "rxjs";
import { AguiEncoder } from "trio-ws-client/agui";

export class TrioWsAgent extends AbstractAgent {
  /**
   * @param client what `connect` gives: one serves all agents of a page
   * @param config of AG-UI's `AbstractAgent`
   */
  constructor(client, config) {
    super(config);
    this.client = client;
    this.shown = null; // the run that is shown
  }

  /** Asks the backend for a run, and shows it until it ends. */
  run(input) {
    return this.watch(input, () => this.client.send("agent_run", input));
  }

  /** Shows a run that is under way, such as after a reload; `input.runId` says which. */
  connect(input) {
    return this.watch(input, () => Promise.resolve());
  }

  /** The user's stop button. That the page goes away stops nothing. */
  abortRun() {
    if (this.shown !== null) this.client.send("agent_cancel", { run: this.shown }).catch(() => {}); // it has ended by now
  }

  clone() {
    return Object.assign(super.clone(), { client: this.client, shown: null });
  }

  watch({ runId, threadId }, ask) {
    return new Observable((page) => {
      const encoder = new AguiEncoder(runId, { thread: threadId });
      this.shown = runId;
      const off = this.client.on("*", (event) => {
        for (const told of encoder.encode(event)) page.next(told);
        if (encoder.ended) page.complete();
      });
      ask().catch((error) => page.error(error));
      return () => {
        off();
        this.shown = null;
      };
    });
  }
}
