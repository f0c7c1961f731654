// Joins the socket, the guard and the stores: every message of the gateway passes through here.

import { read } from '../guard';
import { PROTOCOL_VERSION, type ServerMessage } from '../protocol';
import { StreamSocket, type Link, type SocketOptions } from '../socket';
import { EventList } from './events.svelte';
import { Gateway } from './gateway.svelte';

/** Why the page cannot go on by itself. */
export type Trouble =
  | { kind: 'version'; theirs: string; ours: number }
  /** The gateway's greeting itself was not understood. */
  | { kind: 'unreadable'; why: string };

export class Stream {
  link = $state.raw<Link>({
    state: 'connecting',
    since_ms: 0,
    heard_ms: null,
    retry_ms: null,
    failures: 0,
  });
  trouble = $state.raw<Trouble | null>(null);
  /** Messages that were not understood and left out. */
  unreadable = $state(0);
  readonly gateway = new Gateway();
  readonly events = new EventList((id) => this.gateway.zoneName(id));
  #socket: StreamSocket;
  #greeted = false;

  constructor(options: Partial<SocketOptions> = {}) {
    this.#socket = new StreamSocket({
      address: streamAddress,
      after: () => this.events.newest,
      message: (data) => this.#take(data),
      changed: (link) => {
        this.link = link;
        if (link.state === 'disconnected' || link.state === 'connecting') this.#greeted = false;
      },
      ...options,
    });
  }

  start(): void {
    this.#socket.start();
  }

  stop(): void {
    this.#socket.stop();
  }

  retryNow(): void {
    this.#socket.retryNow();
  }

  #take(data: unknown): void {
    const reading = read(data);
    switch (reading.kind) {
      case 'message':
        this.#apply(reading.message);
        return;
      case 'version':
        this.trouble = {
          kind: 'version',
          theirs: String(reading.version).slice(0, 20),
          ours: PROTOCOL_VERSION,
        };
        this.#socket.stop();
        return;
      case 'unreadable':
        this.unreadable += 1;
        if (!this.#greeted) this.trouble = { kind: 'unreadable', why: reading.why };
        return;
      case 'unknown':
        return;
    }
  }

  #apply(message: ServerMessage): void {
    if (message.type === 'hello') {
      this.#greeted = true;
      this.trouble = null;
      const { newest } = this.events;
      // A gateway whose newest event is older than ours has lost its store: ours belong to another life.
      if (newest !== null && message.resume_from < newest) this.events.clear();
      this.gateway.hello(message);
      this.events.add(message.events);
      this.events.skip(message.missed);
    } else if (this.#greeted) {
      this.gateway.frame(message);
      this.events.add(message.events);
      this.events.skip(message.dropped);
    }
  }
}

/** The stream's address beside this page. */
function streamAddress(after: number | null): string {
  const { protocol, host } = window.location;
  const scheme = protocol === 'https:' ? 'wss' : 'ws';
  const query = after === null ? '' : `?after=${after}`;
  return `${scheme}://${host}/api/v1/stream${query}`;
}
