// A development aid: the invented hotel, its layers, and the attacks that are played against it.

import type { LayerView } from '../src/lib/protocol';

export interface Attack {
  reason: string;
  also?: string[];
  layer: string;
  outcome: 'blocked' | 'flagged' | 'notice';
  sentence: string;
  detail: string;
  expected?: string;
  /** Messages a second while it lasts. */
  rate: number;
  raw?: string;
}

export const ZONES = [
  { id: 'main_building', name: 'Main Building', device: 'device-001', pressure: 62, flow: 44 },
  { id: 'pool_spa', name: 'Pool & Spa', device: 'device-002', pressure: 58, flow: 31 },
  { id: 'kitchen', name: 'Kitchen & Laundry', device: 'device-003', pressure: 60, flow: 38 },
] as const;

export const LAYERS: readonly Omit<LayerView, 'on' | 'stopped'>[] = [
  {
    id: 'tls',
    name: 'Encrypted link',
    explains: 'Nobody reads along or changes bytes on the way, and devices know that the broker is ours',
  },
  {
    id: 'identity',
    name: 'Device certificates',
    explains: 'Only registered devices connect, and each may use its own topic alone',
  },
  {
    id: 'limits',
    name: 'Limits',
    explains: 'No sender can flood the system with size, rate or broken packets',
  },
  {
    id: 'format',
    name: 'Strict format',
    explains: 'A message has exactly the agreed form, or it is refused',
  },
  {
    id: 'signature',
    name: 'Signature',
    explains: 'Each message is signed with its device’s key: changed or invented ones do not match',
  },
  { id: 'freshness', name: 'Time window', explains: 'A message must be only seconds old' },
  {
    id: 'sequence',
    name: 'Sequence',
    explains: 'Every number is accepted once, so a recorded message cannot be played again',
  },
  {
    id: 'durability',
    name: 'Durable record',
    explains: 'Nothing is accepted before it is on disk, so a restart forgets nothing',
  },
  {
    id: 'detection',
    name: 'Anomaly detection',
    explains: 'Readings that do not fit the device’s normal behaviour are flagged',
  },
  { id: 'dashboard', name: 'Web doors', explains: 'Pages of other origins get no data' },
];

const READING =
  '{"device_id": "HYDROLOGIC-Device-002", "timestamp": "2025-06-01T10:00:00Z", "sequence": 4711, ' +
  '"readings": {"pressure_upstream": 250.0, "flow_rate": 31.2}, "status": "ok", "hmac": "' +
  '0f'.repeat(32) +
  '"}';

export const ATTACKS: readonly Attack[] = [
  {
    reason: 'bad_mac',
    layer: 'signature',
    outcome: 'blocked',
    sentence: 'The signature does not match the message',
    detail: 'pressure_upstream says 250.0, which the key of device-002 did not sign',
    rate: 3,
    raw: READING,
  },
  {
    reason: 'replay',
    also: ['stale'],
    layer: 'sequence',
    outcome: 'blocked',
    sentence: 'The message was accepted before',
    detail: 'sequence 4711 was accepted 42 s ago; the window begins at 4730',
    rate: 6,
    raw: READING,
  },
  {
    reason: 'acl_denied',
    layer: 'identity',
    outcome: 'blocked',
    sentence: 'The identity may not use this topic',
    detail: 'device-001 published on the topic of device-002',
    rate: 1,
  },
  {
    reason: 'anomaly',
    layer: 'detection',
    outcome: 'flagged',
    sentence: 'The reading does not fit the device’s normal behaviour',
    detail: 'head loss 3.1 PSI above what this flow explains',
    expected: 'a head loss of 6.2 to 7.9 PSI at a flow of 31 L/min',
    rate: 1,
  },
  {
    reason: 'gap',
    layer: 'sequence',
    outcome: 'notice',
    sentence: 'Messages before this one never arrived',
    detail: '4 sequence numbers are missing before 4820',
    rate: 0.5,
  },
];

export const FLOOD: Attack = {
  reason: 'rate_limited',
  layer: 'limits',
  outcome: 'blocked',
  sentence: 'The sender publishes faster than its quota',
  detail: 'more than 20 messages in one second',
  rate: 4_000,
};

export const HOSTILE: Attack = {
  reason: 'unknown_device',
  layer: 'identity',
  outcome: 'blocked',
  sentence: 'No such device is registered',
  detail: '"><script>alert(1)</script>',
  rate: 2,
  raw: '{"device_id": "<img src=x onerror=alert(1)>", "status": "</pre><svg onload=alert(1)>\u202egnp.exe"}',
};

/** A device’s name as an attacker would choose it. */
export const HOSTILE_NAME = '<img src=x onerror=alert(1)>';
