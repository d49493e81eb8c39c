/** Calls of the admin API, with the key that this tab was given. */

const KEY = "trio-ws:api-key";

/** The API key of this tab: kept until the tab is closed, and in no other. */
export const apiKey = {
  get value() {
    return sessionStorage.getItem(KEY);
  },
  set value(key) {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  },
};

/** A call that was refused; `status` 0 where nobody answered. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Headers of a call. A key is bytes to the server; a header holds no others than Latin-1, so a key beyond that is UTF-8 there. */
function headers() {
  const key = apiKey.value;
  if (key === null) return {};
  const asSent = String.fromCharCode(...new TextEncoder().encode(key));
  return { authorization: `Bearer ${asSent}` };
}

/** A response that is fine. Raises `Refused` for every other. */
export async function open(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { headers: headers(), cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "away", "the server does not answer");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refused(response.status, error?.code ?? "error", error?.message ?? response.statusText);
}

/** The JSON that a call answers with. */
export const get = async (path, signal) => (await open(path, { signal })).json();

/** The path of a user's calls. */
export function userPath(user) {
  // A browser takes these two for directories, however they are written.
  if (user === "." || user === "..") throw new Refused(0, "unspeakable", "a browser can't ask for a user of this name");
  return `/v1/users/${encodeURIComponent(user)}`;
}

export const users = (prefix, limit, signal) =>
  get(`/v1/users?prefix=${encodeURIComponent(prefix)}&limit=${limit}`, signal);

export const endSession = (user, session) =>
  open(`${userPath(user)}/sessions/${encodeURIComponent(session)}`, { method: "DELETE" });
