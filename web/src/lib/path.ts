// How far an event's message came through the defence layers.

import { kindOf } from './format';
import type { EventView, LayerView } from './protocol';

export type Step = 'passed' | 'stopped' | 'flagged' | 'got_in' | 'noticed' | 'off' | 'unreached';

export const STEPS: Record<Step, string> = {
  passed: 'passed',
  stopped: 'stopped here',
  flagged: 'flagged here',
  got_in: 'off: got in here',
  noticed: 'noticed here',
  off: 'off',
  unreached: 'not reached',
};

export interface PathStep {
  id: string;
  name: string;
  step: Step;
}

/** The web server's own doors: a page meets this layer, a message does not. */
const WEB = 'dashboard';

/** Each layer with what it did, in the order in which the message met them; empty where there was no path. */
export function pathOf(event: EventView, layers: readonly LayerView[]): PathStep[] {
  const met = layers.filter((layer) => (layer.id === WEB) === (event.layer === WEB));
  const at = met.findIndex((layer) => layer.id === event.layer);
  if (at < 0 && event.outcome !== 'accepted') return [];
  return met.map((layer, index) => ({
    id: layer.id,
    name: layer.name,
    step: step(event, layer, index - at),
  }));
}

function step(event: EventView, layer: LayerView, beyond: number): Step {
  const kind = kindOf(event);
  if (event.layer !== null && beyond === 0) {
    if (kind === 'blocked') return 'stopped';
    if (kind === 'notice') return 'noticed';
    if (kind !== 'accepted') return kind;
  }
  if (event.layer !== null && beyond > 0 && kind === 'blocked') return 'unreached';
  return layer.on ? 'passed' : 'off';
}
