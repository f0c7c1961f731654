// Repeats become one line: the events of one reason, device and minute are a group.

import { kindOf, type Kind } from '../format';
import type { EventView } from '../protocol';
import { searchable, type Searchable, type ZoneName } from './filter';

/** How many of a group's events are kept to be opened; its count goes on. */
export const SAMPLES = 8;
/** How much text of a group is searched. */
const SEARCHED = 2_048;
const MINUTE_MS = 60_000;

export interface Group {
  /** Kind, reason, device and minute. */
  readonly key: string;
  /** Rises with every new group: the order of the list. */
  readonly serial: number;
  readonly kind: Kind;
  count: number;
  first_ms: number;
  last_ms: number;
  /** The newest events of the group, newest last. */
  samples: EventView[];
  search: Searchable;
}

/** The key under which repeats of an event meet. */
export function groupKey(event: EventView): string {
  const minute = Math.floor(event.t_ms / MINUTE_MS);
  return [kindOf(event), event.reason, event.device ?? '', minute].join('\u0000');
}

/** The newest groups, at most `limit`; the oldest goes when a new one finds no room. */
export class Groups {
  #limit: number;
  #zoneName: ZoneName | undefined;
  #groups = new Map<string, Group>();

  constructor(limit: number, zoneName?: ZoneName) {
    this.#limit = limit;
    this.#zoneName = zoneName;
  }

  get size(): number {
    return this.#groups.size;
  }

  clear(): void {
    this.#groups.clear();
  }

  get(key: string): Group | undefined {
    return this.#groups.get(key);
  }

  /** Adds an event to its group, which is made with `serial` if it is the first. */
  put(event: EventView, serial: number): Group {
    const key = groupKey(event);
    const found = this.#groups.get(key);
    if (found) {
      join(found, event, this.#zoneName);
      return found;
    }
    const group: Group = {
      key,
      serial,
      kind: kindOf(event),
      count: 1,
      first_ms: event.t_ms,
      last_ms: event.t_ms,
      samples: [event],
      search: searchable(event, this.#zoneName),
    };
    this.#groups.set(key, group);
    if (this.#groups.size > this.#limit) {
      const oldest = this.#groups.keys().next();
      if (!oldest.done) this.#groups.delete(oldest.value);
    }
    return group;
  }

  /** Every group, newest first. */
  newestFirst(): Group[] {
    return [...this.#groups.values()].reverse();
  }
}

function join(group: Group, event: EventView, zoneName?: ZoneName): void {
  group.count += 1;
  group.first_ms = Math.min(group.first_ms, event.t_ms);
  group.last_ms = Math.max(group.last_ms, event.t_ms);
  group.samples.push(event);
  if (group.samples.length > SAMPLES) group.samples.shift();
  if (event.score !== null) group.search.score = Math.min(group.search.score ?? event.score, event.score);
  if (group.search.any.length < SEARCHED) {
    const more = searchable(event, zoneName);
    if (!group.search.any.includes(more.any)) group.search.any += `\n${more.any}`.slice(0, SEARCHED);
    if (!group.search.source.includes(more.source)) group.search.source += `\n${more.source}`;
  }
}
