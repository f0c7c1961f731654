import { describe, expect, it } from 'vitest';
import { SECONDS, SecondSeries } from './seconds';

const second = (t: number, accepted: number, blocked = 0) => ({
  t,
  accepted,
  flagged: 0,
  blocked,
  got_in: 0,
});

describe('second series', () => {
  it('leaves the second that is still filling out of the chart but not out of the sum', () => {
    const series = new SecondSeries();
    for (const t of [100, 101, 102]) series.put(second(t, t));
    expect(series.columns(3)).toMatchObject({ t: [99, 100, 101], accepted: [null, 100, 101] });
    expect(series.sum('accepted', 60)).toBe(303);
  });

  it('takes a newer count of a second in place of the older', () => {
    const series = new SecondSeries();
    series.put(second(100, 1));
    series.put(second(100, 5));
    expect(series.sum('accepted', 60)).toBe(5);
  });

  it('forgets what is older than it holds', () => {
    const series = new SecondSeries();
    series.put(second(100, 7));
    series.put(second(100 + SECONDS, 1));
    expect(series.at(100)).toBeNull();
    series.put(second(100, 7));
    expect(series.at(100)).toBeNull();
    expect(series.at(100 + SECONDS)?.accepted).toBe(1);
  });

  it('fills the seconds in which nothing came with nothing', () => {
    const series = new SecondSeries();
    series.put(second(100, 7));
    series.advance(103);
    expect(series.columns(4).accepted).toEqual([null, 7, 0, 0]);
    series.advance(102);
    expect(series.newest).toBe(103);
  });

  it('does not walk through hours to catch up', () => {
    const series = new SecondSeries();
    series.put(second(100, 7));
    series.advance(100 + 1e9);
    expect(series.newest).toBe(100 + 1e9);
    expect(series.sum('accepted', SECONDS)).toBe(0);
  });
});
