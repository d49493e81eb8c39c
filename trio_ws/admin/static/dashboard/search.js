/** The search for a user in the header: a combobox whose suggestions the server gives. */

import { users } from "./api.js";
import { el, keyed, say } from "./dom.js";
import { plural } from "./format.js";

const SHOWN = 8;
const PAUSE = 120; // ms that a typist is given

export const userLink = (user) => `#/users/${encodeURIComponent(user)}`;

/** Makes the form work; `announce(text)` reads out. */
export function searchable(form, announce) {
  const input = form.querySelector("input");
  const list = form.querySelector("ul");
  let found = [];
  let active = -1;
  let timer;
  let request;

  const close = () => {
    clearTimeout(timer);
    request?.abort();
    active = -1;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const go = (user) => {
    close();
    input.value = "";
    input.blur();
    location.hash = userLink(user);
  };
  const point = (at) => {
    active = at;
    [...list.children].forEach((option, n) => option.setAttribute("aria-selected", String(n === at)));
    if (at >= 0) input.setAttribute("aria-activedescendant", list.children[at].id);
    else input.removeAttribute("aria-activedescendant");
  };
  const show = (chosen) => {
    keyed(
      list,
      found,
      ({ user }) => user,
      ({ user }) => el("li", { role: "option", on: { mousedown: (event) => (event.preventDefault(), go(user)) } }, el("span", { class: "name", text: user }), el("span", { class: "soft" })),
      (option, { connections, held }) => say(option.lastChild, connections ? plural(connections, "connection") : `away, ${held} held`),
    );
    [...list.children].forEach((option, n) => (option.id = `found-${n}`));
    point(chosen === undefined ? -1 : found.findIndex(({ user }) => user === chosen));
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(found.length > 0));
    announce(found.length ? `${plural(found.length, "user")} found` : "no user found");
  };
  const ask = async () => {
    request?.abort();
    request = new AbortController();
    let chosen;
    try {
      const { users: those } = await users(input.value, SHOWN, request.signal);
      chosen = found[active]?.user; // what was pointed at meanwhile
      found = those;
    } catch (error) {
      if (error.name === "AbortError") return;
      found = [];
    }
    if (document.activeElement === input) show(chosen);
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE);
  });
  input.addEventListener("focus", ask);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length && !list.hidden) {
      event.preventDefault();
      const places = found.length + 1; // the field itself is one of them
      point(((active + 1 + step + places) % places) - 1);
    } else if (event.key === "Escape") {
      input.value = "";
      close();
      input.blur();
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const user = active >= 0 ? found[active].user : input.value;
    if (user) go(user);
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, dialog");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      input.focus();
    }
  });
}
