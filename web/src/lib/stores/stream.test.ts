import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Traffic } from '../../../dev/traffic';
import { PROTOCOL_VERSION } from '../protocol';
import { Stream } from './stream.svelte';

class PlayedSocket {
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  close = vi.fn();

  say(message: object) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

let sockets: PlayedSocket[];
let addresses: string[];
let stream: Stream;
let traffic: Traffic;

const newest = () => {
  const socket = sockets.at(-1);
  if (!socket) throw new Error('no socket was opened');
  return socket;
};
const greet = (change: object = {}) =>
  newest().say({ type: 'hello', ...traffic.hello(stream.events.newest), ...change });

beforeEach(() => {
  vi.useFakeTimers({ now: 1_800_000_000_000 });
  sockets = [];
  addresses = [];
  traffic = new Traffic('mixed', Date.now());
  stream = new Stream({
    open: (address) => {
      addresses.push(address);
      const socket = new PlayedSocket();
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    random: () => 0,
  });
  stream.start();
});

afterEach(() => {
  stream.stop();
  vi.useRealTimers();
});

describe('stream', () => {
  it('fills the page from the greeting and goes on with frames', () => {
    greet();
    expect(stream.gateway.known).toBe(true);
    expect(stream.gateway.zones).toHaveLength(3);
    const before = stream.gateway.totals.accepted;
    newest().say({ type: 'frame', ...traffic.frame() });
    expect(stream.gateway.totals.accepted).toBeGreaterThan(before);
  });

  it('takes what changed of certificates and alarms, and keeps the rest', () => {
    greet();
    const { certificates, sessions } = stream.gateway.identity;
    expect(certificates?.rows.length).toBeGreaterThan(0);
    const alarm = { severity: 'warning', text: 'A reload was refused', remedy: '', since_ms: Date.now() };
    const nothing = { certificates: null, sessions: null, revocation: null };
    newest().say({ type: 'frame', ...traffic.frame(), identity: { ...nothing, alarms: [alarm] } });
    expect(stream.gateway.identity.alarms).toEqual([alarm]);
    expect(stream.gateway.identity.certificates).toBe(certificates);
    expect(stream.gateway.identity.sessions).toBe(sessions);
    newest().say({ type: 'frame', ...traffic.frame(), identity: { ...nothing, alarms: [] } });
    expect(stream.gateway.identity.alarms).toEqual([]);
  });

  it('sums the last minute and goes on from second to second', () => {
    greet();
    const { tick } = stream.gateway;
    for (let i = 0; i < 20; i += 1) newest().say({ type: 'frame', ...traffic.frame() });
    expect(stream.gateway.tick).toBe(tick + 2);
    expect(stream.gateway.minute.accepted).toBeGreaterThan(1_500);
  });

  it('asks for what came after the newest event when it comes back, and has no event twice', () => {
    greet();
    const last = stream.events.newest;
    expect(last).toBe(traffic.newest);
    vi.advanceTimersByTime(300);
    const counts = stream.events.lines.map((line) => line.count);
    newest().onclose?.();
    vi.advanceTimersByTime(300);
    expect(addresses.at(-1)).toContain(`?after=${last}`);
    newest().say({ type: 'hello', ...traffic.hello(null) });
    vi.advanceTimersByTime(300);
    expect(stream.events.lines.map((line) => line.count)).toEqual(counts);
  });

  it('starts the list anew when the gateway has lost its events', () => {
    greet();
    traffic = new Traffic('calm', Date.now());
    newest().onclose?.();
    vi.advanceTimersByTime(300);
    newest().say({ type: 'hello', ...traffic.hello(null) });
    expect(stream.events.newest).toBeNull();
    expect(stream.events.lines).toHaveLength(0);
  });

  it('stops with a gateway of another version', () => {
    greet({ version: PROTOCOL_VERSION + 1 });
    expect(stream.trouble).toEqual({
      kind: 'version',
      theirs: String(PROTOCOL_VERSION + 1),
      ours: PROTOCOL_VERSION,
    });
    expect(newest().close).toHaveBeenCalled();
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
  });

  it('says so when the greeting makes no sense, and recovers with one that does', () => {
    greet({ zones: 'none' });
    expect(stream.trouble?.kind).toBe('unreadable');
    greet();
    expect(stream.trouble).toBeNull();
  });

  it('counts a frame that it cannot read, and goes on', () => {
    greet();
    newest().say({ type: 'frame', t_ms: 'now' });
    newest().say({ type: 'weather' });
    expect(stream.unreadable).toBe(1);
    expect(stream.trouble).toBeNull();
  });

  it('uses no frame before the greeting', () => {
    newest().say({ type: 'frame', ...traffic.frame() });
    expect(stream.gateway.totals.accepted).toBe(0);
  });

  it('is disconnected when the gateway goes', () => {
    greet();
    newest().onclose?.();
    expect(stream.link.state).toBe('disconnected');
  });
});
