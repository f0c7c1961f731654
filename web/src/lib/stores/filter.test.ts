import { describe, expect, it } from 'vitest';
import { aBlocked } from '../../../dev/events';
import { inTab, matches, parseQuery, searchable } from './filter';

const event = aBlocked(1, {
  device: 'device-002',
  zone: 'pool_spa',
  source: 'intruder 127.0.0.1',
  also: ['stale'],
  detail: 'pressure 250',
  score: -0.2,
});
const finds = (line: string) => matches(parseQuery(line), searchable(event));

describe('search', () => {
  it.each([
    '',
    'signature',
    'SIGNATURE message',
    '"does not match"',
    'device:002',
    'reason:bad_mac',
    'reason:stale',
    'zone:pool_spa',
    'zone:"pool_spa"',
    'source:intruder',
    '-replay',
    'blocked -device:001',
    'score<0',
    'score<-0.1 score>-0.3',
    '"does not',
    '-',
  ])('finds the event with: %s', (line) => {
    expect(finds(line)).toBe(true);
  });

  it.each([
    'replay',
    'signature replay',
    '"match the signature"',
    'device:001',
    'device:intruder',
    'reason:replay',
    '-signature',
    '-reason:bad_mac',
    '-"does not match"',
    'score>0',
    'score<-0.2',
  ])('does not find it with: %s', (line) => {
    expect(finds(line)).toBe(false);
  });

  it('finds a zone by the name that people see', () => {
    const named = searchable(event, (id) => (id === 'pool_spa' ? 'Pool & Spa' : ''));
    expect(matches(parseQuery('zone:"pool & spa"'), named)).toBe(true);
    expect(matches(parseQuery('"pool & spa"'), named)).toBe(true);
    expect(matches(parseQuery('zone:kitchen'), named)).toBe(false);
  });

  it('finds nothing by score where there is none', () => {
    const unscored = searchable(aBlocked(1));
    expect(matches(parseQuery('score<9'), unscored)).toBe(false);
    expect(matches(parseQuery('score>-9'), unscored)).toBe(false);
  });

  it('takes what looks like a pattern as plain text', () => {
    expect(finds('.*')).toBe(false);
    expect(() => finds('(((')).not.toThrow();
  });
});

describe('tabs', () => {
  it('needs attention holds everything but what was rightly accepted', () => {
    const kinds = ['accepted', 'flagged', 'blocked', 'got_in', 'notice'] as const;
    expect(kinds.filter((kind) => inTab('attention', kind))).toEqual([
      'flagged',
      'blocked',
      'got_in',
      'notice',
    ]);
    expect(kinds.filter((kind) => inTab('blocked', kind))).toEqual(['blocked']);
    expect(kinds.every((kind) => inTab('all', kind))).toBe(true);
  });
});
