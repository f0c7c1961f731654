// The paths of sparklines, in a box `length` wide and 24 high; the newest value is at the right.

const HEIGHT = 24;
const MARGIN = 3;
/** A line's range is at least this share of its values, so that noise does not look like a storm. */
const LEAST_SPAN = 0.02;

const short = (value: number) => Number(value.toFixed(2));

/** A line through the last `length` values, with a break wherever one is missing. */
export function linePath(values: readonly (number | null)[], length: number): string {
  const shown = values.slice(-length);
  const known = shown.filter((value) => value !== null);
  if (known.length < 2) return '';
  let low = Math.min(...known);
  let high = Math.max(...known);
  const least = Math.max(Math.abs(low), Math.abs(high)) * LEAST_SPAN || 1;
  if (high - low < least) {
    const middle = (high + low) / 2;
    low = middle - least / 2;
    high = middle + least / 2;
  }
  const start = length - shown.length + 0.5;
  let path = '';
  let broken = true;
  shown.forEach((value, index) => {
    if (value !== null) {
      const y = MARGIN + (1 - (value - low) / (high - low)) * (HEIGHT - 2 * MARGIN);
      path += `${broken ? 'M' : 'L'}${short(start + index)} ${short(y)}`;
    }
    broken = value === null;
  });
  return path;
}

/** A bar for each of the last `length` values, from nothing up to the largest. */
export function barsPath(values: readonly (number | null)[], length: number): string {
  const shown = values.slice(-length);
  const high = Math.max(1, ...shown.map((value) => value ?? 0));
  const start = length - shown.length;
  let path = '';
  shown.forEach((value, index) => {
    if (!value) return;
    const top = HEIGHT - Math.max(1.5, (value / high) * HEIGHT);
    path += `M${short(start + index + 0.1)} ${HEIGHT}V${short(top)}h0.8V${HEIGHT}z`;
  });
  return path;
}
