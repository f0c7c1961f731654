// The one answer that the headline, the tab's title and its icon give: is there an attack, and did anything get in?

import { count, counted, sequence } from '../format';
import type { Totals, ZoneView } from '../protocol';
import type { Link } from '../socket';

export type Condition = 'waiting' | 'normal' | 'attention' | 'attack' | 'breach' | 'stale' | 'lost';

export interface Headline {
  condition: Exclude<Condition, 'stale' | 'lost'>;
  title: string;
  sentence: string;
}

/** What the zones and the last minute say, whether or not the stream is fresh. */
export function headline(zones: readonly ZoneView[], minute: Totals, totals: Totals): Headline {
  const named = (status: ZoneView['status']) =>
    sequence(zones.filter((zone) => zone.status === status).map((zone) => zone.name));
  const attacked = named('attack');
  const odd = named('attention');
  const silent = named('silent');
  const parts = [
    minute.blocked > 0 ? `${counted(minute.blocked, 'message')} blocked` : '',
    minute.flagged > 0 ? `${count(minute.flagged)} flagged` : '',
  ].filter(Boolean);
  const held = `${sequence(parts) || 'Nothing blocked or flagged'} in the last minute.`;
  if (minute.got_in > 0) {
    return {
      condition: 'breach',
      title: 'Attacks are getting in',
      sentence: `${counted(minute.got_in, 'attack')} got in during the last minute: the layer that stops them is off.`,
    };
  }
  const before = totals.got_in > 0 ? ` ${counted(totals.got_in, 'attack')} got in earlier.` : '';
  const nothing = totals.got_in > 0 ? before : ' Nothing got in.';
  // What is blocked at the door, such as a stranger's connection, belongs to no zone.
  if (attacked || minute.blocked > 0) {
    const title = attacked ? `Under attack: ${attacked}` : 'Attack held off';
    return { condition: 'attack', title, sentence: `${held}${nothing}` };
  }
  if (odd || silent) {
    const title = odd ? `Look at ${odd}` : `No word from ${silent}`;
    const zone = zones.find((each) => each.status === (odd ? 'attention' : 'silent'));
    return { condition: 'attention', title, sentence: `${zone ? `${zone.sentence}.` : held}${before}` };
  }
  if (zones.length === 0 || zones.every((zone) => zone.status === 'waiting')) {
    return {
      condition: 'waiting',
      title: 'Waiting for the first message',
      sentence: 'No sensor has reported yet.',
    };
  }
  const calm =
    minute.blocked + minute.flagged === 0 ? 'Every message of the last minute was accepted.' : held;
  return { condition: 'normal', title: 'All is well', sentence: `${calm}${nothing}` };
}

/** The condition of the page: a stream that is not fresh comes before what it last said. */
export function conditionOf(link: Link, known: boolean, of: Headline): Condition {
  if (link.state === 'disconnected') return 'lost';
  if (!known || link.state === 'connecting') return 'waiting';
  return link.state === 'stale' ? 'stale' : of.condition;
}

const TITLES: Record<Condition, string> = {
  waiting: 'Waiting',
  normal: 'All is well',
  attention: 'Needs attention',
  attack: 'Under attack',
  breach: 'Attacks are getting in',
  stale: 'Stale',
  lost: 'Disconnected',
};

/** The tab's title: state first, because tabs are narrow. `page` is named where it is not the first one. */
export function pageTitle(condition: Condition, site: string, page = ''): string {
  return [TITLES[condition], page, site, 'Tidegate'].filter(Boolean).join(' · ');
}

/** The tab's icon. */
export function pageIcon(condition: Condition): string {
  return `/icons/${condition === 'stale' ? 'lost' : condition}.svg`;
}
