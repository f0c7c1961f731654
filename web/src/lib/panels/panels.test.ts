import { cleanup, render, screen } from '@testing-library/svelte';
import { tick } from 'svelte';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { aBlocked } from '../../../dev/events';
import { HOSTILE_NAME } from '../../../dev/scenery';
import { Traffic, type Scenario } from '../../../dev/traffic';
import type { EventView } from '../protocol';
import { Groups } from '../stores/groups';
import { Gateway } from '../stores/gateway.svelte';
import { Stream } from '../stores/stream.svelte';
import EventDetail from './EventDetail.svelte';
import Figures from './Figures.svelte';
import Layers from './Layers.svelte';
import Notices from './Notices.svelte';
import Waiting from './Waiting.svelte';
import Zones from './Zones.svelte';

afterEach(cleanup);

function gateway(scenario: Scenario): Gateway {
  const made = new Gateway();
  made.hello(new Traffic(scenario, 1_800_000_000_000).hello(null));
  return made;
}

function detail(events: EventView[], calls: { only?: (term: string) => void } = {}) {
  const groups = new Groups(9);
  const group = events.map((event, i) => groups.put(event, i + 1)).at(-1);
  if (!group) throw new Error('no event');
  const { only = vi.fn() } = calls;
  return render(EventDetail, { group, gateway: gateway('mixed'), close: vi.fn(), only });
}

describe('opened event', () => {
  it('shows a hostile name as the text that it is', () => {
    const { container } = detail([aBlocked(1, { device: HOSTILE_NAME, raw: '</pre><script>1</script>' })]);
    expect(screen.getByText(HOSTILE_NAME)).toBeTruthy();
    expect(container.querySelectorAll('img, script')).toHaveLength(0);
  });

  it('says in words where the message was stopped', () => {
    const { container } = detail([aBlocked(1)]);
    const stopped = container.querySelector('[data-step="stopped"]');
    expect(stopped?.textContent).toContain('Signature');
    expect(stopped?.textContent).toContain('stopped here');
    expect(container.querySelectorAll('[data-step="unreached"]')).toHaveLength(4);
  });

  it('sets what was expected beside what was seen', () => {
    detail([aBlocked(1, { expected: 'a loss of 6 PSI', detail: 'a loss of 9 PSI' })]);
    expect(screen.getByText('Expected').nextElementSibling?.textContent).toBe('a loss of 6 PSI');
    expect(screen.getByText('Seen').nextElementSibling?.textContent).toBe('a loss of 9 PSI');
  });

  it('leads through the repeats that were kept', async () => {
    const { container } = detail([1, 2, 3].map((id) => aBlocked(id)));
    const shown = () => container.querySelector('article')?.dataset['event'];
    const earlier = screen.getByRole('button', { name: 'Earlier one' }) as HTMLButtonElement;
    expect(shown()).toBe('3');
    earlier.click();
    await tick();
    earlier.click();
    await tick();
    expect(shown()).toBe('1');
    expect(earlier.disabled).toBe(true);
  });

  it('narrows the list to its device', () => {
    const only = vi.fn();
    detail([aBlocked(1)], { only });
    screen.getByRole('button', { name: 'Only this device' }).click();
    expect(only).toHaveBeenCalledWith('device:"device-001"');
  });
});

describe('figures', () => {
  it('show no rate when the stream is not fresh', () => {
    const { container } = render(Figures, { gateway: gateway('calm'), fresh: false });
    expect(container.querySelector('[data-figure="accepted"] .value')?.textContent).toBe('–');
  });

  it('count what got in since the beginning', () => {
    const at = gateway('plain');
    const { container } = render(Figures, { gateway: at, fresh: true });
    expect(at.totals.got_in).toBeGreaterThan(0);
    expect(container.querySelector('[data-figure="got_in"] .value')?.textContent).toBe(
      String(at.totals.got_in),
    );
  });
});

describe('zones', () => {
  it('say their status in words, with units beside every number', () => {
    const { container } = render(Zones, {
      props: { gateway: gateway('silence'), events: new Stream().events, show: vi.fn() },
    });
    const pool = container.querySelector('[data-zone="pool_spa"]');
    expect(pool?.textContent).toContain('Silent');
    expect(pool?.textContent).toContain('No reading for 2 min');
    expect(pool?.querySelectorAll('small')).toHaveLength(5);
  });

  it('say so when there is none', () => {
    render(Zones, { props: { gateway: new Gateway(), events: new Stream().events, show: vi.fn() } });
    expect(screen.getByText(/No zone is registered/)).toBeTruthy();
  });
});

describe('layers', () => {
  it('say in words which are off', () => {
    const { container } = render(Layers, { gateway: gateway('plain') });
    expect(container.querySelector('[data-layer="signature"] .state')?.textContent).toContain('Off');
    expect(container.querySelector('[data-layer="limits"] .state')?.textContent).toContain('On');
  });
});

describe('states', () => {
  it('warn when messages are not protected', () => {
    const stream = new Stream();
    stream.gateway.hello(new Traffic('plain', 1_800_000_000_000).hello(null));
    render(Notices, { stream });
    expect(screen.getByText(/Messages are not protected/)).toBeTruthy();
  });

  it('tell a lost connection, and since when the page stands still', () => {
    const stream = new Stream();
    stream.link = { state: 'disconnected', since_ms: 0, heard_ms: 0, retry_ms: null, failures: 1 };
    render(Notices, { stream });
    expect(screen.getByRole('alert').textContent).toContain('What you see is from');
  });

  it('ask to load the page again for another version', () => {
    const stream = new Stream();
    stream.trouble = { kind: 'version', theirs: '9', ours: 1 };
    render(Waiting, { stream });
    expect(screen.getByRole('button', { name: 'Load again' })).toBeTruthy();
  });

  it('say that the gateway does not answer', () => {
    const stream = new Stream();
    stream.link = { state: 'disconnected', since_ms: 0, heard_ms: null, retry_ms: null, failures: 2 };
    render(Waiting, { stream });
    expect(screen.getByText('The gateway does not answer')).toBeTruthy();
  });
});
