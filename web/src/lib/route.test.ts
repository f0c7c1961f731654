import { describe, expect, it } from 'vitest';
import { addressOf, routeOf } from './route';

describe('route', () => {
  it('names the page of an address, and the overview where it names none', () => {
    expect(routeOf('/certificates', '').page).toBe('certificates');
    for (const path of ['/', '/dashboard', '/certificates/', '/CERTIFICATES', '/constructor']) {
      expect(routeOf(path, '').page).toBe('overview');
    }
  });

  it('leads back to what an address was made of', () => {
    const query = { q: 'device:"a b" & <c>', role: 'device' };
    const address = new URL(addressOf('certificates', query), 'http://localhost');
    expect(routeOf(address.pathname, address.search)).toEqual({ page: 'certificates', query });
  });

  it('leaves out what has no value', () => {
    expect(addressOf('certificates', { q: '', role: '' })).toBe('/certificates');
    expect(addressOf('overview')).toBe('/');
  });

  it('reads no more than it has room for', () => {
    const { query } = routeOf('/', `?q=${'x'.repeat(5_000)}`);
    expect(query['q']).toHaveLength(200);
    const many = Array.from({ length: 100 }, (_, at) => `a${at}=1`).join('&');
    expect(Object.keys(routeOf('/', `?${many}`).query)).toHaveLength(16);
  });
});
