// A channel's recent values, one a second: what a sparkline draws.

/** How many values a sparkline shows. */
export const TRACE_LENGTH = 60;

/** The last values, oldest first; the oldest goes when a new one finds no room. */
export class Trace {
  #values: (number | null)[] = [];

  /** Takes the next second's value, or null where nothing was measured. */
  push(value: number | null): void {
    this.#values.push(value);
    if (this.#values.length > TRACE_LENGTH) this.#values.shift();
  }

  values(): readonly (number | null)[] {
    return this.#values.slice();
  }
}
