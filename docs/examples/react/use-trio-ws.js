/** A React hook around client.js: one client for as long as the component is mounted. */

import { useCallback, useEffect, useRef, useState } from "react";
import { connect } from "trio-ws-client";

/**
 * @param url where the server is
 * @param options of `connect`; `user` and `key` make another client when they change, the others are read once
 * @param handlers by type of event, and `gap`; those of the newest render are called. An event is acknowledged when the
 *   promise that its handler returns has resolved, and given again when it rejects
 * @returns `status`, to show; `send(type, payload)`, which resolves when the application has accepted the message
 */
export function useTrioWs(url, options, handlers) {
  const [status, setStatus] = useState({ state: "connecting" });
  const client = useRef(null);
  const newest = useRef(handlers);
  useEffect(() => {
    newest.current = handlers; // a render makes new handlers, not a new connection
  });
  useEffect(() => {
    const c = (client.current = connect(url, options));
    c.on("*", (event) => newest.current[event.type]?.(event));
    c.on("gap", (gap) => newest.current.gap?.(gap));
    c.on("state", setStatus);
    setStatus(c.status);
    return () => c.close(); // a reload does not come here: it resumes
  }, [url, options.user, options.key]);
  const send = useCallback((type, payload) => client.current.send(type, payload), []);
  return { status, send };
}
