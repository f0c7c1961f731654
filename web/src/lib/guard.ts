// Every frame is checked and copied member by member before the page uses it.

import { visible } from './format';
import {
  PROTOCOL_VERSION,
  type ChannelView,
  type EventView,
  type Frame,
  type Hello,
  type LayerCount,
  type LayerView,
  type SecondView,
  type ServerMessage,
  type Totals,
  type ZoneView,
} from './protocol';

/** The longest lists and texts that the page keeps; what is beyond is cut, the newest is kept. */
export const LIMITS = {
  layers: 32,
  zones: 64,
  channels: 16,
  seconds: 240,
  events: 2_000,
  notes: 16,
  reasons: 16,
  name: 120,
  sentence: 600,
  raw: 2_048,
};

/** What came of reading one frame. */
export type Reading =
  | { kind: 'message'; message: ServerMessage }
  /** A stream of another version: the page has to be loaded again. */
  | { kind: 'version'; version: unknown }
  /** A kind of message that this version does not know; it may be ignored. */
  | { kind: 'unknown' }
  | { kind: 'unreadable'; why: string };

class Mismatch extends Error {}

type Check<T> = (value: unknown, at: string) => T;

const number: Check<number> = (value, at) => {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new Mismatch(`${at} is not a number`);
  return value;
};

const flag: Check<boolean> = (value, at) => {
  if (typeof value !== 'boolean') throw new Mismatch(`${at} is not true or false`);
  return value;
};

function text(max: number): Check<string> {
  return (value, at) => {
    if (typeof value !== 'string') throw new Mismatch(`${at} is not text`);
    return visible(value, max);
  };
}

function oneOf<T extends string>(...allowed: readonly T[]): Check<T> {
  return (value, at) => {
    const found = allowed.find((item) => item === value);
    if (found === undefined) throw new Mismatch(`${at} is none of ${allowed.join(', ')}`);
    return found;
  };
}

function orNull<T>(check: Check<T>): Check<T | null> {
  return (value, at) => (value === null || value === undefined ? null : check(value, at));
}

function list<T>(item: Check<T>, max: number): Check<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new Mismatch(`${at} is not a list`);
    return value.slice(-max).map((each, index) => item(each, `${at}[${index}]`));
  };
}

function members(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Mismatch(`${at} is not an object`);
  }
  return value as Record<string, unknown>;
}

function record<T>(item: Check<T>, max: number): Check<Record<string, T>> {
  return (value, at) => {
    const entries = Object.entries(members(value, at)).slice(0, max);
    return Object.fromEntries(
      entries.map(([name, each]) => [visible(name, LIMITS.name), item(each, `${at}.${name}`)]),
    );
  };
}

function object<T>(shape: { [Name in keyof T]-?: Check<T[Name]> }): Check<T> {
  const names = Object.keys(shape) as (keyof T & string)[];
  return (value, at) => {
    const from = members(value, at);
    const made: Partial<T> = {};
    for (const name of names) made[name] = shape[name](from[name], `${at}.${name}`);
    return made as T;
  };
}

const name = text(LIMITS.name);
const sentence = text(LIMITS.sentence);

const totals = object<Totals>({ accepted: number, flagged: number, blocked: number, got_in: number });

const second = object<SecondView>({
  t: number,
  accepted: number,
  flagged: number,
  blocked: number,
  got_in: number,
});

const zone = object<ZoneView>({
  id: name,
  name,
  devices: number,
  active: number,
  status: oneOf('normal', 'attention', 'attack', 'silent', 'waiting'),
  sentence,
  channels: record(object<ChannelView>({ value: number, unit: name }), LIMITS.channels),
  accepted: number,
  flagged: number,
  blocked: number,
});

const layer = object<LayerView>({ id: name, name, explains: sentence, on: flag, stopped: number });
const layerCount = object<LayerCount>({ id: name, stopped: number });

const event = object<EventView>({
  id: number,
  t_ms: number,
  outcome: oneOf('accepted', 'flagged', 'blocked', 'notice'),
  got_in: flag,
  reason: name,
  also: list(name, LIMITS.reasons),
  sentence,
  detail: sentence,
  device: orNull(name),
  zone: orNull(name),
  topic: orNull(name),
  source: orNull(name),
  sequence: orNull(number),
  score: orNull(number),
  channels: record(number, LIMITS.channels),
  layer: orNull(name),
  raw: orNull(text(LIMITS.raw)),
  protected: flag,
  expected: orNull(sentence),
});

const hello = object<Hello>({
  version: number,
  level: name,
  demo: flag,
  site: name,
  server_time_ms: number,
  started_ms: number,
  layers: list(layer, LIMITS.layers),
  zones: list(zone, LIMITS.zones),
  totals,
  seconds: list(second, LIMITS.seconds),
  events: list(event, LIMITS.events),
  missed: number,
  resume_from: number,
  device_count: number,
  unprotected: flag,
  notes: list(sentence, LIMITS.notes),
});

const frame = object<Frame>({
  t_ms: number,
  rate: number,
  behind_ms: number,
  totals,
  seconds: list(second, LIMITS.seconds),
  zones: list(zone, LIMITS.zones),
  layers: list(layerCount, LIMITS.layers),
  events: list(event, LIMITS.events),
  dropped: number,
});

/** Reads one frame of the stream; it never throws, whatever came. */
export function read(data: unknown): Reading {
  try {
    if (typeof data !== 'string') throw new Mismatch('the frame is not text');
    const value = members(JSON.parse(data), 'message');
    switch (value['type']) {
      case 'hello':
        if (value['version'] !== PROTOCOL_VERSION) return { kind: 'version', version: value['version'] };
        return { kind: 'message', message: { type: 'hello', ...hello(value, 'hello') } };
      case 'frame':
        return { kind: 'message', message: { type: 'frame', ...frame(value, 'frame') } };
      default:
        return { kind: 'unknown' };
    }
  } catch (error) {
    return { kind: 'unreadable', why: error instanceof Error ? error.message : 'it could not be read' };
  }
}
