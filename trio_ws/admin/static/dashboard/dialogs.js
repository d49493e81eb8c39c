/** Two questions that stop everything else: the API key, and whether something is meant. */

import { apiKey } from "./api.js";
import { el, say } from "./dom.js";

function shown(dialog) {
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

let asking = null;

/** Asks for the key and keeps it for this tab; ends when one was given. `wrong` says that there was one before. */
export function askForKey(wrong) {
  asking ??= new Promise((done) => {
    const field = el("input", { id: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "key-note" });
    const note = el("p", { id: "key-note", role: "status" });
    say(note, wrong ? "That key is not the right one." : "It is kept in this tab, until you close it.");
    note.dataset.tone = wrong ? "bad" : "none";
    const dialog = shown(
      el(
        "dialog",
        { class: "dialog", "aria-labelledby": "key-title" },
        el(
          "form",
          { method: "dialog" },
          el("h2", { id: "key-title", text: "This server wants its API key" }),
          el("label", { for: "key", text: "API key" }),
          field,
          note,
          el("menu", {}, el("button", { class: "primary", text: "Show the dashboard" })),
        ),
      ),
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // without a key there is nothing to see
    dialog.addEventListener("close", () => {
      asking = null;
      apiKey.value = field.value;
      done();
    });
    field.focus();
  });
  return asking;
}

/** Asks whether something is meant; true if it is. */
export function confirmed(title, text, action) {
  return new Promise((done) => {
    const dialog = shown(
      el(
        "dialog",
        { class: "dialog", "aria-labelledby": "ask-title", "aria-describedby": "ask-text" },
        el(
          "form",
          { method: "dialog" },
          el("h2", { id: "ask-title", text: title }),
          el("p", { id: "ask-text", text }),
          el(
            "menu",
            {},
            el("button", { text: "Leave it", value: "", autofocus: true }),
            el("button", { class: "danger", text: action, value: "yes" }),
          ),
        ),
      ),
    );
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"));
  });
}
