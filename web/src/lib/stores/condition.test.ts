import { describe, expect, it } from 'vitest';
import { Traffic } from '../../../dev/traffic';
import type { ZoneView } from '../protocol';
import { conditionOf, headline, pageIcon, pageTitle } from './condition';

const none = { accepted: 600, flagged: 0, blocked: 0, got_in: 0 };
const [first, second] = new Traffic('calm', 1_800_000_000_000).hello(null).zones;
const zones = (one: Partial<ZoneView>, other: Partial<ZoneView> = {}) => {
  if (!first || !second) throw new Error('the scenario has no zones');
  return [
    { ...first, ...one },
    { ...second, ...other },
  ];
};
const live = { state: 'live', since_ms: 0, heard_ms: 0, retry_ms: null, failures: 0 } as const;

describe('headline', () => {
  it('says that all is well, and that nothing got in', () => {
    expect(headline(zones({}), none, none)).toEqual({
      condition: 'normal',
      title: 'All is well',
      sentence: 'Every message of the last minute was accepted. Nothing got in.',
    });
  });

  it('names every zone under attack', () => {
    const minute = { ...none, blocked: 3, flagged: 1 };
    expect(headline(zones({ status: 'attack' }, { status: 'attack' }), minute, minute)).toEqual({
      condition: 'attack',
      title: 'Under attack: Main Building and Pool & Spa',
      sentence: '3 messages blocked and 1 flagged in the last minute. Nothing got in.',
    });
  });

  it('does not call all well what was blocked outside every zone', () => {
    expect(headline(zones({}), { ...none, blocked: 1 }, none).condition).toBe('attack');
  });

  it('puts what got in before everything else', () => {
    const minute = { ...none, got_in: 2, blocked: 9 };
    expect(headline(zones({ status: 'attack' }), minute, minute)).toMatchObject({
      condition: 'breach',
      title: 'Attacks are getting in',
    });
  });

  it('does not say that nothing got in when something did earlier', () => {
    const { sentence } = headline(zones({}), none, { ...none, got_in: 5 });
    expect(sentence).toContain('5 attacks got in earlier.');
    expect(sentence).not.toContain('Nothing got in');
  });

  it('gives the zone’s own sentence when it needs attention or is silent', () => {
    const odd = headline(zones({ status: 'attention', sentence: 'It drifts' }), none, none);
    expect(odd).toMatchObject({
      condition: 'attention',
      title: 'Look at Main Building',
      sentence: 'It drifts.',
    });
    const silent = headline(zones({}, { status: 'silent', sentence: 'No reading for 2 min' }), none, none);
    expect(silent.title).toBe('No word from Pool & Spa');
  });

  it('waits while no zone has reported', () => {
    const waiting = zones({ status: 'waiting' }, { status: 'waiting' });
    expect(headline(waiting, none, none).condition).toBe('waiting');
    expect(headline([], none, none).condition).toBe('waiting');
  });
});

describe('condition of the page', () => {
  const attack = headline(zones({ status: 'attack' }), none, none);

  it('puts a stream that is not fresh before what it last said', () => {
    expect(conditionOf(live, true, attack)).toBe('attack');
    expect(conditionOf({ ...live, state: 'stale' }, true, attack)).toBe('stale');
    expect(conditionOf({ ...live, state: 'disconnected' }, true, attack)).toBe('lost');
    expect(conditionOf({ ...live, state: 'connecting' }, false, attack)).toBe('waiting');
  });

  it('shows in the tab’s title and icon', () => {
    expect(pageTitle('attack', 'The Grand Marina')).toBe('Under attack · The Grand Marina · Tidegate');
    expect(pageTitle('waiting', '')).toBe('Waiting · Tidegate');
    expect(pageTitle('normal', 'Hotel', 'Certificates')).toBe(
      'All is well · Certificates · Hotel · Tidegate',
    );
    expect(pageIcon('breach')).toBe('/icons/breach.svg');
    expect(pageIcon('stale')).toBe('/icons/lost.svg');
  });
});
