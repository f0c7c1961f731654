import { describe, expect, it } from 'vitest';
import { aCertificate, aSession } from '../../../dev/identity';
import type { CertificateRow, IdentityView } from '../protocol';
import {
  certificatesShown,
  filterOf,
  identityHeadline,
  queryOf,
  sessionsShown,
  stateNow,
  type Filter,
} from './certificates';

const NOW = 1_800_000_000_000;
const HOUR = 3_600_000;
const filter = (change: Partial<Filter> = {}): Filter => ({ ...filterOf({}), ...change });
const ids = (rows: readonly { id: string | null }[]) => rows.map(({ id }) => id);

function identity(rows: CertificateRow[], change: Partial<IdentityView> = {}): IdentityView {
  const valid = rows.filter(({ state }) => state === 'valid').length;
  const counts = { valid, expiring: 0, expired: 0, revoked: 0, superseded: 0 };
  return {
    certificates: { rows, counts, left_out: 0 },
    sessions: null,
    revocation: null,
    alarms: [],
    ...change,
  };
}

describe('filter', () => {
  it('goes into an address and comes out of it the same', () => {
    const asked = filter({ text: 'pool', role: 'device', state: 'revoked' });
    expect(filterOf(queryOf(asked))).toEqual(asked);
    expect(Object.values(queryOf(filter())).join('')).toBe('');
  });

  it('takes what makes no sense for what is usual', () => {
    expect(filterOf({ role: '__proto__', state: '<b>' })).toEqual(filter());
  });
});

describe('certificates', () => {
  const rows = [
    aCertificate({ id: 'late', not_after_ms: NOW + 9 * HOUR }),
    aCertificate({ id: 'revoked', state: 'revoked', not_after_ms: NOW + HOUR }),
    aCertificate({ id: 'soon', state: 'expiring', not_after_ms: NOW + 2 * HOUR }),
    aCertificate({ id: 'over', state: 'expired', not_after_ms: NOW - HOUR }),
    aCertificate({ id: 'replaced', state: 'superseded', not_after_ms: NOW + 3 * HOUR }),
    aCertificate({ id: 'localhost', role: 'server', serial: 'beef', not_after_ms: NOW + 5 * HOUR }),
  ];

  it('come by their end, without those that are revoked or replaced', () => {
    expect(ids(certificatesShown(rows, filter(), NOW))).toEqual(['over', 'soon', 'localhost', 'late']);
  });

  it('are found by state, role, name and serial number', () => {
    const found = (change: Partial<Filter>) => ids(certificatesShown(rows, filter(change), NOW));
    expect(found({ state: 'attention' })).toEqual(['over', 'soon']);
    expect(found({ state: 'revoked' })).toEqual(['revoked']);
    expect(found({ state: 'all' })).toHaveLength(6);
    expect(found({ role: 'server' })).toEqual(['localhost']);
    expect(found({ text: 'BEEF server' })).toEqual(['localhost']);
    expect(found({ text: 'beef device' })).toEqual([]);
  });

  it('have expired when their end is over, whatever the gateway said before', () => {
    const row = aCertificate({ not_after_ms: NOW });
    expect(stateNow(row, NOW)).toBe('valid');
    expect(stateNow(row, NOW + 1)).toBe('expired');
    expect(stateNow({ ...row, state: 'revoked' }, NOW + 1)).toBe('revoked');
  });
});

describe('sessions', () => {
  it('are found by role, address and cipher, those without a certificate too', () => {
    const rows = [
      aSession({ peer: '10.0.0.7:1' }),
      aSession({ id: null, role: null, client_id: 'x', tls: null }),
    ];
    const found = (change: Partial<Filter>) => sessionsShown(rows, filter(change)).map(({ peer }) => peer);
    expect(found({ role: 'none' })).toEqual(['127.0.0.1:50112']);
    expect(found({ text: 'mlkem 10.0.0' })).toEqual(['10.0.0.7:1']);
    expect(found({ text: 'mlkem 127.0.0' })).toEqual([]);
  });
});

describe('answer', () => {
  const valid = aCertificate({ id: 'device-002', not_after_ms: NOW + 49 * HOUR });

  it('says that all is in force, and what ends next', () => {
    const answer = identityHeadline(
      identity([aCertificate({ not_after_ms: NOW + 90 * 24 * HOUR }), valid]),
      NOW,
    );
    expect(answer).toEqual({
      condition: 'normal',
      title: 'All 2 certificates are in force',
      sentence: 'The next to end is device-002, in 2 d 1 h.',
    });
  });

  it('puts an overdue revocation list before expired certificates, and those before expiring ones', () => {
    const expired = aCertificate({ state: 'expired', not_after_ms: NOW - 1 });
    const expiring = aCertificate({ state: 'expiring', not_after_ms: NOW + HOUR });
    const list = { authority: 'CA', number: '1', this_update_ms: 0, next_update_ms: NOW, revoked: 0 };
    const revocation = { lists: [list] };
    const answer = (rows: CertificateRow[], now_ms = NOW) =>
      identityHeadline(identity(rows, { revocation }), now_ms).title;
    expect(answer([expired, expiring, valid], NOW + 1)).toBe('The revocation list is overdue');
    expect(answer([expired, expiring, valid])).toBe('1 certificate has expired, 1 ends soon');
    expect(answer([expiring, valid])).toBe('1 certificate ends soon');
  });

  it('does not call a revoked or replaced certificate the next to end', () => {
    const over = [
      aCertificate({ id: 'a', state: 'revoked', not_after_ms: NOW + 1 }),
      aCertificate({ id: 'b', state: 'superseded', not_after_ms: NOW + 1 }),
    ];
    expect(identityHeadline(identity([...over, valid]), NOW).sentence).toContain('device-002');
    expect(identityHeadline(identity(over), NOW).title).toBe('No certificate is in force');
  });

  it('says so when no account of certificates is kept', () => {
    const answer = identityHeadline(identity([], { certificates: null }), NOW);
    expect(answer.condition).toBe('waiting');
  });
});
