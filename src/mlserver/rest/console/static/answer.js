// A response as a table, bars, a picture, events or JSON, with the time that each stage took.
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { Bar, Copy, Tabs } from "./components.js";
import { percent } from "./format.js";

const MAX_ROWS = 100;
const MAX_COLUMNS = 60;
const MAX_TEXT = 200000;
const MAX_BARS = 50;

/** @typedef {{name: string, shape: number[], datatype: string, data: any[]}} Output */

/** Outputs of a V2 response, or MLflow's predictions in the same form. @param {any} body @returns {Output[]|null} */
export function toOutputs(body) {
  if (Array.isArray(body?.outputs) && body.outputs.every(output => Array.isArray(output?.data) && Array.isArray(output.shape))) {
    return body.outputs.map(output => ({ ...output, data: output.data.flat(Infinity) }));
  }
  if (body?.predictions === undefined) return null;
  const { predictions } = body;
  if (Array.isArray(predictions) && predictions.length && predictions.every(row => row && typeof row === "object" && !Array.isArray(row))) {
    const names = [...new Set(predictions.flatMap(row => Object.keys(row)))];
    return names.map(name => fromNested(name, predictions.map(row => row[name] ?? null)));
  }
  if (predictions && typeof predictions === "object" && !Array.isArray(predictions)) {
    return Object.entries(predictions).map(([name, value]) => fromNested(name, value));
  }
  return [fromNested("predictions", predictions)];
}

/** @param {string} name @param {any} value @returns {Output} */
function fromNested(name, value) {
  const shape = [];
  for (let part = value; Array.isArray(part); [part] = part) shape.push(part.length);
  const data = Array.isArray(value) ? value.flat(Infinity) : [value];
  const isText = typeof data[0] === "string";
  const product = shape.reduce((all, size) => all * size, 1);
  return product === data.length ? { name, shape, datatype: isText ? "BYTES" : "FP64", data } : { name, shape: [value.length], datatype: "BYTES", data: value.map(item => JSON.stringify(item)) };
}

/** Whether the first row may be probabilities. @param {Output} output */
function isProbabilities({ datatype, shape, data }) {
  const classes = shape.at(-1) || 0;
  if (!datatype.startsWith("FP") || shape.length < 2 || classes < 2 || classes > MAX_BARS) return false;
  const row = data.slice(0, classes), sum = row.reduce((all, value) => all + value, 0);
  return row.every(value => value >= 0 && value <= 1) && Math.abs(sum - 1) < 0.01;
}

