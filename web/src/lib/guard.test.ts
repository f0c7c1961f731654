import { describe, expect, it } from 'vitest';
import { Traffic } from '../../dev/traffic';
import { LIMITS, read } from './guard';
import { PROTOCOL_VERSION } from './protocol';

const traffic = new Traffic('mixed', 1_800_000_000_000);
const hello = () => structuredClone({ type: 'hello', ...traffic.hello(null) });
const frame = () => structuredClone({ type: 'frame', ...traffic.frame() });
const check = (value: unknown) => read(JSON.stringify(value));

describe('guard', () => {
  it('takes a hello and a frame as they are', () => {
    for (const sent of [hello(), frame()]) {
      expect(check(sent)).toEqual({ kind: 'message', message: sent });
    }
  });

  it('cuts certificates, sessions and alarms at their end, and refuses a state that it does not know', () => {
    const sent = hello();
    const { certificates, sessions } = sent.identity;
    if (!certificates || !sessions) throw new Error('the scenario has both');
    const [row] = certificates.rows;
    const [session] = sessions.rows;
    if (!row || !session) throw new Error('the scenario has some');
    certificates.rows = Array.from({ length: 3_000 }, (_, at) => ({ ...row, serial: String(at) }));
    sessions.rows = Array.from({ length: 3_000 }, () => session);
    const reading = check(sent);
    if (reading.kind !== 'message' || reading.message.type !== 'hello') throw new Error(reading.kind);
    const read = reading.message.identity;
    expect(read.certificates?.rows).toHaveLength(LIMITS.certificates);
    expect(read.certificates?.rows[0]?.serial).toBe('0');
    expect(read.sessions?.rows).toHaveLength(LIMITS.sessions);
    Object.assign(certificates, { rows: [{ ...row, state: 'superb' }] });
    expect(check(sent).kind).toBe('unreadable');
  });

  it('makes what hides in a client id visible', () => {
    const sent = hello();
    const session = sent.identity.sessions?.rows[0];
    if (!session) throw new Error('the scenario has some');
    session.client_id = 'a\u202eb<i>';
    const reading = check(sent);
    if (reading.kind !== 'message' || reading.message.type !== 'hello') throw new Error(reading.kind);
    expect(reading.message.identity.sessions?.rows[0]?.client_id).toBe('a\\u202eb<i>');
  });

  it('leaves out members that it does not know', () => {
    const reading = check({ ...frame(), extra: '<script>' });
    expect(reading.kind === 'message' && 'extra' in reading.message).toBe(false);
  });

  it('names the version of a stream that it does not speak', () => {
    const version = PROTOCOL_VERSION + 1;
    expect(check({ ...hello(), version })).toEqual({ kind: 'version', version });
    expect(check({ type: 'hello' })).toEqual({ kind: 'version', version: undefined });
  });

  it('ignores a kind of message that it does not know', () => {
    expect(check({ type: 'weather' })).toEqual({ kind: 'unknown' });
  });

  it.each([
    ['not JSON', '{'],
    ['a number', '7'],
    ['null', 'null'],
    ['a list', '[]'],
  ])('does not read %s', (_, data) => {
    expect(read(data).kind).toBe('unreadable');
  });

  it('does not read a binary frame', () => {
    expect(read(new ArrayBuffer(4)).kind).toBe('unreadable');
  });

  it.each([
    ['rate', 'many'],
    ['t_ms', null],
    ['totals', { accepted: 1 }],
    ['seconds', {}],
    ['zones', [{ id: 'pool' }]],
    ['events', [7]],
    ['dropped', true],
  ])('says which member is wrong: %s', (name, value) => {
    const reading = check({ ...frame(), [name]: value });
    expect(reading.kind === 'unreadable' && reading.why).toContain(`frame.${name}`);
  });

  it('keeps the newest of a list that is too long', () => {
    const [first] = traffic.hello(null).events.filter((event) => event.id > 0);
    if (!first) throw new Error('the scenario plays no event');
    const events = Array.from({ length: LIMITS.events + 5 }, (_, i) => ({ ...first, id: i + 1 }));
    const reading = check({ ...frame(), events });
    if (reading.kind !== 'message') throw new Error('not read');
    expect(reading.message.events).toHaveLength(LIMITS.events);
    expect(reading.message.events.at(-1)?.id).toBe(LIMITS.events + 5);
  });

  it('makes hidden characters of a device name visible and cuts it', () => {
    const [event] = traffic.hello(null).events;
    const device = `\u202e${'x'.repeat(500)}`;
    const reading = check({ ...frame(), events: [{ ...event, device }] });
    if (reading.kind !== 'message') throw new Error('not read');
    const name = reading.message.events[0]?.device ?? '';
    expect(name.startsWith('\\u202exxx')).toBe(true);
    expect(name.length).toBeLessThan(LIMITS.name + 10);
  });

  it('does not let a channel named __proto__ reach a prototype', () => {
    const [zone] = traffic.hello(null).zones;
    const channels = JSON.parse('{"__proto__": {"value": 1, "unit": "PSI"}}') as unknown;
    const reading = check({ ...frame(), zones: [{ ...zone, channels }] });
    if (reading.kind !== 'message') throw new Error('not read');
    const made = reading.message.zones[0]?.channels ?? {};
    expect(Object.getPrototypeOf(made)).toBe(Object.prototype);
    expect(Object.keys(made)).toEqual(['__proto__']);
  });
});
