// The controls of a request form: one per input, named by it.
import { Grid, MAX_CELLS, canBeGrid, readGrid, writeGrid } from "./grid.js";
import { html, useId, useRef, useState } from "./lib.js";
import { pictureSize, shapeText } from "./tensors.js";

const HINTS = { text: ", text", datetime: ", date and time", file: ", a file or base64", json: ", JSON" };

/** Bytes as base64. @param {Uint8Array} bytes */
function toBase64(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}

/** Pixels of a picture as nested JSON, scaled to the size of a tensor. @param {File} file */
async function readPixels(file, { height, width, channels }, isFloat) {
  const picture = await createImageBitmap(file), canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const scale = value => (isFloat ? Number((value / 255).toFixed(4)) : value);
  const rows = Array.from({ length: height }, (_, y) => Array.from({ length: width }, (__, x) => {
    const at = (y * width + x) * 4;
    return channels === 1 ? scale(Math.round((data[at] + data[at + 1] + data[at + 2]) / 3)) : [scale(data[at]), scale(data[at + 1]), scale(data[at + 2])];
  }));
  return JSON.stringify([rows]);
}

/** The text of the field for a selected file. @param {import("./tensors.js").Field} field @param {File} file */
async function readFile(field, file) {
  const size = pictureSize(field);
  if (field.kind === "tensor" && size && file.type.startsWith("image/")) return readPixels(file, size, field.datatype.startsWith("FP"));
  if (field.kind !== "file") return file.text();
  return toBase64(new Uint8Array(await file.arrayBuffer()));
}

/** @param {import("./tensors.js").Field} field */
function hintOf(field, isGrid) {
  const size = isGrid ? "paste from a spreadsheet" : "one row per line or JSON";
  if (field.kind === "tensor") return `${field.datatype} ${shapeText(field.shape)}, ${size}${pictureSize(field) ? ", or a picture" : ""}`;
  return `${field.datatype}${HINTS[field.kind] || ""}${field.optional ? ", optional" : ""}`;
}

/**
 * One labelled control.
 * @param {{field: import("./tensors.js").Field, value: string, error: string, onChange: (text: string) => void}} options
 */
export function FieldControl({ field, value, error, onChange }) {
  const id = useId(), file = useRef(null);
  const described = [error && `${id}-error`, `${id}-hint`].filter(Boolean).join(" ");
  const shared = { id, "aria-describedby": described, "aria-invalid": error ? "true" : undefined, "data-field": field.name };
  const choose = async event => {
    const [chosen] = event.target.files;
    event.target.value = "";
    if (chosen) onChange(await readFile(field, chosen));
  };
  const hasFile = ["file", "text", "json"].includes(field.kind) || (field.kind === "tensor" && pictureSize(field));
  const hasButtons = hasFile || canBeGrid(field);
  const { cells, isWanted, toggle, write } = useCells(field, value, onChange);
  return html`<div class="control ${field.kind} ${hasButtons ? "" : "plain-control"}">${cells ? html`<span class="label text" aria-hidden="true">${field.name}</span>` : html`<label for=${id} class="text">${field.name}</label>`}
    ${cells ? html`<${Grid} field=${field} cells=${cells} shared=${shared} onChange=${write} />` : control(field, value, onChange, shared)}
    ${hasButtons && html`<div class="file-button">
      ${canBeGrid(field) && html`<button type="button" class="quiet-button" disabled=${!isWanted && !readGrid(field, value)} title=${cells ? undefined : `Tables of up to ${MAX_CELLS} cells`} onClick=${toggle}>${cells ? "As text" : "As cells"}</button>`}
      ${hasFile && html`<button type="button" class="quiet-button" onClick=${() => file.current.click()}>Choose a file</button>
        <input ref=${file} type="file" hidden onChange=${choose} tabindex="-1" />`}</div>`}
    ${error && html`<p class="bad" id="${id}-error" role="alert">${error}</p>`}
    <p class="hint" id="${id}-hint">${hintOf(field, Boolean(cells))}</p></div>`;
}

/** The value as cells; null = as text, by choice or because it is no small table. */
function useCells(field, value, onChange) {
  const [isWanted, setWanted] = useState(true);
  const written = useRef({ text: "", cells: null });
  // The cells show the typed text, also where it is parsed to something else, as empty cells are.
  const isWritten = written.current.cells && written.current.text === value;
  const cells = isWanted && canBeGrid(field) ? (isWritten ? written.current.cells : readGrid(field, value)) : null;
  const write = next => {
    const text = writeGrid(field, next), isSmall = next.length * next[0].length <= MAX_CELLS;
    written.current = { text, cells: isSmall ? next : null };
    onChange(text);
  };
  return { cells, isWanted: Boolean(cells), toggle: () => setWanted(!cells), write };
}

/** @param {import("./tensors.js").Field} field */
function control(field, value, onChange, shared) {
  const onInput = event => onChange(event.target.value);
  switch (field.kind) {
    case "bool":
      return html`<input type="checkbox" ...${shared} checked=${/^(true|1)$/i.test(value)} onChange=${event => onChange(event.target.checked ? "true" : "false")} />`;
    case "datetime":
      return html`<input type="datetime-local" step="1" ...${shared} value=${value.slice(0, 19)} onInput=${onInput} />`;
    case "number":
    case "integer":
      return html`<input type="text" inputmode=${field.kind === "integer" ? "numeric" : "decimal"} class="num" autocomplete="off" spellcheck=${false} ...${shared} value=${value} onInput=${onInput} />`;
    case "tensor":
    case "json":
    case "file":
      return html`<textarea rows=${Math.min(8, value.split("\n").length + 1)} spellcheck=${false} ...${shared} value=${value} onInput=${onInput}></textarea>`;
    default:
      return html`<textarea rows="1" class="grow" ...${shared} value=${value} onInput=${onInput}></textarea>`;
  }
}
