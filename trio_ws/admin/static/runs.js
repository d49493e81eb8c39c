/**
 * The runs of a user's agents, folded from their events: what a page renders. How to use it: runs.d.ts.
 *
 * A state has the shape of a snapshot's payload, so that a tab that saw the run begin and one that came late hold the
 * same. States are replaced, never changed.
 */

const KEPT = 50; // runs, as many as a server keeps
const ENDED = ["completed", "failed", "cancelled", "lost"];

// After a reset, a run of which nobody may be left to tell the end.
const GIVEN_UP = { status: "lost", incomplete: true, tools: [], questions: [] };
const givenUp = (run) => run.status === "lost" && run.ended === undefined;
const endedAt = (run) => run.ended ?? Number.MAX_VALUE; // what is given up may be heard of again

export const ended = (run) => ENDED.includes(run.status);

/** What each type of event makes of a state. */
const STEPS = {
  agent_started: (run, { name, parent }) => ({ name, parent }),
  agent_thinking: (run, { text }) => ({ thought: text }),
  agent_delta: (run, { text = "" }) => ({ text: run.text + text }),
  agent_progress: (run, { fraction, message }) => ({ progress: fraction, message }),
  tool_executing: (run, { call, tool, input }, ts) => ({ tools: [...run.tools, { call, tool, input, since: ts }], calls: run.calls + 1 }),
  tool_output: (run, { call, text = "" }) => ({
    tools: run.tools.map((open) => (open.call === call ? { ...open, text: (open.text ?? "") + text } : open)),
  }),
  tool_completed: (run, { call, tool, outcome, duration }) => ({
    tools: run.tools.filter((open) => open.call !== call),
    last_tool: { call, tool, outcome, duration },
  }),
  question_asked: (run, { question, prompt, choices, schema, expires }, ts) => ({
    questions: [...run.questions.filter((open) => open.question !== question), { question, prompt, choices, schema, expires, ts }],
  }),
  question_closed: (run, { question }) => ({ questions: run.questions.filter((open) => open.question !== question) }),
  agent_cancelling: () => ({ status: "cancelling" }),
  agent_completed: end,
  agent_lost: end,
};

function end(run, { outcome, result, error }, ts) {
  return { status: ENDED.includes(outcome) ? outcome : "completed", ended: ts, result: result ?? run.result, error: error ?? run.error };
}

export function foldRuns(client, { onChange = () => {}, kept = KEPT, known = [] } = {}) {
  const runs = new Map(known.map((run) => [run.run, run]));
  let standing = 0; // up to this seq we were told which questions are open

  function put(run) {
    runs.set(run.run, run);
    onChange(run);
  }

  function forget() {
    if (runs.size <= kept) return;
    const over = [...runs.values()].filter(ended).sort((a, b) => endedAt(a) - endedAt(b));
    for (const old of over.slice(0, runs.size - kept)) runs.delete(old.run);
  }

  const begin = (run, ts, more) => ({
    ...{ run, seq: 0, status: "running", started: ts, text: "", text_from: 0, tools: [], calls: 0, questions: [] },
    ...more,
  });

  function fold({ run: id, seq, type, payload, ts }) {
    const step = Object.hasOwn(STEPS, type) && STEPS[type];
    let run = runs.get(id);
    if (!step || seq <= run?.seq) return;
    if (type === "agent_started") run = begin(id, ts, { questions: run?.questions ?? [] });
    else if (!run) run = begin(id, ts, { incomplete: true });
    else if (givenUp(run)) run = { ...run, status: "running" };
    const told = type.startsWith("question_") && seq <= standing;
    put({ ...run, seq, ...(told ? {} : step(run, Object(payload), ts)) });
  }

  /** As it stands with everything up to its seq. */
  function snapshot({ run: id, seq, payload }) {
    if (seq >= (runs.get(id)?.seq ?? 0)) put({ ...payload, run: id, seq });
  }

  /** All questions that are open, and no other. */
  function stand({ seq, payload: { questions } }) {
    standing = seq;
    for (const { run, ts } of questions) if (!runs.has(run)) put(begin(run, ts, { incomplete: true }));
    for (const run of [...runs.values()]) {
      const open = questions.filter((question) => question.run === run.run).map(({ run, ...question }) => question);
      if (open.length || run.questions.length) put({ ...run, questions: open });
    }
  }

  function gap({ to, reason, lost, healed = 0, snapshots = [], anew = false }) {
    if (reason === "reset" && !anew) {
      // Whatever a crash took that is in no snapshot which came before.
      for (const run of [...runs.values()]) if (!ended(run) && run.seq < to) put({ ...run, incomplete: true });
      return;
    }
    if (reason === "reset") {
      standing = 0;
      for (const run of [...runs.values()]) put({ ...run, seq: 0, ...(ended(run) ? {} : GIVEN_UP) });
      return;
    }
    const holes = [...Object.keys(STEPS), "*"].reduce((sum, type) => sum + (lost[type] ?? 0), -healed);
    if (reason === "superseded" || holes <= 0) return;
    for (const run of [...runs.values()]) {
      if (!ended(run) && !snapshots.includes(run.run)) put({ ...run, incomplete: true });
    }
  }

  client.on("*", (event) => {
    if (event.id === undefined) ({ snapshot, standing: stand })[event.type]?.(event);
    else if (event.run !== undefined) fold(event);
    forget();
  });
  client.on("gap", (told) => {
    gap(told);
    forget();
  });
  return runs;
}

export const answer = (client, question, answer) => client.send("agent_answer", { question, answer });

export const cancelRun = (client, run, reason) => client.send("agent_cancel", { run, reason });
