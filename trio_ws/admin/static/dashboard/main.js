/** The dashboard: watches the server, and shows one of three views of it, by the address after the `#`. */

import { apiKey, get } from "./api.js";
import { askForKey } from "./dialogs.js";
import { say } from "./dom.js";
import { ago, duration } from "./format.js";
import { History } from "./history.js";
import { Scope } from "./nodes.js";
import { Overview } from "./overview.js";
import { searchable } from "./search.js";
import { Watch } from "./stream.js";
import { themed } from "./theme.js";
import { User } from "./user.js";
import { Users } from "./users.js";

const $ = (id) => document.getElementById(id);
const main = $("main");
let history = new History();
let stats = null;
let about = { key: false, demo: false, cluster: false }; // until the server has said
let skew = 0; // seconds that the server's clock is ahead of this one

const announce = (text) => say($("said"), text);
const scope = new Scope(() => {
  [history, stats] = [new History(), null];
  watch.resume();
});
const overview = new Overview(draw, (text) => say($("alarm"), text), scope.root);
let view = null;
let timer;

/** What `hash` asks for: [user, event], each null where it is not asked for; or null for what is no address. */
function address(hash) {
  const [, first, user, events, id, ...more] = hash.replace(/^#?\/?/, "/").split("/");
  try {
    const parts = [user, id].map((part) => (part === undefined ? null : decodeURIComponent(part)));
    if (more.length || (first && first !== "users") || (events !== undefined && events !== "events")) return null;
    return { users: first === "users", user: parts[0] || null, id: parts[1] || null };
  } catch {
    return null; // half an escape
  }
}

/** Shows what the address asks for. */
function route() {
  const asked = address(location.hash) ?? { users: false, user: null, id: null };
  const same = view instanceof User && view.title === asked.user;
  if (!same) {
    view?.leave?.();
    view = asked.user !== null ? new User(asked.user, announce) : asked.users ? new Users() : overview;
    main.replaceChildren(view.root);
    scrollTo(0, 0);
  }
  document.title = asked.user === null && !asked.users ? "trio-ws" : `${view.title} · trio-ws`;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    const current = link.dataset.view === (asked.users ? "users" : "overview");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view instanceof User) view.open(asked.id);
  poll(!(view instanceof User)); // a user's view has just been told to look
}

/** Has the view look again each period, while it can be seen. */
function poll(now) {
  clearTimeout(timer);
  if (!view.refresh) return draw();
  const look = async () => {
    if (!document.hidden && watch.state.link === "live") await view.refresh();
  };
  (now ? look() : Promise.resolve()).then(() => {
    clearTimeout(timer);
    if (view.refresh) timer = setTimeout(() => poll(true), view.period);
  });
}

function draw() {
  if (document.hidden) return;
  const now = Date.now() / 1000 + skew;
  pill();
  if (view === overview) overview.draw({ link: watch.state, stats, history, about: history.about, now });
}

/** The server's state in the header. */
function pill() {
  const { link, seen, retryAt } = watch.state;
  document.body.dataset.link = link;
  const wait = retryAt === null ? "trying now" : `next try in ${duration(Math.max(1, Math.ceil((retryAt - Date.now()) / 1000)))}`;
  const [tone, text] = {
    connecting: () => ["idle", "connecting"],
    locked: () => ["warn", "key needed"],
    away: () => ["bad", `away${seen === null ? "" : `, last seen ${ago((Date.now() - seen) / 1000)}`}, ${wait}`],
    live: () => (stats?.draining ? ["warn", "draining"] : ["good", `up ${duration(Math.floor(stats?.uptime ?? 0))}`]),
  }[link]();
  $("pill").dataset.tone = tone;
  say($("pill-text"), text);
}

let link = "connecting";
function changed(state) {
  if (state.link === link) return;
  const before = link;
  link = state.link;
  if (link === "away") announce("The server does not answer.");
  if (link === "live" && before === "away") announce("The server answers again.");
  if (link === "locked") unlock(apiKey.value !== null);
  if (link === "live" && view?.refresh) poll(true);
  draw();
}

async function unlock(wrong) {
  await askForKey(wrong);
  link = "connecting";
  watch.resume();
}

const watch = new Watch(() => `/v1/stream?history=true&scope=${about.cluster ? scope.value : "node"}`, {
  history: (data) => history.begin(data),
  point: (data) => history.add(data),
  message: (data) => {
    stats = data;
    skew = data.at - Date.now() / 1000;
    draw();
  },
  state: changed,
});

searchable($("search"), announce);
themed($("theme"), () => {
  overview.recolour();
  draw();
});
setInterval(() => watch.state.link !== "live" && draw(), 1000);
document.addEventListener("visibilitychange", draw);
addEventListener("hashchange", () => {
  route();
  if (!main.contains(document.activeElement)) main.focus({ preventScroll: true });
});
route();

about = await get("/dashboard/about").catch(() => about);
scope.root.hidden = !about.cluster;
$("demo").hidden = !about.demo;
if (about.key && apiKey.value === null) unlock(false);
else watch.resume();
