// The event list: what is kept of the stream, and the part of it that the reader sees now.

import { kindOf } from '../format';
import type { EventView } from '../protocol';
import { inTab, matches, parseQuery, searchable, type Tab, type ZoneName } from './filter';
import { Groups, type Group } from './groups';

/** Lines kept that need attention; accepted messages have their own room and never push these out. */
export const ATTENTION_LINES = 2_000;
/** Lines kept of accepted messages, which are a sample anyway. */
export const ACCEPTED_LINES = 500;
/** The list is drawn again at most this often. */
export const REDRAW_MS = 250;

/** Why the list stands still. */
export type Hold = 'button' | 'scroll' | 'open' | 'move';

export class EventList {
  tab = $state<Tab>('attention');
  search = $state('');
  /** The lines that match, newest first, as of the last redraw. */
  lines = $state.raw<readonly Group[]>([]);
  /** Rises with every redraw: counts inside the lines may have changed. */
  drawn = $state(0);
  /** Matching events that came while the list stood still. */
  waiting = $state(0);
  frozen = $state(false);
  /** The key of the line under the keyboard. */
  cursor = $state<string | null>(null);
  /** The opened line, as it was when it was opened. */
  opened = $state.raw<Group | null>(null);
  /** Lines kept, whether they match or not. */
  kept = $state(0);
  /** Events that were counted but not sent, because there were too many to list. */
  unlisted = $state(0);
  /** The number of the newest event heard of. */
  newest: number | null = null;

  #zoneName: ZoneName;
  #attention: Groups;
  #accepted: Groups;
  #serial = 0;
  #frozenAt = 0;
  #holds = new Set<Hold>();
  #query = parseQuery('');
  #unlisted = 0;
  #arrived = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #drawnAt = -Infinity;
  #accepted_ms = -Infinity;

  constructor(zoneName: ZoneName = () => '') {
    this.#zoneName = zoneName;
    this.#attention = new Groups(ATTENTION_LINES, zoneName);
    this.#accepted = new Groups(ACCEPTED_LINES, zoneName);
  }

  /**
   * Takes new events, oldest first; what is already here is left out. Numbered events are known by
   * their number, which rises from batch to batch; accepted readings have none, and go by their time.
   */
  add(events: readonly EventView[]): void {
    let taken = false;
    const known = this.newest ?? 0;
    const knownAccepted_ms = this.#accepted_ms;
    for (const event of events) {
      if (event.id > 0 ? event.id <= known : event.t_ms <= knownAccepted_ms) continue;
      if (event.id > 0) this.newest = Math.max(this.newest ?? 0, event.id);
      else this.#accepted_ms = Math.max(this.#accepted_ms, event.t_ms);
      this.#serial += 1;
      const groups = kindOf(event) === 'accepted' ? this.#accepted : this.#attention;
      groups.put(event, this.#serial);
      if (this.frozen && this.#shows(event)) this.#arrived += 1;
      taken = true;
    }
    if (taken) this.#schedule();
  }

  /** Counts events that the gateway had no room to send. */
  skip(count: number): void {
    if (count <= 0) return;
    this.#unlisted += count;
    this.#schedule();
  }

  /** Forgets everything: the gateway counts its events from the beginning again. */
  clear(): void {
    this.#attention.clear();
    this.#accepted.clear();
    this.newest = null;
    this.#accepted_ms = -Infinity;
    this.#unlisted = 0;
    this.cursor = null;
    this.opened = null;
    this.resume();
  }

  show(tab: Tab): void {
    this.tab = tab;
    this.#changed();
  }

  find(line: string): void {
    this.search = line;
    this.#query = parseQuery(line);
    this.#changed();
  }

  hold(why: Hold): void {
    this.#holds.add(why);
    if (this.frozen) return;
    this.#frozenAt = this.#serial;
    this.#arrived = 0;
    this.waiting = 0;
    this.frozen = true;
  }

  release(why: Hold): void {
    this.#holds.delete(why);
    if (this.frozen && this.#holds.size === 0) this.resume();
  }

  /** Goes on live, whatever held the list. */
  resume(): void {
    this.#holds.clear();
    this.frozen = false;
    this.#arrived = 0;
    this.redraw();
  }

  /** Opens a line; the list stands still while it is open. */
  open(key: string): void {
    const group = this.#attention.get(key) ?? this.#accepted.get(key);
    if (!group) return;
    this.hold('open');
    this.cursor = key;
    this.opened = { ...group, samples: [...group.samples] };
  }

  close(): void {
    this.opened = null;
    this.release('open');
  }

  /** Moves the keyboard by lines, and says where it is now; null where there is no line. */
  move(by: number): number | null {
    if (this.lines.length === 0) return null;
    this.hold('move');
    const at = this.lines.findIndex((line) => line.key === this.cursor);
    const to = at < 0 ? 0 : Math.min(this.lines.length - 1, Math.max(0, at + by));
    this.cursor = this.lines[to]?.key ?? null;
    if (this.opened && this.cursor) this.open(this.cursor);
    return to;
  }

  /** Draws the list now. */
  redraw(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#drawnAt = performance.now();
    this.kept = this.#attention.size + this.#accepted.size;
    this.unlisted = this.#unlisted;
    this.waiting = this.frozen ? this.#arrived : 0;
    if (this.frozen) return;
    this.lines = this.#matching();
    this.drawn += 1;
  }

  #schedule(): void {
    if (this.#timer !== undefined) return;
    const wait = Math.max(0, this.#drawnAt + REDRAW_MS - performance.now());
    this.#timer = setTimeout(() => this.redraw(), wait);
  }

  /** The question changed: the answer is drawn at once, up to where the list stands still. */
  #changed(): void {
    this.#holds.delete('scroll');
    this.#holds.delete('move');
    this.cursor = this.opened?.key ?? null;
    if (this.#holds.size === 0) {
      this.resume();
      return;
    }
    this.#arrived = 0;
    this.lines = this.#matching().filter((line) => line.serial <= this.#frozenAt);
    this.redraw();
    this.drawn += 1;
  }

  #shows(event: EventView): boolean {
    return inTab(this.tab, kindOf(event)) && matches(this.#query, searchable(event, this.#zoneName));
  }

  #matching(): Group[] {
    const lines = this.tab === 'accepted' ? [] : this.#attention.newestFirst();
    const accepted = this.tab === 'accepted' || this.tab === 'all' ? this.#accepted.newestFirst() : [];
    const both = accepted.length === 0 ? lines : lines.length === 0 ? accepted : merge(lines, accepted);
    return both.filter((line) => inTab(this.tab, line.kind) && matches(this.#query, line.search));
  }
}

/** Two lists, each newest first, as one. */
function merge(one: readonly Group[], other: readonly Group[]): Group[] {
  const merged: Group[] = [];
  let i = 0;
  let j = 0;
  while (i < one.length || j < other.length) {
    const a = one[i];
    const b = other[j];
    if (a && (!b || a.serial > b.serial)) {
      merged.push(a);
      i += 1;
    } else if (b) {
      merged.push(b);
      j += 1;
    }
  }
  return merged;
}
