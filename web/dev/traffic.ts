// A development aid: plays invented traffic in the gateway's protocol. Nothing in it was measured.

import {
  PROTOCOL_VERSION,
  type EventView,
  type Frame,
  type Hello,
  type SecondView,
  type Totals,
  type ZoneView,
} from '../src/lib/protocol';
import { anEvent } from './events';
import { identityOf } from './identity';
import { Random } from './random';
import { ATTACKS, FLOOD, HOSTILE, HOSTILE_NAME, LAYERS, ZONES, type Attack } from './scenery';

export const SCENARIOS = ['calm', 'mixed', 'flood', 'silence', 'hostile', 'plain', 'empty', 'fleet'] as const;
export type Scenario = (typeof SCENARIOS)[number];

const FRAME_MS = 100;
/** Events at hand for a page that comes late: of accepted ones a few, of the others many. */
const KEPT = { accepted: 60, others: 2_000 };
/** Events sent in one frame; the rest is only counted. */
const LISTED = 60;
const ACCEPTED_PER_SECOND = 30;

/** Plays one scenario. Time is given from outside, so that a test can play hours in a moment. */
export class Traffic {
  readonly scenario: Scenario;
  readonly started_ms: number;
  #random: Random;
  #now_ms: number;
  #totals: Totals = { accepted: 0, flagged: 0, blocked: 0, got_in: 0 };
  #seconds: SecondView[] = [];
  #accepted: EventView[] = [];
  #events: EventView[] = [];
  #stopped = new Map<string, number>();
  #id: number;
  #sequence = 4_700;

