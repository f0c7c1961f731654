import { expect, it } from 'vitest';
import { LAYERS } from '../../dev/scenery';
import { anEvent } from '../../dev/events';
import { pathOf } from './path';
import type { EventView } from './protocol';

const layers = LAYERS.map((layer) => ({ ...layer, on: layer.id !== 'signature', stopped: 0 }));
const steps = (event: Partial<EventView>) =>
  Object.fromEntries(pathOf(anEvent(event), layers).map(({ id, step }) => [id, step]));

it('shows where a blocked message was stopped, and what it never reached', () => {
  expect(steps({ outcome: 'blocked', layer: 'sequence' })).toMatchObject({
    tls: 'passed',
    signature: 'off',
    freshness: 'passed',
    sequence: 'stopped',
    detection: 'unreached',
  });
});

it('shows every layer behind a flagged message as passed', () => {
  expect(steps({ outcome: 'flagged', layer: 'detection' })).toMatchObject({
    durability: 'passed',
    detection: 'flagged',
  });
});

it('shows through which layer an attack got in', () => {
  expect(steps({ outcome: 'accepted', got_in: true, layer: 'signature' })).toMatchObject({
    signature: 'got_in',
    freshness: 'passed',
  });
});

it('shows an accepted message as passed by every layer that is on', () => {
  expect(steps({ outcome: 'accepted' })).toMatchObject({ tls: 'passed', signature: 'off' });
});

it('leaves the door of web pages out of the path of a message', () => {
  expect(steps({ outcome: 'blocked', layer: 'tls' })).not.toHaveProperty('dashboard');
  expect(steps({ outcome: 'blocked', layer: 'dashboard' })).toEqual({ dashboard: 'stopped' });
});

it('shows no path where none is known', () => {
  expect(steps({ outcome: 'notice', layer: null })).toEqual({});
  expect(steps({ outcome: 'blocked', layer: 'moat' })).toEqual({});
});
