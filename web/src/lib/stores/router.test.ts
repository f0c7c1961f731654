import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Router } from './router.svelte';

let router: Router;
const at = () => window.location.pathname + window.location.search;

beforeEach(() => {
  vi.useFakeTimers();
  window.history.replaceState(null, '', '/');
  router = new Router();
});

afterEach(() => {
  document.body.replaceChildren();
  vi.useRealTimers();
});

function click(address: string, change: MouseEventInit = {}): MouseEvent {
  const link = document.createElement('a');
  link.href = address;
  if (address.startsWith('/')) link.setAttribute('data-page', '');
  document.body.append(link);
  const event = new MouseEvent('click', { bubbles: true, cancelable: true, ...change });
  link.addEventListener('click', (passed) => router.click(passed));
  link.dispatchEvent(event);
  return event;
}

describe('router', () => {
  it('goes where a link leads, without loading anything', () => {
    const event = click('/certificates?role=device');
    expect(event.defaultPrevented).toBe(true);
    expect([router.page, router.query, router.moves]).toEqual(['certificates', { role: 'device' }, 1]);
    expect(at()).toBe('/certificates?role=device');
  });

  it.each([{ ctrlKey: true }, { metaKey: true }, { shiftKey: true }, { button: 1 }])(
    'leaves a click to the browser that asks for another tab: %o',
    (change) => {
      expect(click('/certificates', change).defaultPrevented).toBe(false);
      expect(router.moves).toBe(0);
    },
  );

  it('leaves links to other places alone', () => {
    expect(click('#event-list').defaultPrevented).toBe(false);
    expect(click('https://example.com/certificates').defaultPrevented).toBe(false);
  });

  it('writes what a page shows into the address, once it has come to rest', () => {
    for (const q of ['d', 'de', 'dev']) router.note('overview', { q });
    expect(at()).toBe('/');
    vi.runAllTimers();
    expect(at()).toBe('/?q=dev');
    expect([router.query, router.moves]).toEqual([{ q: 'dev' }, 0]);
  });

  it('keeps what a page showed when it is left before the note was written', () => {
    router.note('overview', { tab: 'blocked' });
    const before = window.history.length;
    router.go('certificates');
    expect(window.history.length).toBe(before + 1);
    expect(at()).toBe('/certificates');
    vi.runAllTimers();
    expect(at()).toBe('/certificates');
  });

  it('writes nothing of a page that was left', () => {
    router.go('certificates');
    router.note('overview', { tab: 'blocked' });
    vi.runAllTimers();
    expect(at()).toBe('/certificates');
  });
});
