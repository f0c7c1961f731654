import { describe, expect, it } from 'vitest';
import { aBlocked } from '../../../dev/events';
import { Groups, SAMPLES } from './groups';

const minute = 1_800_000_000_000;

function grouped(limit: number, ...events: ReturnType<typeof aBlocked>[]) {
  const groups = new Groups(limit);
  events.forEach((event, index) => groups.put(event, index + 1));
  return groups.newestFirst();
}

describe('groups', () => {
  it('put the repeats of one reason, device and minute into one line', () => {
    const [line, ...others] = grouped(
      9,
      aBlocked(1, { t_ms: minute }),
      aBlocked(2, { t_ms: minute + 59_999 }),
    );
    expect(others).toEqual([]);
    expect(line).toMatchObject({ count: 2, first_ms: minute, last_ms: minute + 59_999 });
  });

  it.each([
    ['minute', { t_ms: minute + 60_000 }],
    ['reason', { reason: 'replay' }],
    ['device', { device: 'device-002' }],
    ['outcome', { outcome: 'flagged' as const }],
    ['got in', { outcome: 'accepted' as const, got_in: true }],
  ])('keep another %s apart', (_, change) => {
    expect(grouped(9, aBlocked(1, { t_ms: minute }), aBlocked(2, { t_ms: minute, ...change }))).toHaveLength(
      2,
    );
  });

  it('keep the newest events only, and count them all', () => {
    const events = Array.from({ length: 1_000 }, (_, i) => aBlocked(i + 1));
    const [line] = grouped(9, ...events);
    expect(line?.count).toBe(1_000);
    expect(line?.samples).toHaveLength(SAMPLES);
    expect(line?.samples.at(-1)?.id).toBe(1_000);
  });

  it('let the oldest line go when there are too many', () => {
    const lines = grouped(3, ...[1, 2, 3, 4].map((id) => aBlocked(id, { device: `device-${id}` })));
    expect(lines.map((line) => line.samples[0]?.device)).toEqual(['device-4', 'device-3', 'device-2']);
  });

  it('search what any repeat said, within a bound', () => {
    const events = Array.from({ length: 500 }, (_, i) => aBlocked(i + 1, { detail: `detail ${i}` }));
    const [line] = grouped(9, ...events);
    expect(line?.search.any).toContain('detail 1');
    expect(line?.search.any.length).toBeLessThan(5_000);
    expect(line?.search.source.length).toBeLessThan(5_000);
  });

  it('keep the most unusual score', () => {
    const scores = [0.2, -0.3, -0.1];
    const [line] = grouped(9, ...scores.map((score, i) => aBlocked(i + 1, { score })));
    expect(line?.search.score).toBe(-0.3);
  });
});
