// Plots of the last minutes: uPlot, a picture to save, and the numbers as a table.
import { html, useEffect, useRef } from "./lib.js";
import library from "./vendor/uplot.js";
import { UNKNOWN, bytes, clock, duration } from "./format.js";
import { POINTS, store } from "./store.js";

/** The library has no types. @type {any} */
const uPlot = library;

const HEIGHT = 170;
const ROWS = 12;
// Top of an axis without data, where it is not 1.
const EMPTY_TOP = new Map([[duration, 0.01], [bytes, 2 ** 20]]);
const BYTE_STEPS = Array.from({ length: 44 }, (_, exponent) => 2 ** exponent);
const COLORS = ["--plot-1", "--plot-2", "--plot-3", "--plot-4", "--plot-5", "--plot-6"];

/** @param {string} name */
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** @param {Float64Array} values */
const toPlot = values => Array.from(values, value => (Number.isFinite(value) ? value : null));

/** @param {{label: string, values: Float64Array}[]} lines */
function collect(lines, minutes) {
  const first = Math.max(0, POINTS - minutes * 60);
  const start = store.times.findIndex((time, index) => index >= first && !Number.isNaN(time));
  const from = start < 0 ? POINTS : start;
  return [Array.from(store.times.subarray(from)), ...lines.map(line => toPlot(line.values.subarray(from)))];
}

/** The shown span grows from one minute to all of them. */
function visibleRange(minutes) {
  const last = store.times[POINTS - 1] || Date.now() / 1000, first = store.times.find(time => !Number.isNaN(time)) ?? last;
  return [Math.max(last - minutes * 60, Math.min(first, last - 60)), last];
}

/** Show the latest values in the legend, unless the pointer selects others. */
function update(plot, lines, minutes) {
  const data = collect(lines, minutes);
  plot.setData(data);
  if (plot.cursor.left === undefined || plot.cursor.left < 0) plot.setLegend({ idx: data[0].length - 1 }, false);
}

function createPlot(element, lines, format, minutes) {
  const grid = { stroke: css("--line"), width: 1 };
  const axis = { stroke: css("--quiet"), font: "11px system-ui", grid, ticks: { show: false } };
  const series = lines.map((line, index) => ({
    label: line.label, stroke: css(COLORS[index % COLORS.length]), width: 1.5, ...(index === 0 ? { fill: `${css(COLORS[0])}1f` } : {}), spanGaps: false, points: { show: false },
    value: (_, value) => (value === null || value === undefined ? UNKNOWN : format(value)),
  }));
  const options = {
    width: Math.max(200, element.clientWidth), height: HEIGHT, padding: [8, 26, 0, 0],
    scales: { x: { time: true, range: () => visibleRange(minutes) }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : EMPTY_TOP.get(format) || 1] } },
    axes: [{ ...axis, size: 26, values: (_, ticks) => ticks.map(clock), space: 90 },
      { ...axis, size: 66, values: (_, ticks) => ticks.map(tick => format(tick)), space: 34, ...(format === bytes ? { incrs: BYTE_STEPS } : {}) }],
    series: [{ label: "Time", value: (_, value) => clock(value) }, ...series],
    cursor: { y: false, points: { size: 6 } },
    legend: { live: true, markers: { width: 0, fill: (_, index) => css(COLORS[(index - 1) % COLORS.length]) } },
  };
  return new uPlot(options, collect(lines, minutes), element);
}

/** Save the canvas with the page's background. */
function savePicture(plot, title) {
  const source = plot.ctx.canvas, copy = document.createElement("canvas");
  copy.width = source.width;
  copy.height = source.height;
  const context = copy.getContext("2d");
  context.fillStyle = css("--surface");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(source, 0, 0);
  copy.toBlob(blob => {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.png`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
  });
}

/**
 * @param {{title: string, lines: {label: string, values: Float64Array}[], format: (value: number) => string, minutes?: number}} options
 */
export function Plot({ title, lines, format, minutes = 15 }) {
  const holder = useRef(null), plot = useRef(null), latest = useRef(lines);
  latest.current = lines;
  const names = lines.map(line => line.label).join("\n");
  useEffect(() => {
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const build = () => {
      plot.current?.destroy();
      plot.current = createPlot(holder.current, latest.current, format, minutes);
      update(plot.current, latest.current, minutes);
    };
    build();
    const observer = new ResizeObserver(() => holder.current && plot.current?.setSize({ width: Math.max(200, holder.current.clientWidth), height: HEIGHT }));
    observer.observe(holder.current);
    scheme.addEventListener("change", build);
    return () => {
      scheme.removeEventListener("change", build);
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [title, names, minutes]);
  useEffect(() => { if (plot.current) update(plot.current, lines, minutes); });
  const values = lines.map(line => `${line.label} ${formatLast(line.values, format)}`).join(", ");
  return html`<figure class="card plot">
    <figcaption><h3>${title}</h3><button type="button" class="quiet-button" aria-label="Save picture: ${title}"
      onClick=${() => savePicture(plot.current, title)}>Save picture</button></figcaption>
    <div ref=${holder} class="plot-area" role="img" aria-label="${title}: ${values}"></div>
    <details class="numbers"><summary>Numbers</summary><${Numbers} title=${title} lines=${lines} format=${format} /></details>
  </figure>`;
}

/** @param {Float64Array} values @param {(value: number) => string} format */
function formatLast(values, format) {
  const last = values.at(-1);
  return last === undefined || Number.isNaN(last) ? UNKNOWN : format(last);
}

/** The last points as a table. */
function Numbers({ title, lines, format }) {
  const indices = Array.from({ length: ROWS }, (_, row) => POINTS - 1 - row).filter(index => !Number.isNaN(store.times[index]));
  const cell = value => (Number.isNaN(value) ? UNKNOWN : format(value));
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${title}, numbers"><table>
    <thead><tr><th scope="col">Time</th>${lines.map(line => html`<th key=${line.label} scope="col" class="num">${line.label}</th>`)}</tr></thead>
    <tbody>${indices.map(index => html`<tr key=${index}><th scope="row">${clock(store.times[index])}</th>
      ${lines.map(line => html`<td key=${line.label} class="num">${cell(line.values[index])}</td>`)}</tr>`)}</tbody></table></div>`;
}
