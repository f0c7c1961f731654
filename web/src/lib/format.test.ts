import { describe, expect, it } from 'vitest';
import {
  channelLabel,
  channelUnit,
  clock,
  clockMs,
  compact,
  count,
  counted,
  duration,
  kindOf,
  levelLabel,
  measure,
  moment,
  rate,
  remaining,
  sequence,
  since,
  visible,
} from './format';

describe('what is to come', () => {
  const HOUR = 3_600_000;

  it.each([
    [90_000, 'in 1 min 30 s'],
    [30 * HOUR, 'in 1 d 6 h'],
    [31 * 24 * HOUR - 1, 'in 30 d 23 h'],
    [31 * 24 * HOUR, 'in 31 days'],
    [729 * 24 * HOUR, 'in 729 days'],
    [730 * 24 * HOUR, 'in 2 years'],
    [-1, '1 ms ago'],
    [-5 * HOUR, '5 h ago'],
    [Number.NaN, '–'],
  ])('writes the time left of %d ms as %s', (ms, written) => {
    expect(remaining(ms)).toBe(written);
  });

  it('writes a moment with its date, and one of today without', () => {
    const at = new Date(2026, 10, 24, 16, 1, 5).getTime();
    expect(moment(at)).toBe('24 Nov 2026, 16:01');
    expect(since(at, at + 1000)).toBe('16:01:05');
    expect(since(at, at + 24 * HOUR)).toBe('24 Nov 2026, 16:01');
    expect(moment(1e17)).toBe('–');
    expect(since(1e17, at)).toBe('–');
  });
});

describe('numbers', () => {
  it.each([
    [0, '0'],
    [9_999, '9,999'],
    [10_000, '10.0k'],
    [99_949, '99.9k'],
    [99_950, '100k'],
    [999_499, '999k'],
    [999_500, '1.00M'],
    [4_560_000, '4.56M'],
    [2_500_000_000, '2.50G'],
    [Number.NaN, '–'],
  ])('writes %d in little room as %s', (value, written) => {
    expect(compact(value)).toBe(written);
  });

  it('separates thousands and agrees with its noun', () => {
    expect(count(1_234_567)).toBe('1,234,567');
    expect(counted(1, 'message')).toBe('1 message');
    expect(counted(0, 'message')).toBe('0 messages');
    expect(counted(2, 'entry', 'entries')).toBe('2 entries');
  });

  it('shows a slow rate with a decimal and a fast one without', () => {
    expect(rate(0)).toBe('0');
    expect(rate(0.3)).toBe('0.3');
    expect(rate(9.94)).toBe('9.9');
    expect(rate(9.96)).toBe('10');
    expect(rate(5_001.4)).toBe('5,001');
  });

  it('gives a value the decimals that its size deserves', () => {
    expect(measure(4.2)).toBe('4.20');
    expect(measure(-61.256)).toBe('-61.26');
    expect(measure(250)).toBe('250.0');
    expect(measure(1_234.5)).toBe('1,235');
    expect(measure(1e300)).toBe('1.00e+300');
    expect(measure(Infinity)).toBe('–');
  });
});

describe('names', () => {
  it('knows the channels of the water pipeline and makes words of others', () => {
    expect(channelLabel('flow_rate')).toBe('Flow');
    expect(channelUnit('flow_rate')).toBe('L/min');
    expect(channelLabel('tank_level')).toBe('Tank level');
    expect(channelUnit('tank_level')).toBe('');
  });

  it('does not take a channel for a member of every object', () => {
    expect(channelLabel('constructor')).toBe('Constructor');
    expect(channelUnit('__proto__')).toBe('');
    expect(levelLabel('toString')).toBe('toString');
  });

  it('lists as people do', () => {
    expect(sequence([])).toBe('');
    expect(sequence(['Pool'])).toBe('Pool');
    expect(sequence(['Pool', 'Spa'])).toBe('Pool and Spa');
    expect(sequence(['Pool', 'Spa', 'Kitchen'])).toBe('Pool, Spa and Kitchen');
  });

  it('tells what got in apart from what was rightly accepted', () => {
    expect(kindOf({ outcome: 'accepted', got_in: true })).toBe('got_in');
    expect(kindOf({ outcome: 'accepted', got_in: false })).toBe('accepted');
  });
});

describe('times', () => {
  it('writes the time of day here', () => {
    const noon = new Date(2026, 0, 2, 12, 3, 4, 5).getTime();
    expect(clock(noon)).toBe('12:03:04');
    expect(clockMs(noon)).toBe('12:03:04.005');
    expect(clock(Number.NaN)).toBe('–');
  });

  it.each([
    [-5, '0 ms'],
    [850, '850 ms'],
    [42_900, '42 s'],
    [60_000, '1 min'],
    [200_000, '3 min 20 s'],
    [7_500_000, '2 h 5 min'],
    [273_600_000, '3 d 4 h'],
  ])('writes %d ms as %s', (ms, written) => {
    expect(duration(ms)).toBe(written);
  });
});

describe('text from outside', () => {
  it('shows what would hide or reorder the rest', () => {
    expect(visible('a\u202eb\u0000c\u200b', 50)).toBe('a\\u202eb\\u0000c\\u200b');
  });

  it('leaves markup as the text that it is', () => {
    expect(visible('<img src=x onerror=alert(1)>', 50)).toBe('<img src=x onerror=alert(1)>');
  });

  it('is cut to its length', () => {
    expect(visible('abcdef', 6)).toBe('abcdef');
    expect(visible('abcdefg', 6)).toBe('abcde…');
  });
});
