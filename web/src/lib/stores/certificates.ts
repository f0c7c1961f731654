// What the Certificates page shows of what the gateway knows: its one answer, its order and its filter.

import { counted, remaining } from '../format';
import type {
  CertificateRole,
  CertificateRow,
  CertificateState,
  IdentityView,
  SessionRow,
} from '../protocol';
import type { Query } from '../route';
import type { Headline } from './condition';

/** What may be asked of the list of certificates by how they stand. */
export type StateChoice = 'current' | 'attention' | CertificateState | 'all';
/** What may be asked by role; `none` is a session without a certificate. */
export type RoleChoice = 'any' | CertificateRole | 'none';

export const STATE_CHOICES: readonly { id: StateChoice; label: string }[] = [
  { id: 'current', label: 'All but revoked and replaced' },
  { id: 'attention', label: 'Expired or ending soon' },
  { id: 'valid', label: 'Valid' },
  { id: 'expiring', label: 'Ending soon' },
  { id: 'expired', label: 'Expired' },
  { id: 'revoked', label: 'Revoked' },
  { id: 'superseded', label: 'Replaced' },
  { id: 'all', label: 'All' },
];

export const ROLE_CHOICES: readonly { id: RoleChoice; label: string }[] = [
  { id: 'any', label: 'Any role' },
  { id: 'device', label: 'Devices' },
  { id: 'gateway', label: 'Gateways' },
  { id: 'operator', label: 'Operators' },
  { id: 'server', label: 'Servers' },
  { id: 'authority', label: 'Authorities' },
  { id: 'none', label: 'No certificate' },
];

export interface Filter {
  text: string;
  role: RoleChoice;
  state: StateChoice;
}

/** Reads the filter out of an address; what makes no sense is as if it were not there. */
export function filterOf(query: Query): Filter {
  return {
    text: query['q'] ?? '',
    role: ROLE_CHOICES.find(({ id }) => id === query['role'])?.id ?? 'any',
    state: STATE_CHOICES.find(({ id }) => id === query['state'])?.id ?? 'current',
  };
}

/** The filter as parameters of an address; what is as usual is left out. */
export function queryOf({ text, role, state }: Filter): Query {
  return { q: text, role: role === 'any' ? '' : role, state: state === 'current' ? '' : state };
}

/** How a certificate stands now: the gateway says so when it changes, the end of its validity may come between. */
export function stateNow(row: CertificateRow, now_ms: number): CertificateState {
  const inForce = row.state === 'valid' || row.state === 'expiring';
  return inForce && now_ms > row.not_after_ms ? 'expired' : row.state;
}

function wanted(choice: StateChoice, state: CertificateState): boolean {
  if (choice === 'all') return true;
  if (choice === 'current') return state !== 'revoked' && state !== 'superseded';
  if (choice === 'attention') return state === 'expired' || state === 'expiring';
  return choice === state;
}

function holds(text: string, ...texts: (string | null)[]): boolean {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return true;
  const all = texts.filter(Boolean).join('\n').toLowerCase();
  return words.every((word) => all.includes(word));
}

/** The certificates that the filter asks for, the one that ends first before all others. */
export function certificatesShown(
  rows: readonly CertificateRow[],
  filter: Filter,
  now_ms: number,
): CertificateRow[] {
  return rows
    .filter(
      (row) =>
        (filter.role === 'any' || filter.role === row.role) &&
        wanted(filter.state, stateNow(row, now_ms)) &&
        holds(filter.text, row.id, row.role, row.serial, row.authority),
    )
    .sort((one, other) => one.not_after_ms - other.not_after_ms || (one.id < other.id ? -1 : 1));
}

/** The sessions that the filter asks for, as the gateway ordered them. */
export function sessionsShown(rows: readonly SessionRow[], filter: Filter): SessionRow[] {
  return rows.filter(
    (row) =>
      (filter.role === 'any' || filter.role === (row.role ?? 'none')) &&
      holds(
        filter.text,
        row.id,
        row.role,
        row.client_id,
        row.peer,
        row.tls?.version ?? null,
        row.tls?.cipher ?? null,
        row.tls?.key_exchange ?? null,
      ),
  );
}

/** How many in `rows` stand so now. */
function standing(rows: readonly CertificateRow[], state: CertificateState, now_ms: number): number {
  return rows.filter((row) => stateNow(row, now_ms) === state).length;
}

/** The page's first answer: does a certificate or a revocation list need somebody? */
export function identityHeadline(identity: IdentityView, now_ms: number): Headline {
  const { certificates, revocation } = identity;
  const lists = revocation?.lists ?? [];
  if (lists.some((list) => now_ms > list.next_update_ms)) {
    return {
      condition: 'attack',
      title: 'The revocation list is overdue',
      sentence: 'Until there is a new one, every client with a certificate is refused.',
    };
  }
  if (!certificates) {
    return {
      condition: 'waiting',
      title: 'Certificates are not kept here',
      sentence: 'This gateway keeps no account of certificates, or has not read it yet.',
    };
  }
  const current = certificates.rows.filter((row) => wanted('current', stateNow(row, now_ms)));
  const expired = standing(current, 'expired', now_ms);
  const expiring = standing(current, 'expiring', now_ms);
  const next = current
    .filter((row) => stateNow(row, now_ms) !== 'expired')
    .reduce<CertificateRow | null>(
      (first, row) => (first && first.not_after_ms <= row.not_after_ms ? first : row),
      null,
    );
  const ends = next
    ? `The next to end is ${next.id}, ${remaining(next.not_after_ms - now_ms)}.`
    : 'None is in force.';
  if (expired > 0) {
    const also = expiring > 0 ? `, ${expiring} ${expiring === 1 ? 'ends' : 'end'} soon` : '';
    return {
      condition: 'attack',
      title: `${counted(expired, 'certificate')} ${expired === 1 ? 'has' : 'have'} expired${also}`,
      sentence: `Whoever holds an expired one cannot connect. ${ends}`,
    };
  }
  if (expiring > 0) {
    return {
      condition: 'attention',
      title: `${counted(expiring, 'certificate')} ${expiring === 1 ? 'ends' : 'end'} soon`,
      sentence: ends,
    };
  }
  if (!next) {
    return { condition: 'waiting', title: 'No certificate is in force', sentence: 'None was issued yet.' };
  }
  const inForce = certificates.counts.valid;
  return {
    condition: 'normal',
    title:
      inForce === 1
        ? 'The one certificate is in force'
        : `All ${counted(inForce, 'certificate')} are in force`,
    sentence: ends,
  };
}
