/** client.js under the conformance pack: what its handlers do, and what it reports. See README.md. */

/**
 * @param connect client.js's
 * @param options a vector's
 * @param report takes what there is to tell
 * @returns what takes commands
 */
export function drive(connect, url, options, report) {
  const { user = "ada", token, from, handlers = {} } = options;
  const failures = {};
  const c = connect(url, { user, token: source(token), key: KEY, ...(from && { from }), onError() {} });
  c.on("*", async (event) => {
    report({ event });
    if (event.id === undefined) return; // it is told, and not acked
    const { take = 0, fail = 0 } = handlers[event.seq] ?? {};
    if (take) await new Promise((resolve) => setTimeout(resolve, take * 1000));
    failures[event.seq] = (failures[event.seq] ?? 0) + 1;
    if (failures[event.seq] <= fail) throw new Error("told to fail");
    report({ processed: event.seq, id: event.id });
  });
  c.on("gap", (gap) => report({ gap }));
  c.on("state", (status) => report(status));
  return (command) => {
    if (command === "close") return c.close();
    const { key, type, payload } = command.send;
    const tell = (error) => report({ answer: key, error: error?.message ?? null });
    c.send(type, payload).then(() => tell(), tell);
  };
}

export const KEY = "conformance";

/** A token, or what gives those of a list one after the other; null in it fails. */
function source(given) {
  if (!Array.isArray(given)) return given;
  const rest = [...given];
  return async () => {
    const token = rest.length > 1 ? rest.shift() : rest[0];
    if (token === null) throw new Error("no token");
    return token;
  };
}
