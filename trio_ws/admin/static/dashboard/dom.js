/** Elements, made of data. Text is only ever set as text: names, types and ids are whatever somebody has sent. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props`: `class`, `text`, `data` (an object), `on` (listeners by name), any other is an attribute; false,
 * null and undefined leave one out. Children that are null or false are left out.
 */
export function el(tag, { class: name, text, data, on, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  Object.assign(element.dataset, data);
  for (const [event, listener] of Object.entries(on ?? {})) element.addEventListener(event, listener);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

/** One of the page's own icons. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Sets a text where it is another one, so that nothing is selected or read out anew for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Changes an icon's picture. */
export function picture(svg, name) {
  svg.firstChild.setAttribute("href", `#i-${name}`);
}

/** A number and its unit, which is smaller: `text` as format.js makes it, with a no-break space between them. */
export function measure(element, text) {
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  const parts = text.split(/\u00a0(?=[^\u00a0]*[^\d\u00a0][^\u00a0]*$)/);
  element.replaceChildren(parts[0], ...parts.slice(1).map((unit) => el("small", { text: `\u00a0${unit}` })));
}

/**
 * Keeps `parent`'s children in step with `items`: `make(item)` gives the element of a new one, `fill(element, item)`
 * brings it up to date. What has not changed keeps its element, and so its focus.
 */
export function keyed(parent, items, keyOf, make, fill = () => {}) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = old.get(key);
    old.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    fill(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of old.values()) child.remove();
}

/** A list of names and values. `facts`: [name, value, tone?]; a tone marks what needs a look. */
export function facts(list, entries) {
  keyed(
    list,
    entries,
    ([name]) => name,
    ([name]) => el("div", {}, el("dt", { text: name }), el("dd")),
    (div, [, value, tone]) => {
      div.dataset.tone = tone || "none";
      measure(div.lastChild, value);
    },
  );
}
