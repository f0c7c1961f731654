// A browser for the tests, and what went wrong in its pages.

import { AxeBuilder } from '@axe-core/playwright';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type Page } from 'playwright-core';

const EXECUTABLE = process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium';
const OUTPUT = fileURLToPath(new URL('./output/', import.meta.url));

export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

export interface Look {
  size: { width: number; height: number };
  theme?: 'dark' | 'light';
}

/** A page, and the faults that its browser reported. */
export interface Watched {
  page: Page;
  /** Script errors and console errors, without connections that the test itself cut. */
  faults: string[];
  /** What the Content-Security-Policy had to stop. */
  violations: () => Promise<string[]>;
}

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: EXECUTABLE, args: ['--no-sandbox'] });
}

export async function open(browser: Browser, address: string, look: Look): Promise<Watched> {
  const touch = look.size.width < 700;
  const context = await browser.newContext({
    viewport: look.size,
    colorScheme: look.theme ?? 'dark',
    hasTouch: touch,
    isMobile: touch,
    reducedMotion: 'reduce',
  });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('dialog', (dialog) => {
    faults.push(`a dialog said: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('console', (message) => {
    const text = message.text();
    const cut = /WebSocket connection|ERR_CONNECTION/.test(text);
    if (['error', 'warning'].includes(message.type()) && !cut) faults.push(text);
  });
  await page.addInitScript(() => {
    const seen: string[] = [];
    Object.assign(window, { policyViolations: seen });
    document.addEventListener('securitypolicyviolation', (event) => {
      seen.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
    });
  });
  await page.goto(address);
  const violations = () =>
    page.evaluate(() => (window as unknown as { policyViolations: string[] }).policyViolations);
  return { page, faults, violations };
}

/** Waits until the page is live. */
export async function live(page: Page): Promise<void> {
  await page.locator('[data-state="live"]').waitFor({ timeout: 30_000 });
  await page.locator('[data-condition]').waitFor();
}

/** Every violation of WCAG 2.2 AA and of axe's best practices, in words. */
export async function accessibility(page: Page): Promise<string[]> {
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const { violations } = await new AxeBuilder({ page }).withTags(tags).analyze();
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 160)}`));
}

/** Saves a picture of the page, for people to look at. */
export async function picture(page: Page, name: string): Promise<void> {
  await mkdir(OUTPUT, { recursive: true });
  await page.screenshot({ path: `${OUTPUT}${name}.png`, fullPage: true });
}
