import { cleanup, render, screen } from '@testing-library/svelte';
import { tick } from 'svelte';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { aCertificate, aSession } from '../../../dev/identity';
import { HOSTILE_NAME } from '../../../dev/scenery';
import { Traffic } from '../../../dev/traffic';
import type { Alarm, CertificateRow, SessionRow } from '../protocol';
import { filterOf } from '../stores/certificates';
import { Gateway } from '../stores/gateway.svelte';
import Alarms from './Alarms.svelte';
import CertificateList from './CertificateList.svelte';
import Revocation from './Revocation.svelte';
import SessionList from './SessionList.svelte';

afterEach(cleanup);

const NOW = 1_800_000_000_000;
const HOUR = 3_600_000;

function certificates(rows: CertificateRow[], left_out = 0) {
  const counts = { valid: rows.length, expiring: 0, expired: 0, revoked: 0, superseded: 0 };
  const props = { view: { rows, counts, left_out }, filter: filterOf({}), now_ms: NOW, choose: vi.fn() };
  return render(CertificateList, props).container;
}

function sessions(rows: SessionRow[], left_out = 0) {
  const unencrypted = rows.filter(({ tls }) => tls === null).length;
  const view = { rows, total: rows.length + left_out, post_quantum: 0, unencrypted, left_out };
  return render(SessionList, { view, filter: filterOf({}), now_ms: NOW }).container;
}

describe('certificates', () => {
  it('tell their state and the time left in words', () => {
    const container = certificates([aCertificate({ state: 'expiring', not_after_ms: NOW + 30 * HOUR })]);
    expect(container.querySelector('[data-certificate]')?.textContent).toMatch(/Ends soon.*in 1 d 6 h/);
  });

  it('lead to the events of a device, and only of a device', () => {
    certificates([aCertificate(), aCertificate({ id: 'localhost', role: 'server' })]);
    const links = screen.getAllByRole('link');
    expect(links.map((link) => link.getAttribute('href'))).toEqual(['/?tab=all&q=device%3A%22device-001%22']);
  });

  it('are drawn a hundred at a time', async () => {
    const rows = Array.from({ length: 130 }, (_, at) => aCertificate({ serial: String(at) }));
    const container = certificates(rows);
    const drawn = () => container.querySelectorAll('[data-certificate]').length;
    expect(drawn()).toBe(100);
    screen.getByRole('button', { name: 'Show 30 more' }).click();
    await tick();
    expect(drawn()).toBe(130);
    expect(screen.queryByRole('button', { name: /^Show/ })).toBeNull();
  });

  it('say how many are not here', () => {
    expect(certificates([aCertificate()], 7).textContent).toContain('7 more certificates not sent');
    cleanup();
    expect(certificates([aCertificate()]).textContent).not.toContain('not sent');
  });
});

describe('sessions', () => {
  it('say in words whether the key exchange is post-quantum, and what the cipher is', () => {
    const older = { version: 'TLS 1.2', cipher: 'TLS_X', key_exchange: 'x25519' };
    const container = sessions([
      aSession({ client_id: 'new' }),
      aSession({ client_id: 'old', tls: { ...older, post_quantum: false, resumed: true } }),
      aSession({ client_id: 'bare', tls: null }),
    ]);
    const text = (id: string) => container.querySelector(`[data-session="${id}"]`)?.textContent;
    expect(text('new')).toMatch(/Post-quantum.*TLS 1\.3.*X25519MLKEM768.*TLS_AES_256_GCM_SHA384/);
    expect(text('old')).toMatch(/Classical.*TLS 1\.2.*x25519.*TLS_X.*resumed/);
    expect(text('bare')).toContain('Not encrypted');
    expect(container.querySelector('header')?.textContent).toContain('3 connected, 1 not encrypted');
  });

  it('show a hostile client id as the text that it is', () => {
    const container = sessions([aSession({ id: null, role: null, client_id: HOSTILE_NAME })]);
    expect(screen.getByText(HOSTILE_NAME)).toBeTruthy();
    expect(container.querySelectorAll('img, script')).toHaveLength(0);
  });
});

describe('revocation list', () => {
  const at = (next_update_ms: number) =>
    render(Revocation, {
      view: { lists: [{ authority: 'CA', number: '12', this_update_ms: NOW, next_update_ms, revoked: 2 }] },
      now_ms: NOW,
    }).container.textContent;

  it('says whether it is in force, due soon or overdue', () => {
    expect(at(NOW + 300 * HOUR)).toMatch(/In force.*2 certificates revoked.*in 12 d 12 h/s);
    cleanup();
    expect(at(NOW + 73 * HOUR)).toContain('In force');
    cleanup();
    expect(at(NOW + 71 * HOUR)).toContain('Due soon');
    cleanup();
    expect(at(NOW - HOUR)).toMatch(/Overdue.*1 h ago.*is refused until there is a new list/s);
  });
});

describe('alarms', () => {
  const alarm = (change: Partial<Alarm> = {}): Alarm => ({
    severity: 'warning',
    text: 'A certificate ends in 6 days',
    remedy: 'Renew it',
    since_ms: NOW,
    ...change,
  });

  function shown(alarms: Alarm[]) {
    const gateway = new Gateway();
    const hello = new Traffic('calm', NOW).hello(null);
    gateway.hello({ ...hello, identity: { ...hello.identity, alarms } });
    return render(Alarms, { gateway }).container;
  }

  it('say how urgent they are, and what to do', () => {
    const container = shown([alarm({ severity: 'critical' })]);
    expect(container.textContent).toMatch(/Act now: A certificate ends in 6 days.*Renew it/s);
  });

  it('take no room where there are none, and little where there are many', async () => {
    expect(shown([]).querySelector('section')).toBeNull();
    cleanup();
    const container = shown(Array.from({ length: 9 }, () => alarm()));
    expect(container.querySelectorAll('li')).toHaveLength(2);
    screen.getByRole('button', { name: 'Show 7 more alarms' }).click();
    await tick();
    expect(container.querySelectorAll('li')).toHaveLength(9);
  });

  it('are text, whatever they name', () => {
    const container = shown([alarm({ text: HOSTILE_NAME })]);
    expect(container.querySelector('img')).toBeNull();
    expect(container.textContent).toContain(HOSTILE_NAME);
  });
});
