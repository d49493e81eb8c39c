/** What became of one event: the way it took, step by step, and in one sentence why it is where it is. */

import { el, icon, keyed, picture, say } from "./dom.js";
import { duration, moment, plural } from "./format.js";

/** An id as people tell them apart: its beginning. */
export const brief = (id) => (id.length > 10 ? `${id.slice(0, 8)}…` : id);

const to = ({ session }) => (session ? ` ${brief(session)}` : "");
const STEPS = {
  accepted: () => ["idle", "Accepted"],
  sent: (step) => ["idle", `Sent to session${to(step)}`],
  redelivered: (step) => ["warn", `Sent again to session${to(step)}${step.retry ? `, try ${step.retry}` : ""}`],
  acked: (step) => ["good", `Processed by session${to(step)}`],
  nacked: (step) => ["warn", `The handler of session${to(step)} failed`],
  confirmed: () => ["good", "Confirmed"],
  timed_out: () => ["warn", "Not confirmed in time; it stays held"],
  settled: () => ["good", "Settled: confirmed, and owed to no session"],
  merged: (step) => ["idle", `Joined into ${step.into ? `seq ${step.into}` : "a later delta"}`],
  superseded: (step) => ["idle", `Replaced by ${step.into ? `seq ${step.into}` : "a later event of its key"}`],
  evicted: () => ["bad", "Let go to make room"],
  expired: () => ["bad", "Its time passed before anybody confirmed it"],
  gap: (step) => ["warn", `Session${to(step)} was told that it will not come${step.reason ? `: ${step.reason}` : ""}`],
  forgotten: () => ["idle", "Left the log: only this story is kept"],
};

const CONCLUSIONS = {
  held: () => ["warn", "It waits: it was sent to no session yet. The user is away, or what comes before it is not through."],
  confirmed: () => ["good", "A client has processed it. Another session of the user is still to get it."],
  settled: () => ["good", "A client has processed it, and it is owed to nobody."],
  merged: () => ["idle", "Its text went out as part of a later delta: follow that one."],
  evicted: () => ["bad", "The user's buffer was full, and it was not critical: it made room. The client was told of the gap."],
  expired: () => ["bad", "Nobody confirmed it within its time to live. The client was told of the gap."],
  superseded: () => ["idle", "A later event of its type and key took its place before it was sent."],
  sent: ({ steps }) => {
    const tries = steps.filter(({ step }) => step === "redelivered").length;
    const failed = steps.findLast(({ step }) => step === "nacked");
    if (failed) return ["warn", `The page's handler fails at it (session${to(failed)}): look at the page's errors.`];
    const late = steps.some(({ step }) => step === "timed_out");
    return tries || late
      ? ["warn", `It was sent ${tries ? plural(tries + 1, "time") : "once"}, and no client has said that it processed it: the page hangs, or its network is gone.`]
      : ["idle", "It is on its way: sent, and not yet processed."];
  },
};

/** Tone and sentence. */
export const conclude = (event) => CONCLUSIONS[event.state]?.(event) ?? ["idle", `It is ${event.state}.`];

export class Story {
  #title = el("h2", { id: "story-title", tabindex: "-1" });
  #about = el("p", { class: "note" });
  #icon = icon("idle");
  #sentence = el("span");
  #conclusion = el("p", { class: "conclusion" }, this.#icon, this.#sentence);
  #steps = el("ol", { class: "steps", role: "list" });
  root;

  constructor(back) {
    this.root = el(
      "section",
      { class: "panel story", "aria-labelledby": "story-title" },
      el("header", { class: "head" }, this.#title, el("a", { class: "button", href: back, text: "Close" })),
      this.#about,
      this.#conclusion,
      this.#steps,
    );
  }

  focus() {
    this.#title.focus({ preventScroll: true });
    this.root.scrollIntoView({ block: "nearest" });
  }

  draw(event) {
    say(this.#title, event.type);
    say(this.#about, `${event.critical ? "critical, " : ""}seq ${event.seq}, id ${event.id}`);
    const [tone, sentence] = conclude(event);
    this.#conclusion.dataset.tone = tone;
    picture(this.#icon, tone);
    say(this.#sentence, sentence);
    const began = event.steps[0]?.at ?? 0;
    const steps = event.steps.map((step, n) => ({ ...step, n, before: event.steps[n - 1]?.at ?? began }));
    keyed(
      this.#steps,
      steps,
      ({ n, step, session }) => `${n} ${step} ${session ?? ""}`,
      () => el("li", {}, el("span", { class: "what" }), el("time"), el("span", { class: "soft" })),
      (li, step) => {
        const [tone, text] = STEPS[step.step]?.(step) ?? ["idle", step.step];
        li.dataset.tone = tone;
        li.title = step.session ?? "";
        say(li.children[0], text);
        say(li.children[1], moment(step.at));
        say(li.children[2], step.n ? `+${duration(Math.max(0, step.at - began))}` : "");
      },
    );
  }

  /** Where there is nothing to tell. */
  fail(id, why) {
    say(this.#title, "This event is not known");
    say(this.#about, `id ${id}`);
    this.#conclusion.dataset.tone = "idle";
    picture(this.#icon, "idle");
    say(this.#sentence, why);
    this.#steps.replaceChildren();
  }
}
