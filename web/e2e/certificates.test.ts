// The Certificates page against a running gateway, and /metrics beside it.

import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  accessibility,
  DESKTOP,
  launch,
  live,
  open,
  PHONE,
  picture,
  type Look,
  type Watched,
} from './browser';
import { BINARY, startGateway, type Gateway } from './tidegate';

/** The gateway reads its certificates and counts its sessions after it has started. */
const KNOWN_WITHIN_MS = 20_000;

let gateway: Gateway;
let browser: Browser;

beforeAll(async () => {
  gateway = await startGateway();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await gateway?.remove();
});

async function visit(
  path: string,
  look: Look,
  what: (page: Page, watched: Watched) => Promise<void>,
): Promise<void> {
  const watched = await open(browser, `${gateway.address}${path}`, look);
  try {
    await live(watched.page);
    await what(watched.page, watched);
    expect(watched.faults).toEqual([]);
    expect(await watched.violations()).toEqual([]);
  } finally {
    await watched.page.context().close();
  }
}

const certificates = (page: Page) => page.locator('[data-certificate]');
const sessions = (page: Page) => page.locator('[data-session]');
const known = (page: Page) => certificates(page).first().waitFor({ timeout: KNOWN_WITHIN_MS });
const at = (page: Page) => page.evaluate(() => window.location.pathname + window.location.search);

describe('certificates', () => {
  it('lists every device of the place with the time that its certificate has left', async () => {
    await visit('/certificates', { size: DESKTOP }, async (page) => {
      await known(page);
      for (const id of ['device-001', 'device-002', 'device-003']) {
        const row = page.locator(`[data-certificate="${id}"]`).first();
        expect(await row.textContent()).toMatch(/Device.*(Valid|Ends soon).*in \d+ (years|days|d|h|min|s)/);
      }
      expect(await page.title()).toContain('Certificates');
    });
  });

  it('says who is connected, and how the link is encrypted', async () => {
    await visit('/certificates', { size: DESKTOP }, async (page) => {
      const device = sessions(page).filter({ hasText: 'device-001' }).first();
      await device.waitFor({ timeout: KNOWN_WITHIN_MS });
      const text = await device.textContent();
      expect(text).toContain('TLS 1.3');
      expect(text).toMatch(/TLS(13)?_[A-Z0-9_]+/);
      expect(text).toMatch(/Post-quantum.*X25519MLKEM768/);
    });
  });

  it('shows the revocation list and when the next is due', async () => {
    await visit('/certificates', { size: DESKTOP }, async (page) => {
      const list = page.locator('[data-list]').first();
      await list.waitFor({ timeout: KNOWN_WITHIN_MS });
      expect(await list.textContent()).toMatch(/In force|Due soon/);
      expect(await list.textContent()).toMatch(/Next due\s*in \d+/);
    });
  });

  it('writes its filter into the address, and opens with the filter of an address', async () => {
    await visit('/certificates', { size: DESKTOP }, async (page) => {
      await known(page);
      await page.getByRole('textbox', { name: 'Search certificates and sessions' }).fill('device-002');
      await page.getByRole('combobox', { name: 'Role' }).selectOption('device');
      await expect.poll(() => at(page)).toBe('/certificates?q=device-002&role=device');
      const ids = () =>
        certificates(page).evaluateAll((rows) => rows.map((row) => row.getAttribute('data-certificate')));
      expect(new Set(await ids())).toEqual(new Set(['device-002']));
      await page.reload();
      await known(page);
      expect(new Set(await ids())).toEqual(new Set(['device-002']));
      await page.getByRole('combobox', { name: 'How the certificates stand' }).selectOption('revoked');
      await page.getByText('No certificate matches').waitFor();
    });
  });

  it('is reached by link and by key, and left by the browser’s back', async () => {
    await visit('/?tab=blocked', { size: DESKTOP }, async (page) => {
      const pressed = page.getByRole('button', { name: 'Blocked', exact: true });
      expect(await pressed.getAttribute('aria-pressed')).toBe('true');
      await page.getByRole('link', { name: 'Certificates', exact: true }).click();
      await page.getByRole('heading', { name: 'Certificates', exact: true }).waitFor();
      expect(await at(page)).toBe('/certificates');
      expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('MAIN');
      await page.goBack();
      await pressed.waitFor();
      expect(await pressed.getAttribute('aria-pressed')).toBe('true');
      expect(await at(page)).toBe('/?tab=blocked');

      await page.keyboard.press('c');
      await page.getByRole('heading', { name: 'Sessions', exact: true }).waitFor();
      await page.keyboard.press('/');
      expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('INPUT');
      await page.keyboard.press('Escape');
      expect(await page.evaluate(() => document.activeElement?.id)).toBe('certificate-list');
      await page.keyboard.press('o');
      await page.getByRole('heading', { name: 'Events', exact: true }).waitFor();
    });
  });

  it('leads from a device’s certificate to its events', async () => {
    await visit('/certificates', { size: DESKTOP }, async (page) => {
      await known(page);
      await page.getByRole('link', { name: 'device-001', exact: true }).first().click();
      const search = page.getByRole('textbox', { name: 'Search the events' });
      await expect.poll(() => search.inputValue()).toBe('device:"device-001"');
    });
  });

  it.each([360, 768, 900, 1280, 2560])('fits a screen %d pixels wide', async (width) => {
    await visit('/certificates', { size: { width, height: 900 } }, async (page) => {
      await known(page);
      const beyond = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(beyond).toBe(0);
    });
  });

  it.each([
    ['dark', DESKTOP],
    ['light', DESKTOP],
    ['dark', PHONE],
    ['light', PHONE],
  ] as const)('is accessible: %s, %o', async (theme, size) => {
    await visit('/certificates', { size, theme }, async (page) => {
      await known(page);
      await picture(page, `certificates-${theme}-${size.width}`);
      expect(await accessibility(page)).toEqual([]);
    });
  });

  it.runIf(BINARY)('is counted in /metrics, which a foreign host does not get', async () => {
    const answer = await fetch(`${gateway.address}/metrics`);
    expect(answer.headers.get('content-type')).toContain('text/plain; version=0.0.4');
    const text = await answer.text();
    expect(text).toMatch(/^tidegate_messages_total\{outcome="accepted",reason=""\} \d+$/m);
    expect(text).toMatch(
      /^tidegate_certificate_expiry_timestamp_seconds\{id="device-001",role="device"\} \d+/m,
    );
    expect(text).toMatch(/^tidegate_sessions\{role="device"\} \d+/m);
    // A page of another port may not read it.
    const foreign = await fetch(`${gateway.address}/metrics`, { headers: { origin: 'http://localhost:1' } });
    expect(foreign.status).toBe(403);
  });
});
