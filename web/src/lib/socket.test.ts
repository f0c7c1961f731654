import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  DEAD_AFTER_MS,
  FIRST_RETRY_MS,
  LONGEST_RETRY_MS,
  retryDelay,
  STALE_AFTER_MS,
  StreamSocket,
  type Link,
} from './socket';

class PlayedSocket {
  static all: PlayedSocket[] = [];
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  closed = false;

  constructor(readonly address: string) {
    PlayedSocket.all.push(this);
  }

  close() {
    this.closed = true;
  }
}

let after: number | null;
let heard: unknown[];
let links: Link[];

function start(): StreamSocket {
  const socket = new StreamSocket({
    address: (id) => `ws://gateway/stream?after=${id}`,
    after: () => after,
    message: (data) => heard.push(data),
    changed: (link) => links.push(link),
    open: (address) => new PlayedSocket(address) as unknown as WebSocket,
    random: () => 0,
  });
  socket.start();
  return socket;
}

const newest = () => {
  const socket = PlayedSocket.all.at(-1);
  if (!socket) throw new Error('no socket was opened');
  return socket;
};
const say = (data: string) => newest().onmessage?.({ data });

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  PlayedSocket.all = [];
  after = null;
  heard = [];
  links = [];
});

afterEach(() => {
  vi.useRealTimers();
});

describe('stream socket', () => {
  it('is connecting until the first message, then live', () => {
    const socket = start();
    expect(socket.link.state).toBe('connecting');
    say('hello');
    expect(socket.link).toMatchObject({ state: 'live', heard_ms: 1_000_000, failures: 0 });
    expect(heard).toEqual(['hello']);
  });

  it('is stale after two seconds without a message, and live again with the next', () => {
    const socket = start();
    say('hello');
    vi.advanceTimersByTime(STALE_AFTER_MS - 1);
    expect(socket.link.state).toBe('live');
    vi.advanceTimersByTime(1);
    expect(socket.link.state).toBe('stale');
    expect(socket.link.heard_ms).toBe(1_000_000);
    say('frame');
    expect(socket.link.state).toBe('live');
  });

  it('stays live while messages come', () => {
    const socket = start();
    for (let i = 0; i < 100; i += 1) {
      say('frame');
      vi.advanceTimersByTime(STALE_AFTER_MS - 1);
    }
    expect(socket.link.state).toBe('live');
    expect(links.map((link) => link.state)).toEqual(['connecting', 'live']);
  });

  it('gives up a stream that stays silent, and opens another', () => {
    const socket = start();
    say('hello');
    const first = newest();
    vi.advanceTimersByTime(DEAD_AFTER_MS);
    expect(socket.link.state).toBe('disconnected');
    expect(first.closed).toBe(true);
    vi.advanceTimersByTime(FIRST_RETRY_MS);
    expect(PlayedSocket.all).toHaveLength(2);
  });

  it('gives up an attempt that is never answered', () => {
    const socket = start();
    vi.advanceTimersByTime(DEAD_AFTER_MS);
    expect(socket.link).toMatchObject({ state: 'disconnected', failures: 1, heard_ms: null });
  });

  it('goes on after the newest event that the page has', () => {
    start();
    expect(newest().address).toBe('ws://gateway/stream?after=null');
    say('hello');
    after = 42;
    newest().onclose?.();
    vi.advanceTimersByTime(FIRST_RETRY_MS);
    expect(newest().address).toBe('ws://gateway/stream?after=42');
  });

  it('is disconnected at once when the stream closes, and says when it tries again', () => {
    const socket = start();
    say('hello');
    newest().onclose?.();
    expect(socket.link).toMatchObject({
      state: 'disconnected',
      since_ms: 1_000_000,
      retry_ms: 1_000_000 + FIRST_RETRY_MS,
    });
  });

  it('stays disconnected during attempts until a message comes', () => {
    const socket = start();
    say('hello');
    newest().onclose?.();
    vi.advanceTimersByTime(FIRST_RETRY_MS);
    expect(socket.link).toMatchObject({ state: 'disconnected', retry_ms: null });
    say('hello');
    expect(socket.link).toMatchObject({ state: 'live', failures: 0 });
  });

  it('waits twice as long after each failure, up to the longest wait', () => {
    start();
    const waits: number[] = [];
    for (let i = 0; i < 9; i += 1) {
      newest().onclose?.();
      const { retry_ms } = links.at(-1) ?? {};
      const wait = (retry_ms ?? 0) - Date.now();
      waits.push(wait);
      vi.advanceTimersByTime(wait);
    }
    expect(waits).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
  });

  it('takes up to half of a wait off at random', () => {
    expect(retryDelay(3, () => 0)).toBe(1_000);
    expect(retryDelay(3, () => 1)).toBe(500);
  });

  it('tries at once when asked, and only when it waits', () => {
    const socket = start();
    socket.retryNow();
    expect(PlayedSocket.all).toHaveLength(1);
    newest().onclose?.();
    socket.retryNow();
    expect(PlayedSocket.all).toHaveLength(2);
    vi.advanceTimersByTime(FIRST_RETRY_MS);
    expect(PlayedSocket.all).toHaveLength(2);
  });

  it('hears nothing more from a stream that it has given up', () => {
    start();
    const late = newest().onmessage;
    newest().onclose?.();
    late?.({ data: 'late' });
    expect(heard).toEqual([]);
  });

  it('tries no more once it is stopped', () => {
    const socket = start();
    newest().onclose?.();
    socket.stop();
    vi.advanceTimersByTime(LONGEST_RETRY_MS);
    expect(PlayedSocket.all).toHaveLength(1);
  });
});
