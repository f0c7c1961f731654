// One stream to the gateway that comes back by itself and always says how fresh it is.

/** A stream that has sent nothing for this long is called stale. */
export const STALE_AFTER_MS = 2_000;
/** A stream that has sent nothing for this long is given up and opened again. */
export const DEAD_AFTER_MS = 6_000;
/** The wait before the first new attempt; it doubles up to the longest. */
export const FIRST_RETRY_MS = 250;
export const LONGEST_RETRY_MS = 10_000;

/** How the page is joined to the gateway at this moment. */
export interface Link {
  /** `connecting` until the first message; `disconnected` between attempts, and during later ones. */
  state: 'connecting' | 'live' | 'stale' | 'disconnected';
  /** When it came into this state. */
  since_ms: number;
  /** When the last message came, or null when none has. */
  heard_ms: number | null;
  /** When the next attempt begins, or null while one is under way. */
  retry_ms: number | null;
  /** Attempts that have failed since a message last came. */
  failures: number;
}

export interface SocketOptions {
  /** The address for the stream that goes on after this event; null at the first time. */
  address: (after: number | null) => string;
  /** The newest event that the page has. */
  after: () => number | null;
  /** Called with every message, as it came. */
  message: (data: unknown) => void;
  /** Called when the link changes. */
  changed: (link: Link) => void;
  /** How a socket is opened; tests bring their own. */
  open?: (address: string) => WebSocket;
  /** From 0 to 1, for the jitter. */
  random?: () => number;
}

/** The wait before attempt `failures + 1`: doubling, with up to a half taken off at random. */
export function retryDelay(failures: number, random: () => number): number {
  const full = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.max(0, failures - 1));
  return Math.round(full * (1 - random() / 2));
}

/** The reconnecting socket. It holds no message: what it hears, it hands on. */
export class StreamSocket {
  link: Link = { state: 'connecting', since_ms: Date.now(), heard_ms: null, retry_ms: null, failures: 0 };
  #options: Required<SocketOptions>;
  #socket: WebSocket | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #stopped = true;

  constructor(options: SocketOptions) {
    this.#options = { open: (address) => new WebSocket(address), random: Math.random, ...options };
  }

  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#open();
  }

  /** Closes the stream for good; `start` opens it again. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#drop();
  }

  /** Tries at once instead of waiting; does nothing while a stream is open or opening. */
  retryNow(): void {
    if (this.#stopped || this.#socket) return;
    clearTimeout(this.#retry);
    this.#open();
  }

  #open(): void {
    this.#set({ retry_ms: null });
    let socket: WebSocket;
    try {
      socket = this.#options.open(this.#options.address(this.#options.after()));
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    socket.onmessage = (message: MessageEvent<unknown>) => {
      if (this.#socket === socket) this.#heard(message.data);
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#lost();
    };
    this.#arm(DEAD_AFTER_MS, () => this.#lost());
  }

  #heard(data: unknown): void {
    const now = Date.now();
    if (this.link.state === 'live') this.link.heard_ms = now;
    else this.#set({ state: 'live', since_ms: now, heard_ms: now, failures: 0 });
    this.#arm(STALE_AFTER_MS, () => {
      this.#set({ state: 'stale', since_ms: Date.now() });
      this.#arm(DEAD_AFTER_MS - STALE_AFTER_MS, () => this.#lost());
    });
    this.#options.message(data);
  }

  #lost(): void {
    this.#drop();
    if (this.#stopped) return;
    const failures = this.link.failures + 1;
    const wait = retryDelay(failures, this.#options.random);
    this.#retry = setTimeout(() => this.#open(), wait);
    const now = Date.now();
    const already = this.link.state === 'disconnected';
    this.#set({
      state: 'disconnected',
      since_ms: already ? this.link.since_ms : now,
      retry_ms: now + wait,
      failures,
    });
  }

  #drop(): void {
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
  }

  #arm(after_ms: number, then: () => void): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(then, after_ms);
  }

  #set(change: Partial<Link>): void {
    this.link = { ...this.link, ...change };
    this.#options.changed(this.link);
  }
}
