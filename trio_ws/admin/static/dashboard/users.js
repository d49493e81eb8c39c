/** The users that the server knows, by name. */

import { users } from "./api.js";
import { el, keyed, say } from "./dom.js";
import { count } from "./format.js";
import { userLink } from "./search.js";

const SHOWN = 200;

export class Users {
  title = "Users";
  period = 2000;
  #filter = el("input", { id: "filter", type: "search", placeholder: "Begins with …", autocomplete: "off", spellcheck: "false", on: { input: () => this.refresh() } });
  #rows = el("tbody");
  #note = el("p", { class: "note", role: "status" });
  #request;
  root = el(
    "div",
    { class: "page" },
    el("header", { class: "head" }, el("h1", { text: "Users" }), el("label", { class: "sr", for: "filter", text: "Name begins with" }), this.#filter),
    el(
      "div",
      { class: "panel" },
      el(
        "table",
        { class: "table" },
        el("caption", { class: "sr", text: "Users" }),
        el("thead", {}, el("tr", {}, ...["User", "Connections", "Sessions", "Held", "Lag"].map((text, n) => el("th", { scope: "col", text, class: n ? "number" : "" })))),
        this.#rows,
      ),
      this.#note,
    ),
  );

  async refresh() {
    this.#request?.abort();
    this.#request = new AbortController();
    let found;
    try {
      found = await users(this.#filter.value, SHOWN, this.#request.signal);
    } catch (error) {
      if (error.name !== "AbortError") say(this.#note, `The users could not be listed: ${error.message}.`);
      return;
    }
    keyed(
      this.#rows,
      found.users,
      ({ user }) => user,
      ({ user }) =>
        el("tr", {}, el("th", { scope: "row" }, el("a", { href: userLink(user), class: "name", text: user })), ...Array.from({ length: 4 }, () => el("td", { class: "number" }))),
      (row, { connections, sessions, held, lag }) => {
        row.dataset.away = String(connections === 0);
        [connections, sessions, held, lag].forEach((n, at) => say(row.children[at + 1], count(n)));
      },
    );
    const missing = found.missing?.length ? `${found.missing.length === 1 ? "A node does" : `${found.missing.length} nodes do`} not answer: their users are not here. ` : "";
    say(
      this.#note,
      missing + (found.more
        ? `The first ${SHOWN}; type to see others.`
        : found.users.length ? "" : this.#filter.value ? "No user's name begins so." : "No user is known yet: one is, as soon as an event is published to them or they connect."),
    );
  }

  leave() {
    this.#request?.abort();
  }
}
