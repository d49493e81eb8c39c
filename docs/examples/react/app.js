/** Agent runs as they progress, in React. */

import { StrictMode, useReducer } from "react";
import { createRoot } from "react-dom/client";
import { useTrioWs } from "./use-trio-ws.js";

/** What is shown: a run by its number, and what will not come. */
function shown(state, { type, payload, gap }) {
  if (gap) return { ...state, lost: state.lost + gap.to - gap.from + 1 };
  const run = state.runs[payload.run] ?? { text: "", done: false };
  const next = {
    text: { ...run, text: run.text + payload.text },
    agent_completed: { ...run, done: true },
  }[type];
  return { ...state, runs: { ...state.runs, [payload.run]: next ?? run } };
}

function App({ url, user }) {
  const [{ runs, lost }, show] = useReducer(shown, { runs: {}, lost: 0 });
  const { status } = useTrioWs(url, { user }, {
    agent_started: show,
    text: show,
    agent_completed: show,
    gap: (gap) => show({ gap }),
  });
  return (
    <main>
      <p id="status">{status.state === "catching_up" ? `catching up, ${status.done} of ${status.total}` : status.state}</p>
      {lost > 0 && <p id="lost">{lost} events will not come.</p>}
      <ul>
        {Object.entries(runs).map(([number, { text, done }]) => (
          <li key={number}>
            run {number}: {text} {done ? "✓" : "…"}
          </li>
        ))}
      </ul>
    </main>
  );
}

const { url, user } = document.getElementById("root").dataset;
createRoot(document.getElementById("root")).render(
  <StrictMode>
    <App url={url} user={user} />
  </StrictMode>,
);
