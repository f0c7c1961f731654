// A development aid: invented certificates, sessions, revocation lists and alarms.

import type { Alarm, CertificateRow, IdentityView, SessionRow } from '../src/lib/protocol';
import { HOSTILE_NAME, ZONES } from './scenery';
import type { Scenario } from './traffic';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const AUTHORITY = 'Tidegate CA';
/** Devices of the scenario `fleet`. */
const FLEET = 240;

/** A device's certificate that is in force, with what the test changes. */
export function aCertificate(change: Partial<CertificateRow> = {}): CertificateRow {
  return {
    id: 'device-001',
    role: 'device',
    serial: '5f0c3a9be2714d06',
    not_before_ms: 1_799_900_000_000,
    not_after_ms: 1_800_500_000_000,
    state: 'valid',
    authority: AUTHORITY,
    ...change,
  };
}

/** A device's session over TLS 1.3 with a post-quantum key exchange, with what the test changes. */
export function aSession(change: Partial<SessionRow> = {}): SessionRow {
  return {
    id: 'device-001',
    role: 'device',
    client_id: 'device-001',
    peer: '127.0.0.1:50112',
    since_ms: 1_799_999_000_000,
    tls: {
      version: 'TLS 1.3',
      cipher: 'TLS_AES_256_GCM_SHA384',
      key_exchange: 'X25519MLKEM768',
      post_quantum: true,
      resumed: false,
    },
    ...change,
  };
}

const serial = (number: number) => (0x5f0c3a9b + number * 7_919).toString(16).padStart(16, 'a');

/** What the scenario knows of identities at `now_ms`. */
export function identityOf(scenario: Scenario, now_ms: number): IdentityView {
  if (scenario === 'plain')
    return { certificates: null, sessions: plainSessions(now_ms), revocation: null, alarms: [] };
  if (scenario === 'empty') return { certificates: null, sessions: null, revocation: null, alarms: [] };
  const rows = scenario === 'fleet' ? fleet(now_ms) : household(now_ms);
  const sessions = scenario === 'fleet' ? fleetSessions(now_ms) : householdSessions(now_ms);
  if (scenario === 'hostile') {
    sessions.push(
      aSession({ id: null, role: null, client_id: `${HOSTILE_NAME}${'x'.repeat(90)}`, since_ms: now_ms }),
    );
  }
  const number = (state: CertificateRow['state']) => rows.filter((row) => row.state === state).length;
  return {
    certificates: {
      rows,
      counts: {
        valid: number('valid'),
        expiring: number('expiring'),
        expired: number('expired'),
        revoked: number('revoked'),
        superseded: number('superseded'),
      },
      left_out: scenario === 'fleet' ? 1_200 : 0,
    },
    sessions: {
      rows: sessions,
      total: sessions.length + (scenario === 'fleet' ? 1_500 : 0),
      post_quantum: sessions.filter((row) => row.tls?.post_quantum).length,
      unencrypted: sessions.filter((row) => row.tls === null).length,
      left_out: scenario === 'fleet' ? 1_500 : 0,
    },
    revocation: {
      lists: [
        {
          authority: AUTHORITY,
          number: '12',
          this_update_ms: now_ms - 3 * DAY_MS,
          next_update_ms: now_ms + (scenario === 'fleet' ? 20 * HOUR_MS : 27 * DAY_MS),
          revoked: scenario === 'fleet' ? 4 : 0,
        },
      ],
    },
    alarms: scenario === 'fleet' ? fleetAlarms(now_ms) : [],
  };
}

function household(now_ms: number): CertificateRow[] {
  const made = { not_before_ms: now_ms - 3 * DAY_MS };
  return [
    aCertificate({
      ...made,
      id: 'localhost',
      role: 'server',
      serial: serial(1),
      not_after_ms: now_ms + 362 * DAY_MS,
    }),
    aCertificate({
      ...made,
      id: 'gateway',
      role: 'gateway',
      serial: serial(2),
      not_after_ms: now_ms + 362 * DAY_MS,
    }),
    ...ZONES.map(({ device }, at) =>
      aCertificate({
        ...made,
        id: device,
        serial: serial(3 + at),
        not_after_ms: now_ms + 4 * DAY_MS + at * HOUR_MS,
      }),
    ),
    aCertificate({
      ...made,
      id: AUTHORITY,
      role: 'authority',
      serial: serial(9),
      not_after_ms: now_ms + 3_647 * DAY_MS,
    }),
  ];
}

