// How numbers, units, times and text from devices are written on the page.

import type {
  AlarmSeverity,
  CertificateRole,
  CertificateState,
  EventOutcome,
  EventView,
  ZoneStatus,
} from './protocol';

/** Shown where a value is not known. */
export const NONE = '–';

const whole = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });

/** A count in full: `12,345`. */
export function count(value: number): string {
  return Number.isFinite(value) ? whole.format(value) : NONE;
}

/** A count in little room: `9,999`, `12.3k`, `4.56M`. */
export function compact(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size < 10_000) return whole.format(value);
  if (size < 999_500) return `${(value / 1e3).toFixed(size < 99_950 ? 1 : 0)}k`;
  if (size < 999_500_000) return `${(value / 1e6).toFixed(size < 99_950_000 ? 2 : 0)}M`;
  return `${(value / 1e9).toFixed(2)}G`;
}

/** A count with its noun: `1 message`, `2 messages`. */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A rate per second: one decimal where the whole number would hide a change. */
export function rate(perSecond: number): string {
  if (!Number.isFinite(perSecond)) return NONE;
  if (perSecond > 0 && perSecond < 9.95) return perSecond.toFixed(1);
  return compact(Math.round(perSecond));
}

/** A measured value, with as many decimals as its size deserves. */
export function measure(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2);
  if (size >= 1000) return whole.format(value);
  return value.toFixed(size >= 100 ? 1 : 2);
}

/** An anomaly score, with two decimals. */
export function score(value: number): string {
  return Number.isFinite(value) ? value.toFixed(2) : NONE;
}

const CHANNELS: Record<string, { label: string; unit: string }> = {
  pressure_upstream: { label: 'Upstream pressure', unit: 'PSI' },
  pressure_downstream: { label: 'Downstream pressure', unit: 'PSI' },
  pressure_psi: { label: 'Pressure', unit: 'PSI' },
  flow_rate: { label: 'Flow', unit: 'L/min' },
  flow_rate_lpm: { label: 'Flow', unit: 'L/min' },
  flow_rate_gpm: { label: 'Flow', unit: 'gal/min' },
  gate_a_position: { label: 'Gate A', unit: '%' },
  gate_b_position: { label: 'Gate B', unit: '%' },
  valve_position: { label: 'Valve', unit: '%' },
  temperature_f: { label: 'Temperature', unit: '°F' },
};

/** The name of a channel for people: `Flow` for `flow_rate`. */
export function channelLabel(name: string): string {
  const known = Object.hasOwn(CHANNELS, name) ? CHANNELS[name] : undefined;
  if (known) return known.label;
  const words = name.replaceAll('_', ' ').trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The usual unit of a channel, where an event carries only its value. */
export function channelUnit(name: string): string {
  return Object.hasOwn(CHANNELS, name) ? (CHANNELS[name]?.unit ?? '') : '';
}

const two = (value: number) => String(value).padStart(2, '0');

/** A time of day here: `16:01:05`. */
export function clock(ms: number): string {
  if (!Number.isFinite(ms)) return NONE;
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** A time of day here, to the millisecond: `16:01:05.042`. */
export function clockMs(ms: number): string {
  if (!Number.isFinite(ms)) return NONE;
  return `${clock(ms)}.${String(new Date(ms).getMilliseconds()).padStart(3, '0')}`;
}

/** A length of time in its two largest units: `850 ms`, `42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return NONE;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = Math.floor(ms / 1000);
  const pair = (large: number, one: string, small: number, other: string) =>
    small ? `${large} ${one} ${small} ${other}` : `${large} ${one}`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return pair(Math.floor(seconds / 60), 'min', seconds % 60, 's');
  if (seconds < 86_400)
    return pair(Math.floor(seconds / 3600), 'h', Math.floor((seconds % 3600) / 60), 'min');
  return pair(Math.floor(seconds / 86_400), 'd', Math.floor((seconds % 86_400) / 3600), 'h');
}

const DAY_MS = 86_400_000;

/** How long something long lasts: whole days above a month, whole years above two. */
function longSpan(ms: number): string {
  const days = Math.floor(ms / DAY_MS);
  if (days >= 730) return `${Math.floor(days / 365)} years`;
  return days >= 31 ? `${days} days` : duration(ms);
}

/** The time to a moment, as words: `in 5 d 3 h`, `in 90 days`, `3 d 2 h ago`. */
export function remaining(ms: number): string {
  if (!Number.isFinite(ms)) return NONE;
  return ms < 0 ? `${longSpan(-ms)} ago` : `in ${longSpan(ms)}`;
}

const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

/** A moment here, to the minute: `24 Nov 2026, 16:01`. */
export function moment(ms: number): string {
  // Beyond it there is no date (ECMA-262 §21.4.1.1).
  if (!Number.isFinite(ms) || Math.abs(ms) > 8.64e15) return NONE;
  return `${day.format(ms)}, ${clock(ms).slice(0, 5)}`;
}

/** A moment near now: its time of day, and its date where that is not today. */
export function since(ms: number, now_ms: number): string {
  const today = new Date(ms).toDateString() === new Date(now_ms).toDateString();
  return today ? clock(ms) : moment(ms);
}

/** `a`, `a and b`, `a, b and c`. */
export function sequence(parts: readonly string[]): string {
  if (parts.length < 2) return parts[0] ?? '';
  return `${parts.slice(0, -1).join(', ')} and ${parts[parts.length - 1]}`;
}

/** What became of a message, as the page shows it: one that got in is told apart from the accepted. */
export type Kind = EventOutcome | 'got_in';

export function kindOf(event: Pick<EventView, 'outcome' | 'got_in'>): Kind {
  return event.got_in ? 'got_in' : event.outcome;
}

export const KINDS: Record<Kind, string> = {
  accepted: 'Accepted',
  flagged: 'Flagged',
  blocked: 'Blocked',
  got_in: 'Got in',
  notice: 'Notice',
};

export const STATUSES: Record<ZoneStatus, string> = {
  normal: 'Normal',
  attention: 'Needs attention',
  attack: 'Under attack',
  silent: 'Silent',
  waiting: 'Waiting',
};

export const CERTIFICATE_STATES: Record<CertificateState, string> = {
  valid: 'Valid',
  expiring: 'Ends soon',
  expired: 'Expired',
  revoked: 'Revoked',
  superseded: 'Replaced',
};

export const ROLES: Record<CertificateRole, string> = {
  authority: 'Authority',
  server: 'Server',
  gateway: 'Gateway',
  operator: 'Operator',
  device: 'Device',
};

export const SEVERITIES: Record<AlarmSeverity, string> = {
  critical: 'Act now',
  warning: 'Act soon',
  info: 'Good to know',
};

const LEVELS: Record<string, string> = {
  plain: 'Plain',
  tls: 'TLS',
  mtls: 'Mutual TLS',
  signed: 'Signed',
  dashboard: 'Signed, monitored',
  ai: 'Signed, monitored, AI',
};

/** A level's name for people. */
export function levelLabel(level: string): string {
  return Object.hasOwn(LEVELS, level) ? (LEVELS[level] ?? level) : level;
}

// Control characters, zero-width characters, and those that turn the direction of writing.
const UNSEEN =
  // eslint-disable-next-line no-control-regex -- finding them is the point
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/**
 * Text from outside with every character that could hide or reorder the rest made visible
 * (`\u202e`), and cut to `max` characters. It stays text: nothing on the page reads it as markup.
 */
export function visible(text: string, max: number): string {
  const cut = text.length > max ? `${text.slice(0, max - 1)}…` : text;
  return cut.replace(UNSEEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
