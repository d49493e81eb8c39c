/** Light, dark, or as the system has it; and colours for what is drawn on a canvas. */

import { icon } from "./dom.js";

const KEY = "trio-ws:theme";
const ORDER = ["auto", "light", "dark"];
const root = document.documentElement;
const probe = document.createElement("span");
let colours = new Map();

/** The value of a colour of theme.css as it is now, `share` of it, in words that a canvas takes. */
export function colour(name, share = 1) {
  const wanted = `${name} ${share}`;
  if (!colours.has(wanted)) {
    if (!probe.isConnected) document.body.append(Object.assign(probe, { hidden: true }));
    probe.style.color = share < 1 ? `color-mix(in srgb, var(--${name}) ${100 * share}%, transparent)` : `var(--${name})`;
    colours.set(wanted, getComputedStyle(probe).color);
  }
  return colours.get(wanted);
}

/** Lets `button` change the theme; `changed` is called after each change, also of the system's. */
export function themed(button, changed) {
  const change = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.replaceChildren(icon(theme));
    button.setAttribute("aria-label", `Theme: ${theme === "auto" ? "as the system" : theme}`);
    button.title = button.getAttribute("aria-label");
    colours = new Map();
    changed();
  };
  let theme = ORDER.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
  button.onclick = () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem(KEY, theme);
    change(theme);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change(theme));
  change(theme);
}
