// The gateway as it last described itself: figures, zones, layers, and the last two minutes.

import type { Frame, Hello, IdentityView, LayerView, Totals, ZoneView } from '../protocol';
import { SecondSeries } from './seconds';
import { Trace } from './trace';

const NO_TOTALS: Totals = { accepted: 0, flagged: 0, blocked: 0, got_in: 0 };
const NO_IDENTITY: IdentityView = { certificates: null, sessions: null, revocation: null, alarms: [] };

/** A minute, in the seconds of the series. */
const MINUTE = 60;

export class Gateway {
  /** Whether the gateway has described itself at all. */
  known = $state(false);
  level = $state('');
  site = $state('');
  demo = $state(false);
  unprotected = $state(false);
  notes = $state.raw<readonly string[]>([]);
  deviceCount = $state(0);
  started_ms = $state(0);
  /** Accepted messages per second. */
  rate = $state(0);
  /** How far the gateway was behind its sensors, at worst within the last second. */
  behind_ms = $state(0);
  totals = $state.raw<Totals>(NO_TOTALS);
  /** What the last minute held. */
  minute = $state.raw<Totals>(NO_TOTALS);
  zones = $state.raw<readonly ZoneView[]>([]);
  layers = $state.raw<readonly LayerView[]>([]);
  /** Certificates, sessions, revocation lists and alarms. */
  identity = $state.raw<IdentityView>(NO_IDENTITY);
  /** The gateway's clock, to the second: what ends, ends by it, however wrong the clock here is. */
  now_ms = $state(0);
  /** Rises once a second: what draws history reads it. */
  tick = $state(0);
  readonly seconds = new SecondSeries();
  #behind_ms = 0;
  #now_ms = 0;
  #traces = new Map<string, Trace>();

  hello(hello: Hello): void {
    this.level = hello.level;
    this.site = hello.site;
    this.demo = hello.demo;
    this.unprotected = hello.unprotected;
    this.notes = hello.notes;
    this.deviceCount = hello.device_count;
    if (hello.started_ms !== this.started_ms) {
      this.seconds.clear();
      this.#traces.clear();
    }
    this.started_ms = hello.started_ms;
    this.totals = hello.totals;
    this.layers = hello.layers;
    this.zones = hello.zones;
    this.identity = hello.identity;
    this.#now_ms = hello.server_time_ms;
    for (const second of hello.seconds) this.seconds.put(second);
    this.#nextSecond();
    this.known = true;
  }

  frame(frame: Frame): void {
    this.rate = frame.rate;
    this.#behind_ms = Math.max(this.#behind_ms, frame.behind_ms);
    this.totals = frame.totals;
    if (frame.zones.length > 0) {
      const changed = new Map(frame.zones.map((zone) => [zone.id, zone]));
      const kept = this.zones.map((zone) => {
        const newer = changed.get(zone.id);
        changed.delete(zone.id);
        return newer ?? zone;
      });
      this.zones = [...kept, ...changed.values()];
    }
    const stopped = new Map(frame.layers.map((layer) => [layer.id, layer.stopped]));
    if (this.layers.some((layer) => (stopped.get(layer.id) ?? layer.stopped) !== layer.stopped)) {
      this.layers = this.layers.map((layer) => ({
        ...layer,
        stopped: stopped.get(layer.id) ?? layer.stopped,
      }));
    }
    if (frame.identity) {
      const { certificates, sessions, revocation, alarms } = frame.identity;
      this.identity = {
        certificates: certificates ?? this.identity.certificates,
        sessions: sessions ?? this.identity.sessions,
        revocation: revocation ?? this.identity.revocation,
        alarms: alarms ?? this.identity.alarms,
      };
    }
    this.#now_ms = frame.t_ms;
    const before = this.seconds.newest;
    this.seconds.advance(Math.floor(frame.t_ms / 1000));
    for (const second of frame.seconds) this.seconds.put(second);
    if (this.seconds.newest !== before) this.#nextSecond();
  }

  /** A zone's name for people, or nothing where there is no such zone. */
  zoneName(id: string | null): string {
    return this.zones.find((zone) => zone.id === id)?.name ?? '';
  }

  /** A channel's last values, one a second. */
  trace(zone: string, channel: string): readonly (number | null)[] {
    return this.#traces.get(`${zone}\u0000${channel}`)?.values() ?? [];
  }

  #nextSecond(): void {
    for (const zone of this.zones) {
      for (const [name, channel] of Object.entries(zone.channels)) {
        const key = `${zone.id}\u0000${name}`;
        let trace = this.#traces.get(key);
        if (!trace) this.#traces.set(key, (trace = new Trace()));
        trace.push(zone.active > 0 ? channel.value : null);
      }
    }
    this.minute = {
      accepted: this.seconds.sum('accepted', MINUTE),
      flagged: this.seconds.sum('flagged', MINUTE),
      blocked: this.seconds.sum('blocked', MINUTE),
      got_in: this.seconds.sum('got_in', MINUTE),
    };
    this.behind_ms = this.#behind_ms;
    this.#behind_ms = 0;
    this.now_ms = this.#now_ms;
    this.tick += 1;
  }
}