  constructor(scenario: Scenario, now_ms: number, seed = 7, firstId = 0) {
    this.scenario = scenario;
    this.#random = new Random(seed);
    this.#id = firstId;
    this.started_ms = now_ms - 130_000;
    this.#now_ms = this.started_ms;
    while (this.#now_ms + FRAME_MS <= now_ms) this.frame();
  }

  get newest(): number {
    return this.#id;
  }

  /** The whole state, with the events after `after`. */
  hello(after: number | null): Hello {
    return {
      version: PROTOCOL_VERSION,
      level: this.scenario === 'plain' ? 'plain' : 'ai',
      demo: true,
      site: 'The Grand Marina',
      server_time_ms: this.#now_ms,
      started_ms: this.started_ms,
      layers: LAYERS.map((layer) => ({
        ...layer,
        on: this.scenario !== 'plain' || ['limits', 'format', 'durability', 'dashboard'].includes(layer.id),
        stopped: this.#stopped.get(layer.id) ?? 0,
      })),
      zones: this.#zones(),
      totals: { ...this.#totals },
      seconds: this.#seconds.slice(-120),
      events: [...this.#accepted, ...this.#events.filter((event) => event.id > (after ?? 0))].sort(
        (one, other) => one.t_ms - other.t_ms,
      ),
      missed: 0,
      resume_from: this.#id,
      device_count: 3,
      unprotected: this.scenario === 'plain',
      notes: [],
      identity: identityOf(this.scenario, this.started_ms + 130_000),
    };
  }

  /** What the next 100 ms bring. */
  frame(): Frame {
    this.#now_ms += FRAME_MS;
    const t = Math.floor(this.#now_ms / 1000);
    let second = this.#seconds.at(-1);
    if (second?.t !== t) {
      second = { t, accepted: 0, flagged: 0, blocked: 0, got_in: 0 };
      this.#seconds.push(second);
      if (this.#seconds.length > 240) this.#seconds.shift();
    }
    const events: EventView[] = [];
    let dropped = 0;
    if (this.scenario !== 'empty') {
      const accepted = this.#times(ACCEPTED_PER_SECOND);
      this.#count(second, 'accepted', accepted);
      for (let i = 0; i < Math.min(accepted, 2); i += 1) events.push(this.#reading());
      for (const attack of this.#attacks()) {
        const times = this.#times(attack.rate);
        const got_in = this.scenario === 'plain' && attack.outcome === 'blocked';
        if (got_in) this.#count(second, 'got_in', times);
        else if (attack.outcome !== 'notice') this.#count(second, attack.outcome, times);
        if (!got_in) this.#stopped.set(attack.layer, (this.#stopped.get(attack.layer) ?? 0) + times);
        for (let i = 0; i < times; i += 1) {
          if (events.length < LISTED) events.push(this.#attack(attack, got_in));
          else dropped += 1;
        }
      }
    }
    this.#keep(events);
    return {
      t_ms: this.#now_ms,
      rate: this.scenario === 'empty' ? 0 : ACCEPTED_PER_SECOND + this.#random.around(1),
      behind_ms: this.scenario === 'flood' ? 40 + Math.round(this.#random.next() * 30) : 2,
      totals: { ...this.#totals },
      seconds: [{ ...second }],
      zones: this.#zones(),
      layers: [...this.#stopped].map(([id, stopped]) => ({ id, stopped })),
      events,
      dropped,
      identity: this.#identityChange(),
    };
  }

  /** Every now and then the sessions are sent again, as they stand. */
  #identityChange(): Frame['identity'] {
    if (Math.floor(this.#now_ms / FRAME_MS) % 50 !== 0) return null;
    const { sessions } = identityOf(this.scenario, this.started_ms + 130_000);
    return { certificates: null, sessions, revocation: null, alarms: null };
  }

  #keep(events: readonly EventView[]): void {
    for (const event of events) (event.id === 0 ? this.#accepted : this.#events).push(event);
    this.#accepted.splice(0, Math.max(0, this.#accepted.length - KEPT.accepted));
    this.#events.splice(0, Math.max(0, this.#events.length - KEPT.others));
  }

  #count(second: SecondView, what: keyof Totals, times: number): void {
    second[what] += times;
    this.#totals[what] += times;
  }

  /** How often something happens in a frame that happens `rate` times a second. */
  #times(rate: number): number {
    return Math.floor(rate / 10 + this.#random.next());
  }

  /** What goes on now: attacks come and go, each for a while, with quiet between them. */
  #attacks(): Attack[] {
    const minute = this.#now_ms / 1000 / 24;
    const phase = minute % 1;
    switch (this.scenario) {
      case 'mixed':
      case 'plain': {
        const attack = ATTACKS[Math.floor(minute) % ATTACKS.length];
        return attack && phase > 0.4 ? [attack] : [];
      }
      case 'flood':
        return phase > 0.3 ? [FLOOD] : [];
      case 'hostile':
        return [HOSTILE];
      default:
        return [];
    }
  }

  #reading(): EventView {
    const zone = this.#random.pick(ZONES);
    this.#sequence += 1;
    return {
      ...anEvent(),
      t_ms: this.#now_ms,
      device: zone.device,
      zone: zone.id,
      topic: `hydroficient/grandmarina/${zone.device}/sensors`,
      source: `${zone.device} 127.0.0.1:50112`,
      sequence: this.#sequence,
      score: 0.1 + this.#random.around(0.06),
      channels: this.#channels(zone),
      protected: this.scenario !== 'plain',
    };
  }

  #attack(attack: Attack, got_in: boolean): EventView {
    this.#id += 1;
    const zone = this.scenario === 'flood' ? ZONES[2] : attack.reason === 'bad_mac' ? ZONES[1] : ZONES[0];
    const hostile = attack === HOSTILE;
    return {
      ...anEvent(),
      id: this.#id,
      t_ms: this.#now_ms,
      outcome: got_in ? 'accepted' : attack.outcome,
      got_in,
      reason: attack.reason,
      also: attack.also ?? [],
      sentence: got_in
        ? `It got in, because the layer that stops it is off: ${attack.sentence}`
        : attack.sentence,
      detail: attack.detail,
      device: hostile ? HOSTILE_NAME : zone.device,
      zone: hostile ? null : zone.id,
      topic: `hydroficient/grandmarina/${hostile ? HOSTILE_NAME : zone.device}/sensors`,
      source: `intruder 127.0.0.1:${40_000 + (this.#id % 9)}`,
      sequence: 4_711,
      score: attack.outcome === 'flagged' ? -0.08 - this.#random.next() * 0.1 : null,
      channels: attack.outcome === 'flagged' ? this.#channels(zone) : {},
      layer: attack.layer,
      raw: attack.raw ?? null,
      protected: attack.layer === 'detection',
      expected: attack.expected ?? null,
    };
  }

  #channels(zone: (typeof ZONES)[number]): Record<string, number> {
    const wave = Math.sin(this.#now_ms / 9_000 + zone.flow) * 1.6;
    return {
      pressure_upstream: zone.pressure + wave + this.#random.around(0.2),
      pressure_downstream: zone.pressure - 7 + wave + this.#random.around(0.2),
      flow_rate: zone.flow + wave * 2 + this.#random.around(0.4),
      gate_a_position: 45 + wave,
      gate_b_position: 52 - wave,
    };
  }

  #zones(): ZoneView[] {
    return ZONES.map((zone) => {
      const waits = this.scenario === 'empty';
      const silent = this.scenario === 'silence' && zone.id === 'pool_spa';
      const recent = this.#events.filter(
        (event) => event.zone === zone.id && event.t_ms > this.#now_ms - 60_000,
      );
      const blocked = recent.filter((event) => event.outcome === 'blocked' || event.got_in).length;
      const flagged = recent.filter((event) => event.outcome === 'flagged').length;
      const status = waits
        ? 'waiting'
        : silent
          ? 'silent'
          : blocked
            ? 'attack'
            : flagged
              ? 'attention'
              : 'normal';
      const sentence = {
        waiting: 'Waiting for the first reading',
        silent: 'No reading for 2 min',
        attack: `${blocked} messages blocked during the last minute. ${recent.at(-1)?.sentence ?? ''}`,
        attention: `${flagged} unusual readings during the last minute`,
        normal: 'The device reports',
      }[status];
      const unit = (name: string) =>
        name.startsWith('pressure') ? 'PSI' : name === 'flow_rate' ? 'L/min' : '%';
      return {
        id: zone.id,
        name: zone.name,
        devices: 1,
        active: waits || silent ? 0 : 1,
        status,
        sentence,
        channels: waits
          ? {}
          : Object.fromEntries(
              Object.entries(this.#channels(zone)).map(([name, value]) => [
                name,
                { value, unit: unit(name) },
              ]),
            ),
        accepted: waits || silent ? 0 : 600,
        flagged,
        blocked,
      };
    });
  }
}
