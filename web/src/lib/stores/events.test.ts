import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { aBlocked, anEvent } from '../../../dev/events';
import { ACCEPTED_LINES, ATTENTION_LINES, EventList, REDRAW_MS } from './events.svelte';

let list: EventList;
const devices = () => list.lines.map((line) => line.samples[0]?.device);
const draw = () => vi.advanceTimersByTime(REDRAW_MS);
const from = (id: number, device = `device-${id}`) => aBlocked(id, { device });

beforeEach(() => {
  vi.useFakeTimers();
  list = new EventList();
});

afterEach(() => {
  vi.useRealTimers();
});

describe('event list', () => {
  it('shows the newest line first, and only what the tab asks for', () => {
    list.add([from(1), anEvent({ device: 'device-9' }), from(2)]);
    draw();
    expect(devices()).toEqual(['device-2', 'device-1']);
    list.show('accepted');
    expect(devices()).toEqual(['device-9']);
    list.show('all');
    expect(devices()).toEqual(['device-2', 'device-9', 'device-1']);
  });

  it('is drawn at most four times a second', () => {
    list.add([from(1)]);
    draw();
    const before = list.drawn;
    for (let id = 2; id < 101; id += 1) {
      list.add([from(id)]);
      vi.advanceTimersByTime(10);
    }
    expect(list.drawn - before).toBeLessThanOrEqual(4);
  });

  it('leaves out what it has already', () => {
    list.add([from(1), from(2)]);
    list.add([from(1), from(2), from(3)]);
    list.add([anEvent({ t_ms: 5 })]);
    list.add([anEvent({ t_ms: 5 }), anEvent({ t_ms: 6 })]);
    list.show('all');
    expect(list.lines.map((line) => line.count)).toEqual([2, 1, 1, 1]);
    expect(list.newest).toBe(3);
  });

  it('takes a batch whose numbers are not in order', () => {
    list.add([from(3), from(1), from(2)]);
    draw();
    expect(list.lines).toHaveLength(3);
    expect(list.newest).toBe(3);
  });

  it('stands still while it is held, and counts what matches', () => {
    list.add([from(1)]);
    draw();
    list.hold('scroll');
    list.add([from(2), from(3), anEvent()]);
    draw();
    expect(devices()).toEqual(['device-1']);
    expect(list.waiting).toBe(2);
    list.resume();
    expect(devices()).toEqual(['device-3', 'device-2', 'device-1']);
    expect(list.waiting).toBe(0);
  });

  it('goes on only when every reason to stand still is gone', () => {
    list.add([from(1)]);
    draw();
    list.hold('scroll');
    list.open(list.lines[0]?.key ?? '');
    list.release('scroll');
    expect(list.frozen).toBe(true);
    list.close();
    expect(list.frozen).toBe(false);
  });

  it('shows nothing newer than where it stands when the question changes', () => {
    list.add([from(1), from(2)]);
    draw();
    list.open(list.lines[0]?.key ?? '');
    list.add([from(3)]);
    list.find('device');
    expect(devices()).toEqual(['device-2', 'device-1']);
    list.find('-device-1');
    expect(devices()).toEqual(['device-2']);
  });

  it('keeps an opened line as it was', () => {
    list.add([from(1, 'device-1')]);
    draw();
    list.open(list.lines[0]?.key ?? '');
    list.add([from(2, 'device-1')]);
    expect(list.opened?.count).toBe(1);
    expect(list.opened?.samples).toHaveLength(1);
  });

  it('moves by lines and stops at both ends', () => {
    expect(list.move(1)).toBeNull();
    list.add([from(1), from(2), from(3)]);
    draw();
    expect(list.move(1)).toBe(0);
    expect(list.move(1)).toBe(1);
    expect(list.move(Infinity)).toBe(2);
    expect(list.move(-Infinity)).toBe(0);
    expect(list.frozen).toBe(true);
  });

  it('opens the next line while one is open', () => {
    list.add([from(1), from(2)]);
    draw();
    list.open(list.lines[0]?.key ?? '');
    list.move(1);
    expect(list.opened?.samples[0]?.device).toBe('device-1');
  });

  it('keeps a bounded number of lines, and accepted ones push out no others', () => {
    for (let i = 0; i < ATTENTION_LINES + 50; i += 1) list.add([from(i + 1)]);
    for (let i = 0; i < ACCEPTED_LINES * 3; i += 1) {
      list.add([anEvent({ device: `device-${i}`, t_ms: i })]);
    }
    draw();
    expect(list.lines).toHaveLength(ATTENTION_LINES);
    expect(list.kept).toBe(ATTENTION_LINES + ACCEPTED_LINES);
  });

  it('makes one line of a flood', () => {
    for (let frame = 0; frame < 100; frame += 1) {
      list.add(Array.from({ length: 60 }, (_, i) => from(frame * 60 + i + 1, 'device-1')));
    }
    draw();
    expect(list.lines).toHaveLength(1);
    expect(list.lines[0]?.count).toBe(6_000);
  });

  it('says how many events were not listed', () => {
    list.skip(0);
    list.skip(40);
    list.skip(2);
    draw();
    expect(list.unlisted).toBe(42);
  });

  it('forgets everything when the gateway counts anew', () => {
    list.add([from(7)]);
    draw();
    list.open(list.lines[0]?.key ?? '');
    list.clear();
    expect([list.lines.length, list.opened, list.newest, list.frozen]).toEqual([0, null, null, false]);
    list.add([from(1)]);
    draw();
    expect(devices()).toEqual(['device-1']);
  });
});
