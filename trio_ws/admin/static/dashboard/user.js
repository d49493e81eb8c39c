/** One user: who is connected, what waits for them, how their runs stand, what they were sent; and the story of one event. */

import { endSession, get, userPath } from "./api.js";
import { confirmed } from "./dialogs.js";
import { el, facts, icon, keyed, picture, say } from "./dom.js";
import { Events } from "./events.js";
import { ago, bytes, count, duration, plural } from "./format.js";
import { Runs } from "./runs.js";
import { userLink } from "./search.js";
import { brief, Story } from "./story.js";

const PRIORITIES = [["critical", "red"], ["high", "amber"], ["normal", "blue"], ["low", "grey"]];

const MANY = 10; // critical events under way that are no cause for a look

/** Tone and sentence: how this user is served. */
export function judge({ connections, sessions, buffer, lag }) {
  const held = buffer.held;
  const waits = `${plural(held, "event")} ${held === 1 ? "waits" : "wait"}`;
  const critical = buffer.critical_unconfirmed ? `, ${count(buffer.critical_unconfirmed)} critical and not confirmed` : "";
  if (!connections) {
    return held ? ["warn", `Not connected. ${waits}${critical}.`] : ["idle", "Not connected, and nothing waits."];
  }
  const stuck = sessions.filter(({ blocked }) => blocked);
  if (stuck.length) return ["bad", `The network of session ${brief(stuck[0].session)} takes nothing. ${waits}${critical}.`];
  if (!held) return ["good", "Connected, and nothing is owed."];
  const slow = sessions.filter(({ plain, lag: behind }) => !plain && behind === lag);
  return [buffer.critical_unconfirmed > MANY ? "warn" : "idle", `Connected. ${waits}${critical}${lag && slow.length ? `; session ${brief(slow[0].session)} is ${plural(lag, "event")} behind` : ""}.`];
}

export class User {
  period = 2000;
  #user;
  #id = null;
  #request = new AbortController();
  #runs;
  #events;
  #story = null;
  #icon = icon("idle");
  #sentence = el("span", { text: "Asking …" });
  #conclusion = el("p", { class: "conclusion" }, this.#icon, this.#sentence);
  #facts = el("dl", { class: "facts" });
  #bars = el("dl", { class: "priorities" });
  #sessions = el("ul", { class: "sessions", role: "list" });
  #none = el("p", { class: "note", text: "No session." });
  #columns;
  #announce;
  root;

  constructor(user, announce) {
    this.#user = user;
    this.title = user;
    this.#announce = announce;
    this.#runs = new Runs(user);
    this.#events = new Events(user);
    this.#columns = el("div", { class: "columns" }, this.#events.root);
    this.root = el(
      "div",
      { class: "page user" },
      el("header", { class: "head" }, el("h1", { class: "name", text: user }), this.#conclusion),
      el(
        "div",
        { class: "pair" },
        el("section", { class: "panel", "aria-labelledby": "sessions-title" }, el("h2", { id: "sessions-title", text: "Sessions" }), this.#sessions, this.#none),
        el("section", { class: "panel", "aria-labelledby": "buffer-title" }, el("h2", { id: "buffer-title", text: "Held, by priority" }), this.#bars, this.#facts),
      ),
      this.#runs.root,
      this.#columns,
    );
  }

  /** Shows the story of an event; null shows none. */
  open(id) {
    this.#id = id;
    this.#story?.root.remove();
    this.#story = id === null ? null : new Story(userLink(this.#user));
    if (this.#story) {
      this.#columns.prepend(this.#story.root);
      this.#story.focus();
    }
    this.#events.open(id);
    this.refresh();
  }

  leave() {
    this.#request.abort();
  }

  async refresh() {
    const { signal } = this.#request;
    try {
      await Promise.all([this.#describe(signal), this.#runs.refresh(signal), this.#events.refresh(signal), this.#tell(signal)]);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#conclude("idle", error.code === "unknown_user" ? "Nothing is known of this user: never published to, or long gone." : `${error.message}.`);
    }
  }

  async #describe(signal) {
    const about = await get(userPath(this.#user), signal);
    this.#conclude(...judge(about));
    const { buffer } = about;
    facts(this.#facts, [
      ["head", String(about.head)],
      ["in the log", count(buffer.events)],
      ["bytes", bytes(buffer.bytes)],
      ["lag", count(about.lag)],
      ["publishers waiting", count(buffer.publishers_waiting), buffer.publishers_waiting ? "warn" : ""],
    ]);
    const most = Math.max(1, ...Object.values(buffer.by_priority));
    keyed(
      this.#bars,
      PRIORITIES,
      ([name]) => name,
      ([name, colour]) => el("div", { data: { colour } }, el("dt", { text: name }), el("dd"), el("span", { class: "column", "aria-hidden": "true" })),
      (div, [name]) => {
        say(div.children[1], count(buffer.by_priority[name] ?? 0));
        div.lastChild.style.setProperty("--share", (buffer.by_priority[name] ?? 0) / most);
      },
    );
    this.#none.hidden = about.sessions.length > 0;
    keyed(this.#sessions, about.sessions, ({ session }) => session, (session) => this.#session(session), fillSession);
  }

  async #tell(signal) {
    const [id, story] = [this.#id, this.#story];
    if (id === null) return;
    try {
      story.draw(await get(`${userPath(this.#user)}/events/${encodeURIComponent(id)}`, signal));
    } catch (error) {
      if (error.status !== 404) throw error;
      story.fail(id, "It was never accepted for this user, or it is so long ago that its story is no longer kept.");
    }
  }

  #conclude(tone, sentence) {
    this.#conclusion.dataset.tone = tone;
    picture(this.#icon, tone);
    say(this.#sentence, sentence);
  }

  #session({ session }) {
    return el(
      "li",
      {},
      el("p", { class: "session-head" }, el("span", { class: "chip" }), el("code", { text: brief(session), title: session }), el("span", { class: "soft" })),
      el("dl", { class: "facts" }),
      el("button", { type: "button", class: "danger", text: "End", "aria-label": `End session ${brief(session)}`, on: { click: () => this.#end(session) } }),
    );
  }

  async #end(session) {
    const sure = await confirmed(
      "End this session?",
      `The connection of session ${brief(session)} is closed, and its client does not come back by itself. What nobody confirmed stays pending for the user's next session.`,
      "End it",
    );
    if (!sure) return;
    try {
      await endSession(this.#user, session);
      this.#announce("The session has ended.");
    } catch (error) {
      this.#announce(`The session could not be ended: ${error.message}.`);
      this.#conclude("bad", `The session could not be ended: ${error.message}.`);
      return;
    }
    this.refresh();
  }
}

function fillSession(li, { state, plain, acked, sent, lag, age, parked_for: parked, blocked }) {
  const [head, list] = li.children;
  const [chip, , note] = head.children;
  chip.dataset.tone = blocked ? "bad" : state === "connected" ? "good" : "warn";
  say(chip, blocked ? "blocked" : state);
  say(note, parked !== null ? `parked ${ago(parked)}` : plain ? "plain client: confirms nothing" : "");
  facts(list, [
    ["lag", count(lag), lag ? "warn" : ""],
    ["acked", String(acked)],
    ["sent", String(sent)],
    ["age", duration(Math.floor(age))],
  ]);
}
