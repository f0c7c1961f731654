import { expect, it } from 'vitest';
import { barsPath, linePath } from './spark';

it('draws a line that ends at the right', () => {
  expect(linePath([0, 10], 4)).toBe('M2.5 21L3.5 3');
});

it('breaks the line where a value is missing', () => {
  expect(linePath([0, null, 10, 10], 4)).toBe('M0.5 21M2.5 3L3.5 3');
});

it('draws no line through fewer than two values', () => {
  expect(linePath([7], 4)).toBe('');
  expect(linePath([null, null], 4)).toBe('');
});

it('does not blow noise up to a storm', () => {
  expect(linePath([100, 100.02], 2)).toBe('M0.5 12.09L1.5 11.91');
});

it('keeps to the newest values', () => {
  expect(linePath([99, 0, 10], 2)).toBe('M0.5 21L1.5 3');
});

it('draws a bar for each value but nothing', () => {
  expect(barsPath([0, 4, null, 8], 4)).toBe('M1.1 24V12h0.8V24zM3.1 24V0h0.8V24z');
});