const SIGNATURES = { iVBORw0KGgo: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif", UklGR: "image/webp" };

/** Media type of a picture in base64; "" = none. @param {any} text */
const pictureType = text => (typeof text === "string" && Object.entries(SIGNATURES).find(([start]) => text.startsWith(start))?.[1]) || "";

/** @param {Output} output */
function pixelSize({ datatype, shape }) {
  if (datatype !== "UINT8") return null;
  const row = shape.length >= 3 && shape[0] === 1 ? shape.slice(1) : shape;
  const [height, width, channels = 1] = row;
  return row.length >= 2 && height > 3 && width > 3 && (channels === 1 || channels === 3) ? { height, width, channels } : null;
}

/** The views that suit a response, the best one first. @param {Output[]|null} outputs */
function listViews(outputs) {
  if (!outputs) return [["json", "JSON"]];
  const views = [["table", "Table"], ["json", "JSON"]];
  if (outputs.some(isProbabilities)) views.unshift(["bars", "Bars"]);
  if (outputs.some(output => pixelSize(output) || output.data.some(pictureType))) views.unshift(["picture", "Picture"]);
  return views;
}

/** @param {{response: {text: string, body: any}}} options */
export function Answer({ response }) {
  const outputs = useMemo(() => toOutputs(response.body), [response]);
  const views = useMemo(() => listViews(outputs), [outputs]);
  const [view, setView] = useState("");
  const shown = views.some(([name]) => name === view) ? view : views[0][0];
  const pretty = useMemo(() => (response.body === null ? response.text : JSON.stringify(response.body, null, 2)).slice(0, MAX_TEXT), [response]);
  return html`<div class="answer"><div class="row">${views.length > 1 && html`<${Tabs} label="View" value=${shown} options=${views} onChange=${setView} />`}<${Copy} text=${response.text} label="Copy response" /></div>
    ${shown === "table" && html`<${OutputTable} outputs=${outputs} />`}
    ${shown === "bars" && outputs.filter(isProbabilities).map(output => html`<${Bars} key=${output.name} output=${output} />`)}
    ${shown === "picture" && outputs.map(output => html`<${Pictures} key=${output.name} output=${output} />`)}
    ${shown === "json" && html`<pre class="body" tabindex="0">${pretty}</pre>`}</div>`;
}

const cellText = value => (value === null || value === undefined ? "null" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** One column per output, or per element of its rows. @param {Output[]} outputs */
function toColumns(outputs) {
  const columns = [];
  for (const output of outputs) {
    const rows = output.shape.length ? output.shape[0] : 1, width = rows ? output.data.length / rows : 1;
    for (let index = 0; index < Math.min(width, MAX_COLUMNS); index += 1) {
      columns.push({
        name: width === 1 ? output.name : `${output.name} ${index}`, isNumber: output.datatype !== "BYTES", rows,
        cell: row => (row < rows ? cellText(output.data[row * width + index]) : ""),
      });
    }
    if (width > MAX_COLUMNS) columns.push({ name: `${output.name}: ${width - MAX_COLUMNS} more`, isNumber: false, rows, cell: () => "…" });
  }
  return columns;
}

/** @param {{outputs: Output[]}} options */
function OutputTable({ outputs }) {
  const columns = toColumns(outputs), rows = Math.max(0, ...columns.map(column => column.rows));
  if (rows === 1 && columns.length <= 12) {
    return html`<dl class="result">${columns.map((column, index) => html`<div key=${index}><dt>${column.name}</dt><dd class=${column.isNumber ? "figure" : "text"}>${column.cell(0)}</dd></div>`)}</dl>`;
  }
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Outputs"><table><thead><tr><th scope="col" class="num">Row</th>${columns.map((column, index) => html`<th scope="col" key=${index} class=${column.isNumber ? "num text" : "text"}>${column.name}</th>`)}</tr></thead>
    <tbody>${Array.from({ length: Math.min(rows, MAX_ROWS) }, (_, row) => html`<tr key=${row}><th scope="row" class="num">${row + 1}</th>${columns.map((column, index) => html`<td key=${index} class=${column.isNumber ? "num" : "text"}>${column.cell(row)}</td>`)}</tr>`)}</tbody></table></div>
    ${rows > MAX_ROWS && html`<p class="quiet">${rows - MAX_ROWS} more rows are in the JSON.</p>`}`;
}

/** The first row of an output as bars. @param {{output: Output}} options */
function Bars({ output }) {
  const classes = output.shape.at(-1) || 0, row = output.data.slice(0, classes), best = Math.max(...row);
  return html`<table class="bars"><caption>${output.name}${output.data.length > classes && ", first row"}</caption><tbody>${row.map((value, index) =>
    html`<tr key=${index}><th scope="row">${index}</th><td><${Bar} share=${value} tone=${value === best ? "best" : ""} /></td><td class="num">${percent(value)}</td></tr>`)}</tbody></table>`;
}

/** @param {{output: Output}} options */
function Pictures({ output }) {
  const size = pixelSize(output);
  if (size) return html`<${Pixels} output=${output} size=${size} />`;
  return output.data.filter(pictureType).map((text, index) => html`<img key=${index} class="picture" src="data:${pictureType(text)};base64,${text}" alt="${output.name}, element ${index + 1}" />`);
}

/** A tensor of bytes, drawn. */
function Pixels({ output, size }) {
  const canvas = useRef(null);
  useEffect(() => {
    const context = canvas.current.getContext("2d"), image = context.createImageData(size.width, size.height);
    for (let pixel = 0; pixel < size.width * size.height; pixel += 1) {
      for (let part = 0; part < 3; part += 1) image.data[pixel * 4 + part] = output.data[pixel * size.channels + (size.channels === 1 ? 0 : part)];
      image.data[pixel * 4 + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [output]);
  return html`<canvas ref=${canvas} class="picture pixels" width=${size.width} height=${size.height} role="img" aria-label=${output.name}></canvas>`;
}

const STAGES = [["queue", "queue"], ["transport", "transport"], ["model", "model"], ["codec", "reading and writing"], ["network", "network and browser"]];

/** Where the time went. @param {{timing: {stages: Record<string, number>, batch: string}, total: number}} options milliseconds */
export function Timing({ timing, total }) {
  const known = Object.values(timing.stages).reduce((sum, value) => sum + value, 0);
  const stages = { ...timing.stages, network: Math.max(0, total - known) };
  let start = 0;
  const parts = STAGES.filter(([name]) => stages[name] !== undefined).map(([name, text]) => {
    const part = { name, text, start, value: stages[name] };
    start += part.value;
    return part;
  });
  return html`<div class="timing"><svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">${parts.map(part =>
      html`<rect key=${part.name} class="stage-${part.name}" x=${(part.start / start) * 100} width=${(part.value / start) * 100} height="6" />`)}</svg>
    <ul>${parts.map(part => html`<li key=${part.name}><span class="dot stage-${part.name}" aria-hidden="true"></span>${part.text} <strong>${part.value.toFixed(2)} ms</strong></li>`)}
      <li>total <strong>${total.toFixed(1)} ms</strong></li>${timing.batch && html`<li class="quiet">batch of ${timing.batch.replace(/\b1 (\w+)s\b/g, "1 $1")}</li>`}</ul></div>`;
}

