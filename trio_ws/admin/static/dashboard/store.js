/** One line on where events are kept, and whether that can be relied on. */

import { el, say } from "./dom.js";
import { bytes, count, duration, plural } from "./format.js";

/** Tone and text for `store` of the figures. */
export function tell(store) {
  if (!store.state) return ["none", "Kept in memory only: what is held ends with the server."];
  const aside = store.kind === "redis" ? "keys that end in :aside" : "table quarantine";
  const damage = [
    store.quarantined && `${plural(store.quarantined, "damaged row")} set aside: look at the ${aside}.`,
    !["ok", "running", "not run", undefined].includes(store.check) && `The file is damaged: ${store.check}.`,
  ].filter(Boolean);
  if (store.state === "failing") return ["bad", [`The store fails: ${store.error}.`, ...damage].join(" ")];
  if (store.state === "suspended") return ["bad", "The store does not answer a node, or not in time: that one accepts nothing until it does."];
  if (store.state === "slow") return ["warn", ["The store is slow: a commit takes long.", ...damage].join(" ")];
  const of = store.kind === "redis" ? `Redis ${store.version} (persistence: ${store.persistence})` : `a store of kind ${store.kind}`;
  const place = store.path ? `${store.path.split("/").at(-1)}, ${bytes(store.bytes)}` : of;
  const pace = store.commits ? `, 99 % within ${duration(store.commit_p99)}` : "";
  const kept = `Kept in ${place}: ${count(store.commits)} ${store.commits === 1 ? "commit" : "commits"}${pace}.`;
  const waiting = store.events_asleep + (store.events_unread ?? 0);
  const away = waiting ? [`${plural(waiting, "more event")} in it for users who are away.`] : [];
  return [damage.length ? "bad" : "none", [kept, ...away, ...damage].join(" ")];
}

export class StoreLine {
  root = el("p", { class: "note store" });

  draw(store) {
    const [tone, text] = tell(store);
    this.root.dataset.tone = tone;
    say(this.root, text);
  }
}
