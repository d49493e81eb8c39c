/** The rows of the last quarter of an hour, by column, as charts take them: counters as rates, holes as nulls. */

export class History {
  about = null; // what the server said of itself: limits, bounds, version
  distributions = { confirmation: [], recovery: [] };
  columns = new Map([["at", []]]);
  #names = [];
  #counters = new Set();
  #last = null; // when the last row was taken

  /** Takes the server's history. What this page saw before that is kept: a server that restarts has forgotten it. */
  begin({ rows, columns, counters, distributions, ...about }) {
    this.about = about;
    this.distributions = distributions;
    this.#names = columns;
    this.#counters = new Set(counters);
    for (const name of columns) if (!this.columns.has(name)) this.columns.set(name, []);
    const times = this.columns.get("at");
    const first = rows.length ? rows[0][0] : Infinity;
    const kept = times.findIndex((at) => at >= first);
    if (kept >= 0) for (const values of this.columns.values()) values.length = kept;
    this.#last = times.at(-1) ?? null;
    rows.forEach((row) => this.#add(row));
  }

  /** Takes one more second. */
  add({ row, distributions }) {
    this.distributions = distributions;
    this.#add(row);
  }

  /** The newest value of a column. */
  now(name) {
    return this.columns.get(name)?.at(-1) ?? null;
  }

  /** The average of a column over the last `n` rows. */
  recently(name, n = 5) {
    const values = (this.columns.get(name) ?? []).slice(-n).filter((value) => value !== null);
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  }

  #add(row) {
    const at = row[0];
    const step = this.about.step;
    const since = this.#last === null ? null : at - this.#last;
    if (since !== null && since <= 0) return; // it is here already
    // Rows that are missing leave a hole, and no line across it.
    if (since > 3 * step) this.#push(() => null, this.#last + step);
    const seconds = since === null || since > 3 * step ? step : since;
    this.#push((name, n) => (row[n] !== null && this.#counters.has(name) ? row[n] / seconds : row[n]), at);
    this.#last = at;
    const surplus = this.columns.get("at").length - 1000;
    if (surplus > 0) for (const values of this.columns.values()) values.splice(0, surplus);
  }

  #push(value, at) {
    this.#names.forEach((name, n) => this.columns.get(name).push(n ? value(name, n) : at));
  }
}
