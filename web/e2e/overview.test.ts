// The overview against a running gateway: what a person does with it, with mouse, keyboard and phone.

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
import { startGateway, type Gateway } from './tidegate';

/** In the demo an attack comes now and then. */
const ATTACK_WITHIN_MS = 90_000;

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

async function visit(look: Look, what: (page: Page, watched: Watched) => Promise<void>): Promise<void> {
  const watched = await open(browser, gateway.address, look);
  try {
    await live(watched.page);
    await what(watched.page, watched);
    expect(watched.faults).toEqual([]);
    expect(await watched.violations()).toEqual([]);
  } finally {
    await watched.page.context().close();
  }
}

const rows = (page: Page) => page.locator('[role="row"][id^="event-"]');

async function blocked(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Blocked', exact: true }).click();
  await rows(page).first().waitFor({ timeout: ATTACK_WITHIN_MS });
}

describe('overview', () => {
  it('counts on while it is live', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      const total = page.locator('[data-figure="accepted"] .note');
      const before = await total.textContent();
      await expect.poll(() => total.textContent(), { timeout: 10_000 }).not.toBe(before);
      await expect.poll(() => page.title()).toContain('Tidegate');
    });
  });

  it(
    'lists a blocked message, and says which layer stopped it',
    async () => {
      await visit({ size: DESKTOP }, async (page) => {
        await blocked(page);
        await rows(page).first().click();
        const opened = page.locator('article[data-event]');
        await opened.waitFor();
        expect(await opened.locator('[data-step="stopped"]').textContent()).toContain('stopped here');
        await picture(page, 'event-open');
        await page.getByRole('button', { name: 'Close the event' }).click();
        await opened.waitFor({ state: 'detached' });
      });
    },
    ATTACK_WITHIN_MS + 30_000,
  );

  it('shows only what the tab and the search ask for', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      await page.getByRole('button', { name: 'Accepted', exact: true }).click();
      await rows(page).first().waitFor();
      const kinds = await rows(page).locator('.kind').allTextContents();
      expect(new Set(kinds)).toEqual(new Set(['Accepted']));
      const search = page.getByRole('textbox', { name: 'Search the events' });
      await search.fill('no such thing');
      await page.getByText('Nothing matches the search').waitFor();
      await search.fill('-"no such thing"');
      await rows(page).first().waitFor();
    });
  });

  it('stands still while an event is open, and goes on when asked', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      await page.getByRole('button', { name: 'All', exact: true }).click();
      await rows(page).first().click();
      const show = page.getByRole('button', { name: /^Show .* new$/ });
      await show.waitFor({ timeout: 15_000 });
      await show.click();
      await page.getByRole('button', { name: 'Pause', exact: true }).waitFor();
    });
  });

  it('is used by keyboard alone', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      await page.getByRole('button', { name: 'All', exact: true }).click();
      await rows(page).first().waitFor();
      const focused = () =>
        page.evaluate(() => document.activeElement?.id || document.activeElement?.tagName);

      await page.keyboard.press('/');
      expect(await focused()).toBe('INPUT');
      await page.keyboard.type('device');
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
      expect(await focused()).toBe('event-list');

      await page.keyboard.press('j');
      expect(await page.locator('[role="row"][aria-selected="true"]').count()).toBe(1);
      await page.keyboard.press('Enter');
      await expect.poll(focused).toBe('opened');
      await page.keyboard.press('Escape');
      await page.locator('article[data-event]').waitFor({ state: 'detached' });
      expect(await focused()).toBe('event-list');

      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Help' }).waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('dialog', { name: 'Help' }).waitFor({ state: 'detached' });
    });
  });

  it('leaves single keys alone when they are turned off', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      await page.keyboard.press('?');
      await page.getByLabel('Single keys act as shortcuts').uncheck();
      await page.keyboard.press('Escape');
      await page.keyboard.press('/');
      expect(await page.evaluate(() => document.activeElement?.tagName)).not.toBe('INPUT');
    });
  });

  it.each([360, 390, 768, 1024, 1440, 2560])('fits a screen %d pixels wide', async (width) => {
    await visit({ size: { width, height: 900 } }, async (page) => {
      const beyond = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect(beyond).toBe(0);
      expect(await overlaps(page)).toEqual([]);
    });
  });

  it('opens an event over the page on a phone', async () => {
    await visit({ size: PHONE, theme: 'light' }, async (page) => {
      await page.getByRole('button', { name: 'All', exact: true }).click();
      await rows(page).first().click();
      await page.getByRole('dialog', { name: 'Event' }).waitFor();
      expect(await accessibility(page)).toEqual([]);
      await page.getByRole('button', { name: 'Close the event' }).click();
      await page.getByRole('dialog', { name: 'Event' }).waitFor({ state: 'detached' });
    });
  });

  it.each([
    ['dark', DESKTOP],
    ['light', DESKTOP],
    ['dark', PHONE],
    ['light', PHONE],
  ] as const)('is accessible: %s, %o', async (theme, size) => {
    await visit({ size, theme }, async (page) => {
      await picture(page, `overview-${theme}-${size.width}`);
      expect(await accessibility(page)).toEqual([]);
      await page.getByRole('button', { name: 'Help and shortcuts' }).click();
      await page.getByRole('dialog', { name: 'Help' }).waitFor();
      expect(await accessibility(page)).toEqual([]);
    });
  });

  it('changes its theme, and keeps it', async () => {
    await visit({ size: DESKTOP, theme: 'dark' }, async (page) => {
      const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
      const dark = await ground();
      await page.getByRole('button', { name: /^Theme/ }).click();
      const light = await ground();
      expect(light).not.toBe(dark);
      await page.reload();
      await live(page);
      expect(await ground()).toBe(light);
    });
  });

  it('says within five seconds that the gateway is gone, and comes back with it', async () => {
    await visit({ size: DESKTOP }, async (page) => {
      const newest = () => rows(page).first().getAttribute('id');
      await page.getByRole('button', { name: 'All', exact: true }).click();
      await rows(page).first().waitFor();
      await gateway.stop();
      await page.getByRole('alert').filter({ hasText: 'Disconnected' }).waitFor({ timeout: 5_000 });
      await expect.poll(() => page.title()).toContain('Disconnected');
      expect(await accessibility(page)).toEqual([]);
      await picture(page, 'disconnected');
      await gateway.start();
      await live(page);
      expect(await page.getByRole('alert').count()).toBe(0);
      expect(await newest()).not.toBeNull();
    });
  }, 180_000);
});

/** Texts of the figures that lie over one another. */
function overlaps(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const found: string[] = [];
    for (const card of document.querySelectorAll('[data-figure]')) {
      const boxes = [...card.children].map((child) => ({ child, box: child.getBoundingClientRect() }));
      for (const [i, a] of boxes.entries()) {
        for (const b of boxes.slice(i + 1)) {
          const apart =
            a.box.right <= b.box.left + 1 ||
            b.box.right <= a.box.left + 1 ||
            a.box.bottom <= b.box.top + 1 ||
            b.box.bottom <= a.box.top + 1;
          if (!apart) found.push(`${a.child.textContent} / ${b.child.textContent}`);
        }
      }
    }
    return found;
  });
}
