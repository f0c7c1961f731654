// What the reader asks the event list to show: a tab and a line of search.

import { kindOf, KINDS, type Kind } from '../format';
import type { EventView } from '../protocol';

export type Tab = 'attention' | 'flagged' | 'blocked' | 'got_in' | 'accepted' | 'all';

export const TABS: readonly { id: Tab; label: string }[] = [
  { id: 'attention', label: 'Needs attention' },
  { id: 'flagged', label: 'Flagged' },
  { id: 'blocked', label: 'Blocked' },
  { id: 'got_in', label: 'Got in' },
  { id: 'accepted', label: 'Accepted' },
  { id: 'all', label: 'All' },
];

type Field = 'any' | 'device' | 'reason' | 'zone' | 'source';

interface TextTerm {
  field: Field;
  text: string;
  exclude: boolean;
}

interface ScoreTerm {
  above: boolean;
  limit: number;
}

/** A search line, read once. */
export interface Query {
  terms: TextTerm[];
  scores: ScoreTerm[];
}

/** The texts that a search looks at, in lower case. */
export interface Searchable {
  any: string;
  device: string;
  reason: string;
  zone: string;
  source: string;
  /** The most anomalous score, which is the lowest, or null where there is none. */
  score: number | null;
}

/** The longest search line that is read. */
export const LONGEST_QUERY = 200;

const TERM = /(-?)(?:(device|reason|zone|source):)?(?:"([^"]*)"?|(\S+))/giu;
const SCORE = /^score([<>])(-?\d*\.?\d+)$/i;

/** Reads a search line: words, "several words", `-exclude`, `device:`, `reason:`, `zone:`, `source:`, `score<0`. */
export function parseQuery(line: string): Query {
  const query: Query = { terms: [], scores: [] };
  for (const [, minus, field, quoted, bare] of line.slice(0, LONGEST_QUERY).matchAll(TERM)) {
    const word = quoted ?? bare ?? '';
    const scored = SCORE.exec(word);
    if (scored && !field && !minus) {
      query.scores.push({ above: scored[1] === '>', limit: Number(scored[2]) });
    } else if (word !== '' && word !== '-') {
      query.terms.push({
        field: (field?.toLowerCase() as Field | undefined) ?? 'any',
        text: word.toLowerCase(),
        exclude: minus === '-',
      });
    }
  }
  return query;
}

/** Whether every term of the search holds. */
export function matches(query: Query, item: Searchable): boolean {
  for (const term of query.terms) {
    if (item[term.field].includes(term.text) === term.exclude) return false;
  }
  for (const { above, limit } of query.scores) {
    if (item.score === null || (above ? item.score <= limit : item.score >= limit)) return false;
  }
  return true;
}

/** Whether a tab shows this kind of event. */
export function inTab(tab: Tab, kind: Kind): boolean {
  if (tab === 'all') return true;
  if (tab === 'attention') return kind !== 'accepted';
  return kind === tab;
}

/** A zone's name for people, or nothing where it is not known. */
export type ZoneName = (id: string | null) => string;

/** What a search finds in one event: of its zone, both the name that people see and the id. */
export function searchable(event: EventView, zoneName: ZoneName = () => ''): Searchable {
  const zone = [event.zone, zoneName(event.zone)].filter(Boolean).join('\n');
  const parts = [
    KINDS[kindOf(event)],
    event.reason,
    ...event.also,
    event.sentence,
    event.detail,
    event.device,
    zone,
    event.topic,
    event.source,
  ];
  return {
    any: parts.filter(Boolean).join('\n').toLowerCase(),
    device: (event.device ?? '').toLowerCase(),
    reason: [event.reason, ...event.also].join('\n').toLowerCase(),
    zone: zone.toLowerCase(),
    source: (event.source ?? '').toLowerCase(),
    score: event.score,
  };
}
