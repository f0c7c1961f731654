// The two charts of the traffic panel, on uPlot: accepted above, what needs attention below on its own scale.

import uPlot from 'uplot';
import { clock, compact } from './format';
import { SECONDS, type Columns } from './stores/seconds';

/** A second of the chart under the pointer, or null when it has left. */
export type Hover = (t: number | null) => void;

/** The colour that a token has on `element` now, theme and all. */
function colour(element: HTMLElement, token: string): string {
  const before = element.style.color;
  element.style.color = `var(${token})`;
  const found = getComputedStyle(element).color;
  element.style.color = before;
  return found;
}

function options(host: HTMLElement, hover: Hover, axis: { time: boolean }): uPlot.Options {
  const text = {
    stroke: colour(host, '--text-3'),
    font: '11px "Inter Variable"',
    ticks: { show: false },
  };
  return {
    width: Math.max(50, host.clientWidth),
    height: Math.max(50, host.clientHeight),
    padding: [8, 26, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: 'traffic' },
      points: { show: false },
      y: false,
      drag: { x: false, y: false },
    },
    scales: {
      x: { range: (_, __, newest) => [newest - SECONDS + 1, newest + 0.5] },
      y: { range: (_, __, highest) => [0, Math.max(5, highest * 1.2)] },
    },
    axes: [
      axis.time
        ? {
            ...text,
            size: 24,
            space: 80,
            grid: { show: false },
            values: (_, ticks) => ticks.map((second) => clock(second * 1000)),
          }
        : { ...text, size: 4, grid: { show: false }, values: () => [] },
      {
        ...text,
        size: 44,
        space: 34,
        grid: { stroke: colour(host, '--line'), width: 1 },
        values: (_, ticks) => ticks.map((value) => (Number.isInteger(value) ? compact(value) : '')),
      },
    ],
    series: [{}],
    hooks: {
      setCursor: [
        (chart) => {
          const index = chart.cursor.idx;
          hover(index === null || index === undefined ? null : (chart.data[0][index] ?? null));
        },
      ],
    },
  };
}

/** Accepted messages per second, as a line. */
export function acceptedChart(host: HTMLElement, hover: Hover): uPlot {
  const base = options(host, hover, { time: false });
  base.series.push({
    stroke: colour(host, '--accepted-fill'),
    fill: `color-mix(in srgb, ${colour(host, '--accepted-fill')} 14%, transparent)`,
    width: 1.8,
    points: { show: false },
  });
  return new uPlot(base, [[], []], host);
}

/** Flagged, blocked and got in per second, as stacked bars. */
export function attentionChart(host: HTMLElement, hover: Hover): uPlot {
  const base = options(host, hover, { time: true });
  const paths = uPlot.paths.bars?.({ size: [0.74, 14] });
  for (const token of ['--flagged-fill', '--blocked-fill', '--got-in-fill']) {
    const fill = colour(host, token);
    base.series.push({ fill, stroke: fill, width: 0, points: { show: false }, ...(paths ? { paths } : {}) });
  }
  return new uPlot(base, [[], [], [], []], host);
}

/** The columns as nested totals, the tallest first: uPlot does not stack, drawing them so does. */
export function stacked(columns: Columns): uPlot.AlignedData {
  const got_in = columns.got_in;
  const blocked = columns.blocked.map((value, i) => (value === null ? null : value + (got_in[i] ?? 0)));
  const flagged = columns.flagged.map((value, i) => (value === null ? null : value + (blocked[i] ?? 0)));
  return [columns.t, flagged, blocked, got_in];
}
