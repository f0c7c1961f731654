// A development aid: single events for tests.

import type { EventView } from '../src/lib/protocol';

/** An accepted reading, with what the test changes. */
export function anEvent(change: Partial<EventView> = {}): EventView {
  return {
    id: 0,
    t_ms: 1_800_000_000_000,
    outcome: 'accepted',
    got_in: false,
    reason: '',
    also: [],
    sentence: 'The reading was accepted',
    detail: '',
    device: 'device-001',
    zone: 'main_building',
    topic: 'hydroficient/grandmarina/device-001/sensors',
    source: null,
    sequence: null,
    score: null,
    channels: {},
    layer: null,
    raw: null,
    protected: true,
    expected: null,
    ...change,
  };
}

/** A blocked message, with what the test changes. */
export function aBlocked(id: number, change: Partial<EventView> = {}): EventView {
  return anEvent({
    id,
    outcome: 'blocked',
    reason: 'bad_mac',
    sentence: 'The signature does not match the message',
    layer: 'signature',
    protected: false,
    ...change,
  });
}
