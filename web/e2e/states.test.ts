// States and attacks that a real gateway cannot be made to play at will: always against the played one.

import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HOSTILE_NAME } from '../dev/scenery';
import type { Scenario } from '../dev/traffic';
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
import { playedGateway } from './tidegate';

let browser: Browser;

beforeAll(async () => {
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
});

type Played = Awaited<ReturnType<typeof playedGateway>>;

async function play(
  scenario: Scenario,
  what: (watched: Watched, gateway: Played) => Promise<void>,
  look: Look = { size: DESKTOP },
  path = '',
): Promise<void> {
  const gateway = await playedGateway(scenario);
  await gateway.start();
  const watched = await open(browser, `${gateway.address}${path}`, look);
  try {
    await live(watched.page);
    await what(watched, gateway);
    expect(watched.faults).toEqual([]);
    expect(await watched.violations()).toEqual([]);
  } finally {
    await watched.page.context().close();
    await gateway.remove();
  }
}

describe('states', () => {
  it('keeps a hostile name as the text that it is', async () => {
    await play('hostile', async ({ page }) => {
      const row = page.locator('[role="row"]').filter({ hasText: HOSTILE_NAME }).first();
      await row.click();
      const opened = page.locator('article[data-event]');
      await opened.waitFor();
      expect(await opened.textContent()).toContain('</pre><svg onload=alert(1)>\\u202egnp.exe');
      expect(await page.locator('#app img:not([src^="/icons/"]), #app script, [onload]').count()).toBe(0);
      await picture(page, 'hostile');
    });
  });

  it('says stale after two seconds without a frame, then disconnected, then live again', async () => {
    await play('calm', async ({ page }, gateway) => {
      gateway.played().mute = true;
      await page.locator('[data-state="stale"]').waitFor({ timeout: 5_000 });
      expect(await page.title()).toContain('Stale');
      expect(await accessibility(page)).toEqual([]);
      await picture(page, 'stale');
      await page.locator('[data-state="disconnected"]').waitFor({ timeout: 10_000 });
      gateway.played().mute = false;
      await live(page);
    });
  });

  it('makes one line of a flood, and stays quick', async () => {
    await play('flood', async ({ page }) => {
      const times = page.locator('[role="row"][id^="event-"] .times b').first();
      await expect.poll(() => times.textContent(), { timeout: 30_000 }).toMatch(/^×[\d,]{3,}/);
      expect(await page.locator('[role="row"][id^="event-"]').count()).toBeLessThan(8);
      const frames = await page.evaluate(
        () =>
          new Promise<number>((resolve) => {
            let count = 0;
            const until = performance.now() + 2_000;
            const next = () => {
              count += 1;
              if (performance.now() < until) requestAnimationFrame(next);
              else resolve(count / 2);
            };
            requestAnimationFrame(next);
          }),
      );
      // A page that cannot keep up paints a few frames a second.
      expect(frames).toBeGreaterThan(15);
      await picture(page, 'flood');
    });
  });

  it('warns at a level without protection, and shows what got in', async () => {
    await play('plain', async ({ page }) => {
      await page.getByText('Messages are not protected').waitFor();
      expect(await page.locator('[data-figure="got_in"] .value').textContent()).not.toBe('0');
      expect(await accessibility(page)).toEqual([]);
      await picture(page, 'plain');
    });
  });

  it('names the zone that has gone silent', async () => {
    await play('silence', async ({ page }) => {
      await page.getByRole('heading', { name: 'No word from Pool & Spa' }).waitFor();
      await picture(page, 'silence');
    });
  });

  it.each([DESKTOP, PHONE])('waits in words while nothing has come: %o', async (size) => {
    await play(
      'empty',
      async ({ page }) => {
        await page.getByRole('heading', { name: 'Waiting for the first message' }).waitFor();
        await page.getByText('Nothing needs attention').waitFor();
        expect(await accessibility(page)).toEqual([]);
        await picture(page, `empty-${size.width}`);
      },
      { size },
    );
  });

  it('says so when the gateway does not answer from the start', async () => {
    const gateway = await playedGateway('calm');
    await gateway.start();
    gateway.played().mute = true;
    const { page } = await open(browser, gateway.address, { size: DESKTOP });
    await page.getByRole('heading', { name: 'The gateway does not answer' }).waitFor({ timeout: 15_000 });
    expect(await accessibility(page)).toEqual([]);
    await picture(page, 'unreachable');
    await page.context().close();
    await gateway.remove();
  });

  it('asks for a reload when the gateway speaks another version', async () => {
    const gateway = await playedGateway('calm');
    await gateway.start();
    gateway.played().version = 99;
    const { page } = await open(browser, gateway.address, { size: DESKTOP });
    await page.getByRole('button', { name: 'Load again' }).waitFor();
    expect(await accessibility(page)).toEqual([]);
    await picture(page, 'version');
    await page.context().close();
    await gateway.remove();
  });

  it('shows alarms on every page, with what to do about them', async () => {
    await play('fleet', async ({ page }) => {
      const alarms = page.getByRole('region', { name: 'Alarms' });
      await alarms.waitFor();
      expect(await alarms.locator('li').first().textContent()).toMatch(/Act now: .*enroll-token/);
      await alarms.getByRole('button', { name: 'Show 2 more alarms' }).click();
      expect(await alarms.locator('li').count()).toBe(4);
      await picture(page, 'alarms');
      await page.getByRole('link', { name: 'Certificates', exact: true }).click();
      await page.getByRole('heading', { name: '2 certificates have expired' }).waitFor();
      await alarms.waitFor();
    });
  });

  it.each([
    ['dark', DESKTOP],
    ['light', DESKTOP],
    ['dark', PHONE],
    ['light', PHONE],
  ] as const)('keeps a large fleet readable: %s, %o', async (theme, size) => {
    await play(
      'fleet',
      async ({ page }) => {
        const rows = page.locator('[data-certificate]');
        await rows.first().waitFor();
        // What has ended longest comes first; a hundred rows are drawn, and more when asked.
        expect(await rows.first().textContent()).toMatch(/device-002.*Expired.*ago/);
        expect(await rows.count()).toBe(100);
        expect(await accessibility(page)).toEqual([]);
        await picture(page, `fleet-${theme}-${size.width}`);
        await page.getByRole('button', { name: /^Show 100 more of/ }).click();
        expect(await rows.count()).toBe(200);
        await page.getByRole('button', { name: 'See which' }).click();
        await expect.poll(() => rows.count()).toBe(6);
      },
      { size, theme },
      '/certificates',
    );
  });

  it.each([DESKTOP, PHONE])('keeps a hostile client id as the text that it is: %o', async (size) => {
    await play(
      'hostile',
      async ({ page }) => {
        const row = page.locator('[data-session]').filter({ hasText: 'Nobody proven' });
        await row.waitFor();
        expect(await row.textContent()).toContain(HOSTILE_NAME);
        expect(await page.locator('#app img:not([src^="/icons/"]), #app script, [onload]').count()).toBe(0);
        const beyond = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        expect(beyond).toBe(0);
        await picture(page, `hostile-session-${size.width}`);
      },
      { size },
      '/certificates',
    );
  });

  it.each(['empty', 'plain'] as const)('says in words that nothing is kept: %s', async (scenario) => {
    await play(
      scenario,
      async ({ page }) => {
        await page.getByText('No account of certificates', { exact: true }).waitFor();
        if (scenario === 'empty') await page.getByText('Sessions are not known here').waitFor();
        else await page.getByText('Not encrypted').first().waitFor();
        expect(await accessibility(page)).toEqual([]);
        await picture(page, `certificates-${scenario}`);
      },
      { size: DESKTOP },
      '/certificates',
    );
  });
});
