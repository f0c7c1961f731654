// Every frame is checked and copied member by member before the page uses it.

import { visible } from './format';
import {
  PROTOCOL_VERSION,
  type Alarm,
  type CertificateCounts,
  type CertificateRow,
  type CertificatesView,
  type ChannelView,
  type EventView,
  type Frame,
  type Hello,
  type IdentityChange,
  type IdentityView,
  type LayerCount,
  type LayerView,
  type RevocationList,
  type RevocationView,
  type SecondView,
  type ServerMessage,
  type SessionRow,
  type SessionsView,
  type SessionTls,
  type Totals,
  type ZoneView,
} from './protocol';

/** The longest lists and texts that the page keeps; what is beyond is cut. */
export const LIMITS = {
  layers: 32,
  zones: 64,
  channels: 16,
  seconds: 240,
  events: 2_000,
  notes: 16,
  certificates: 1_000,
  sessions: 500,
  revocationLists: 16,
  alarms: 20,
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

/** A list whose newest members, which are the last, are kept. */
function list<T>(item: Check<T>, max: number): Check<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new Mismatch(`${at} is not a list`);
    return value.slice(-max).map((each, index) => item(each, `${at}[${index}]`));
  };
}

/** A list whose first members matter most. */
function ranked<T>(item: Check<T>, max: number): Check<T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new Mismatch(`${at} is not a list`);
    return value.slice(0, max).map((each, index) => item(each, `${at}[${index}]`));
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

const role = oneOf('authority', 'server', 'gateway', 'operator', 'device');

const certificate = object<CertificateRow>({
  id: name,
  role,
  serial: name,
  not_before_ms: number,
  not_after_ms: number,
  state: oneOf('expired', 'expiring', 'valid', 'revoked', 'superseded'),
  authority: name,
});

const certificates = object<CertificatesView>({
  rows: ranked(certificate, LIMITS.certificates),
  counts: object<CertificateCounts>({
    valid: number,
    expiring: number,
    expired: number,
    revoked: number,
    superseded: number,
  }),
  left_out: number,
});

const session = object<SessionRow>({
  id: orNull(name),
  role: orNull(role),
  client_id: name,
  peer: name,
  since_ms: number,
  tls: orNull(
    object<SessionTls>({
      version: name,
      cipher: name,
      key_exchange: name,
      post_quantum: flag,
      resumed: flag,
    }),
  ),
});

const sessions = object<SessionsView>({
  rows: ranked(session, LIMITS.sessions),
  total: number,
  post_quantum: number,
  unencrypted: number,
  left_out: number,
});

const revocation = object<RevocationView>({
  lists: ranked(
    object<RevocationList>({
      authority: name,
      number: name,
      this_update_ms: number,
      next_update_ms: number,
      revoked: number,
    }),
    LIMITS.revocationLists,
  ),
});

const alarms = ranked(
  object<Alarm>({
    severity: oneOf('critical', 'warning', 'info'),
    text: sentence,
    remedy: sentence,
    since_ms: number,
  }),
  LIMITS.alarms,
);

const identity = object<IdentityView>({
  certificates: orNull(certificates),
  sessions: orNull(sessions),
  revocation: orNull(revocation),
  alarms,
});

const identityChange = object<IdentityChange>({
  certificates: orNull(certificates),
  sessions: orNull(sessions),
  revocation: orNull(revocation),
  alarms: orNull(alarms),
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
  identity,
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
  identity: orNull(identityChange),
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
