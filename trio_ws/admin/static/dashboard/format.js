/** Numbers as people read them. A no-break space stands before a unit. */

const NB = "\u00a0";
const DASH = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

const missing = (n) => n === null || n === undefined || Number.isNaN(n);

/** Three digits that say something, and no trailing noughts. */
const short = (n) => (n >= 100 ? whole.format(n) : String(Number(n.toPrecision(n >= 10 ? 3 : 2))));

/** A count: 1,234; from a million on 1.23 M. */
export function count(n) {
  if (missing(n)) return DASH;
  if (n < 1e6) return whole.format(n);
  const [size, unit] = n < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${(n / size).toFixed(2)}${NB}${unit}`;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Events a second. */
export function rate(n) {
  if (missing(n)) return DASH;
  return `${n >= 10 ? count(n) : Number(n.toFixed(1))}${NB}/s`;
}

/** Seconds: 0.4 ms, 12 ms, 1.3 s, 3 min 12 s, 4 h 3 min, 2 d 4 h. */
export function duration(s) {
  if (missing(s)) return DASH;
  if (s === 0) return `0${NB}s`;
  if (s < 0.9995) return `${short(s * 1000)}${NB}ms`;
  if (s < 59.5) return `${s < 9.95 ? Number(s.toFixed(1)) : Math.round(s)}${NB}s`;
  const units = [["s", 60], ["min", 60], ["h", 24], ["d", Infinity]];
  let left = Math.round(s);
  const parts = units.map(([unit, size]) => {
    const part = left % size;
    left = Math.floor(left / size);
    return [part, unit];
  });
  const top = parts.findLastIndex(([part]) => part > 0);
  return parts
    .slice(Math.max(0, top - 1), top + 1)
    .reverse()
    .filter(([part], n) => part > 0 || n === 0)
    .map(([part, unit]) => `${part}${NB}${unit}`)
    .join(" ");
}

/** How long ago; whole seconds, so that it does not flicker. */
export const ago = (s) => (s < 1 ? "now" : `${duration(Math.floor(s))} ago`);

export function bytes(n) {
  if (missing(n)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  for (; n >= 1024 && at < units.length - 1; at++) n /= 1024;
  return `${at ? short(n) : n}${NB}${units[at]}`;
}

/** A share: 99.98 %. Only what is all is 100 %, and only what is nothing is 0 %. */
export function percent(share) {
  if (missing(share)) return DASH;
  const p = share * 100;
  if (p <= 0 || p >= 100) return `${p <= 0 ? 0 : 100}${NB}%`;
  if (p < 0.01) return `<0.01${NB}%`;
  const digits = p > 99 || p < 1 ? 100 : 10;
  return `${Math.floor(p * digits) / digits}${NB}%`;
}

/** Unix seconds as a time of day. */
export const time = (at) => clock.format(at * 1000);
export const timeToMinute = (at) => minute.format(at * 1000);

/** A moment: the time of day, with the date where it was not within the last half day. */
export const moment = (at, now = Date.now() / 1000) => (Math.abs(now - at) < 43200 ? time(at) : day.format(at * 1000));

/** A value of an alert in its unit. */
export function inUnit(value, unit) {
  if (missing(value)) return DASH;
  return { seconds: duration, events: count, ratio: percent }[unit]?.(value) ?? String(value);
}
