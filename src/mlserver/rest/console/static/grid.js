// A tensor of two dimensions as a grid of cells, to type into or to paste from a spreadsheet.
import { html, useRef, useState } from "./lib.js";
import { isElement } from "./tensors.js";

/** Larger tensors are edited as text. */
export const MAX_CELLS = 200;

/** @typedef {import("./tensors.js").Field} Field */

/** Whether the inputs of a field can be cells, whatever its value. @param {Field} field */
export const canBeGrid = field => field.kind === "tensor" && field.shape.length === 2 && Math.max(1, field.shape[0]) * Math.max(1, field.shape[1]) <= MAX_CELLS;

/**
 * Texts of the cells; null = the text is too large or no table.
 * @param {Field} field @param {string} text @returns {string[][]|null}
 */
export function readGrid(field, text) {
  const rows = text.trim() ? parseRows(text) : emptyRows(field);
  if (!rows || !rows.length || !rows[0].length) return null;
  const isTable = rows.every(row => row.length === rows[0].length);
  const fits = [rows.length, rows[0].length].every((size, axis) => field.shape[axis] < 0 || field.shape[axis] === size);
  return isTable && fits && rows.length * rows[0].length <= MAX_CELLS ? rows : null;
}

/** @param {Field} field */
const emptyRows = field => Array.from({ length: Math.max(1, field.shape[0]) }, () => Array.from({ length: Math.max(1, field.shape[1]) }, () => ""));

/** @param {string} text @returns {string[][]|null} */
function parseRows(text) {
  if (!text.trim().startsWith("[")) return text.split("\n").filter(line => line.trim()).map(line => line.trim().split(/\s*[,;\t]\s*|\s+/));
  try {
    const rows = JSON.parse(text);
    const isNested = rows.every(row => Array.isArray(row) && row.every(item => item !== null && typeof item !== "object"));
    return isNested ? rows.map(row => row.map(String)) : null;
  } catch {
    return null;
  }
}

/** One line per row; JSON where a cell would not be read as one element. @param {Field} field @param {string[][]} cells */
export function writeGrid(field, cells) {
  const isPlain = field.datatype !== "BYTES" && cells[0].length > 1 && cells.flat().every(cell => !/[\s,;[\]]/.test(cell));
  return isPlain ? cells.map(row => row.join(", ")).join("\n") : JSON.stringify(cells);
}

/** Cells of a text from a spreadsheet; null = a single one. @param {string} text @returns {string[][]|null} */
function readPasted(text) {
  const lines = text.replace(/\r/g, "").replace(/\n$/, "").split("\n");
  const separator = ["\t", ";", ","].find(mark => text.includes(mark));
  if (lines.length === 1 && !separator) return null;
  return lines.map(line => (separator ? line.split(separator) : [line]).map(cell => cell.trim()));
}

/**
 * The cells with a block written into them; rows are added where the shape allows it.
 * @param {Field} field @param {string[][]} cells @param {string[][]} block
 * @returns {{cells: string[][], problem: string}}
 */
function insertBlock(field, cells, block, row, column) {
  const width = cells[0].length, needed = column + Math.max(...block.map(line => line.length));
  if (needed > width && field.shape[1] > 0) return { cells, problem: `Pasted columns: expected at most ${width - column} from column ${column + 1}, received ${needed - column}` };
  if (row + block.length > cells.length && field.shape[0] > 0) return { cells, problem: `Pasted rows: expected at most ${cells.length - row} from row ${row + 1}, received ${block.length}` };
  const height = Math.max(cells.length, row + block.length);
  const written = Array.from({ length: height }, (_, y) => Array.from({ length: Math.max(width, needed) }, (__, x) => block[y - row]?.[x - column] ?? cells[y]?.[x] ?? ""));
  return { cells: written, problem: "" };
}

/** Move the focus to a neighbour; the text's own keys work within a cell. @param {KeyboardEvent} event */
function moveFocus(event, table) {
  const input = /** @type {HTMLInputElement} */ (event.target), [row, column] = input.dataset.cell.split(" ").map(Number);
  const isAtStart = input.selectionEnd === 0, isAtEnd = input.selectionStart === input.value.length;
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], Enter: [event.shiftKey ? -1 : 1, 0], ArrowLeft: isAtStart && [0, -1], ArrowRight: isAtEnd && [0, 1] };
  const step = !event.ctrlKey && !event.metaKey && !event.altKey && steps[event.key];
  if (!step) return;
  event.preventDefault();
  const next = table.querySelector(`[data-cell="${row + step[0]} ${column + step[1]}"]`);
  next?.focus();
  next?.select();
}

/**
 * @param {{field: Field, cells: string[][], shared: any, onChange: (cells: string[][]) => void}} options
 *   `shared`: attributes of the control, see `FieldControl`.
 */
export function Grid({ field, cells, shared, onChange }) {
  const table = useRef(null);
  const [problem, setProblem] = useState("");
  const change = next => { setProblem(""); onChange(next); };
  const setCell = (row, column, text) => change(cells.map((line, y) => (y === row ? line.map((cell, x) => (x === column ? text : cell)) : line)));
  const paste = (event, row, column) => {
    const block = readPasted(event.clipboardData.getData("text"));
    if (!block) return;
    event.preventDefault();
    const { cells: next, problem: reason } = insertBlock(field, cells, block, row, column);
    if (reason) setProblem(reason);
    else change(next);
  };
  const isFree = axis => field.shape[axis] < 0;
  const isInvalid = shared["aria-invalid"] === "true", hasInvalid = cells.flat().some(cell => !isElement(field, cell));
  const invalid = cell => (isInvalid && (!hasInvalid || !isElement(field, cell)) ? "true" : undefined);
  const columns = cells[0].map((_, column) => column);
  return html`<div class="grid" role="group" aria-label=${field.name}>
    <div class="scroll"><table ref=${table} onKeyDown=${event => event.target.dataset.cell && moveFocus(event, table.current)}>
      <thead><tr><td></td>${columns.map(column => html`<th scope="col" key=${column}>${column + 1}</th>`)}${isFree(0) && html`<td></td>`}</tr></thead>
      <tbody>${cells.map((line, row) => html`<tr key=${row}><th scope="row">${row + 1}</th>${line.map((cell, column) => html`<td key=${column}><input type="text" class="num" autocomplete="off" spellcheck=${false}
          aria-label="${field.name}, row ${row + 1}, column ${column + 1}" aria-describedby=${shared["aria-describedby"]} aria-invalid=${invalid(cell)} data-field=${field.name} data-cell="${row} ${column}"
          value=${cell} onInput=${event => setCell(row, column, event.target.value)} onPaste=${event => paste(event, row, column)} /></td>`)}
        ${isFree(0) && html`<td><button type="button" class="quiet-button" aria-label="Remove row ${row + 1} of ${field.name}" disabled=${cells.length === 1} onClick=${() => change(cells.filter((_, y) => y !== row))}>×</button></td>`}</tr>`)}</tbody></table></div>
    ${problem && html`<p class="bad" role="alert">${problem}</p>`}
    <div class="row">${isFree(0) && html`<button type="button" class="quiet-button" onClick=${() => change([...cells, cells[0].map(() => "")])}>Add row</button>`}
      ${isFree(1) && html`<button type="button" class="quiet-button" onClick=${() => change(cells.map(line => [...line, ""]))}>Add column</button>
        <button type="button" class="quiet-button" disabled=${columns.length === 1} onClick=${() => change(cells.map(line => line.slice(0, -1)))}>Remove column</button>`}</div></div>`;
}
