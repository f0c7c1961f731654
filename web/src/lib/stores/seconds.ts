// The last two minutes, one slot a second: what the charts draw.

import type { SecondView } from '../protocol';

/** How many seconds are kept. */
export const SECONDS = 120;

/** Columns for a chart; a second of which nothing is known is null. */
export interface Columns {
  t: number[];
  accepted: (number | null)[];
  flagged: (number | null)[];
  blocked: (number | null)[];
  got_in: (number | null)[];
}

/** Outcomes of the last two minutes by second. Its size never changes. */
export class SecondSeries {
  #slots: (SecondView | null)[] = Array.from({ length: SECONDS }, () => null);
  /** The newest second heard of, or null: it is still filling. */
  newest: number | null = null;

  clear(): void {
    this.#slots.fill(null);
    this.newest = null;
  }

  /** Takes a second or a newer count of it; one older than the series is ignored. */
  put(second: SecondView): void {
    const t = Math.floor(second.t);
    if (this.newest !== null && t <= this.newest - SECONDS) return;
    this.#slots[slot(t)] = { ...second, t };
    if (this.newest === null || t > this.newest) this.newest = t;
  }

  /** Goes on to second `t`: of those between, nothing came, or it would have been put. */
  advance(t: number): void {
    if (this.newest === null) return;
    const from = Math.max(this.newest + 1, t - SECONDS + 1);
    for (let at = from; at <= t; at += 1) {
      this.put({ t: at, accepted: 0, flagged: 0, blocked: 0, got_in: 0 });
    }
  }

  /** The second `t`, or null where nothing is known of it. */
  at(t: number): SecondView | null {
    const found = this.#slots[slot(t)];
    return found && found.t === t ? found : null;
  }

  /** The last `length` whole seconds, oldest first; the one that is still filling is left out. */
  columns(length: number): Columns {
    const columns: Columns = { t: [], accepted: [], flagged: [], blocked: [], got_in: [] };
    if (this.newest === null) return columns;
    for (let t = this.newest - length; t < this.newest; t += 1) {
      const second = this.at(t);
      columns.t.push(t);
      columns.accepted.push(second?.accepted ?? null);
      columns.flagged.push(second?.flagged ?? null);
      columns.blocked.push(second?.blocked ?? null);
      columns.got_in.push(second?.got_in ?? null);
    }
    return columns;
  }

  /** The sum over the last `length` seconds, the one that is still filling included. */
  sum(of: 'accepted' | 'flagged' | 'blocked' | 'got_in', length: number): number {
    if (this.newest === null) return 0;
    let total = 0;
    for (let t = this.newest - length + 1; t <= this.newest; t += 1) total += this.at(t)?.[of] ?? 0;
    return total;
  }
}

function slot(t: number): number {
  return ((t % SECONDS) + SECONDS) % SECONDS;
}