function householdSessions(now_ms: number): SessionRow[] {
  return ZONES.map(({ device }, at) =>
    aSession({ id: device, client_id: device, peer: `127.0.0.1:${50_112 + at}`, since_ms: now_ms - 130_000 }),
  );
}

function plainSessions(now_ms: number): IdentityView['sessions'] {
  const rows = householdSessions(now_ms).map((row) => ({ ...row, id: null, role: null, tls: null }));
  return { rows, total: rows.length, post_quantum: 0, unencrypted: rows.length, left_out: 0 };
}

function fleet(now_ms: number): CertificateRow[] {
  const devices = Array.from({ length: FLEET }, (_, at): CertificateRow => {
    const id = `device-${String(at + 1).padStart(3, '0')}`;
    const own = { id, serial: serial(20 + at), not_before_ms: now_ms - 3 * DAY_MS };
    if (at < 2)
      return aCertificate({ ...own, state: 'expired', not_after_ms: now_ms - (at + 1) * 5 * HOUR_MS });
    if (at < 6) return aCertificate({ ...own, state: 'expiring', not_after_ms: now_ms + at * 3 * HOUR_MS });
    if (at < 10) return aCertificate({ ...own, state: 'revoked', not_after_ms: now_ms + 2 * DAY_MS });
    if (at < 20) return aCertificate({ ...own, state: 'superseded', not_after_ms: now_ms + 3 * DAY_MS });
    return aCertificate({ ...own, not_after_ms: now_ms + 4 * DAY_MS + at * 40 * 60_000 });
  });
  return [...household(now_ms).filter(({ role }) => role !== 'device'), ...devices];
}

function fleetSessions(now_ms: number): SessionRow[] {
  const rows = Array.from({ length: 80 }, (_, at) => {
    const id = `device-${String(at + 21).padStart(3, '0')}`;
    return aSession({
      id,
      client_id: id,
      peer: `10.0.4.${at + 10}:${41_000 + at}`,
      since_ms: now_ms - at * HOUR_MS,
    });
  });
  const older = {
    version: 'TLS 1.2',
    cipher: 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256',
    key_exchange: 'secp256r1',
  };
  rows.unshift(
    aSession({
      id: null,
      role: null,
      client_id: 'paho/1f3a',
      peer: '10.0.4.201:40110',
      tls: null,
      since_ms: now_ms,
    }),
    aSession({
      id: 'gateway',
      role: 'gateway',
      client_id: 'gateway',
      since_ms: now_ms - 9 * DAY_MS,
      tls: { ...older, post_quantum: false, resumed: true },
    }),
  );
  return rows;
}

function fleetAlarms(now_ms: number): Alarm[] {
  return [
    {
      severity: 'critical',
      text: 'The certificates of 2 devices have expired: device-001, device-002',
      remedy: 'They cannot connect. Enrol them again: tidegate certs enroll-token device-001',
      since_ms: now_ms - 5 * HOUR_MS,
    },
    {
      severity: 'critical',
      text: 'The revocation list is due in less than a day',
      remedy: 'After that every client is refused. Does the gateway run that makes the next one?',
      since_ms: now_ms - 4 * HOUR_MS,
    },
    {
      severity: 'warning',
      text: 'The certificates of 4 devices end within a day',
      remedy: 'Do they run? A device renews its own certificate at two thirds of its life.',
      since_ms: now_ms - 3 * HOUR_MS,
    },
    {
      severity: 'warning',
      text: 'A changed device registry was refused, and the old one kept',
      remedy: 'Mend devices.toml: line 12 has no zone.',
      since_ms: now_ms - 30 * HOUR_MS,
    },
  ];
}
