// From a model's metadata to form fields, and from their texts to request bodies. Pure.

/**
 * @typedef {{name: string, datatype: string, shape: number[], contentType: string, optional: boolean,
 *   kind: "number"|"integer"|"bool"|"text"|"datetime"|"file"|"json"|"tensor"}} Field
 * @typedef {Record<string, string>} Values
 */

/** A number that is written as it was typed: 64-bit integers do not fit a JavaScript number. */
export class Literal {
  /** @param {string} text */
  constructor(text) { this.text = text; }
}

/** A value that a field cannot hold; names the field. */
export class FieldError extends Error {
  /** @param {string} field @param {string} expected @param {string} received */
  constructor(field, expected, received) {
    super(`Expected ${expected}, received ${received === "" ? "nothing" : `“${received.slice(0, 60)}”`}`);
    this.field = field;
  }
}

/** @type {Record<string, Field["kind"]>} */
const BY_CONTENT_TYPE = { datetime: "datetime", base64: "file", pd_json: "json" };

/** @param {any} tensor An input of the metadata. @returns {Field} */
export function toField(tensor) {
  const { name, datatype, shape } = tensor, contentType = tensor.parameters?.content_type || "";
  const row = shape[0] < 0 ? shape.slice(1) : shape;
  const isScalar = row.every(size => size === 1);
  /** @type {Field["kind"]} */
  let kind = "number";
  if (!isScalar) kind = "tensor";
  else if (datatype === "BOOL") kind = "bool";
  else if (datatype === "BYTES") kind = BY_CONTENT_TYPE[contentType] || "text";
  else if (/INT/.test(datatype)) kind = "integer";
  return { name, datatype, shape, contentType, optional: tensor.parameters?.required === false, kind };
}

/** Height, width and channels if a tensor can be a picture. @param {Field} field */
export function pictureSize(field) {
  const row = field.shape[0] < 0 || field.shape[0] === 1 ? field.shape.slice(1) : field.shape;
  const [height, width, channels = 1] = row;
  const isPicture = row.length >= 2 && row.length <= 3 && height > 3 && width > 3 && (channels === 1 || channels === 3) && field.datatype !== "BYTES";
  return isPicture ? { height, width, channels } : null;
}

/** Texts of the fields, from the example of the model's document. @param {Field[]} fields @param {any} example */
export function exampleValues(fields, example) {
  /** @type {Values} */
  const values = {};
  const byName = Object.fromEntries((example?.inputs || []).map(input => [input.name, input]));
  for (const field of fields) values[field.name] = exampleText(field, byName[field.name]);
  return values;
}

/** @param {Field} field @param {any} input */
function exampleText(field, input) {
  const data = input?.data;
  if (field.kind === "tensor") return Array.isArray(data) ? formatTensor(data, input.shape) : "";
  const first = Array.isArray(data) ? data.flat(Infinity)[0] : data;
  if (first === undefined) return field.kind === "bool" ? "false" : "";
  return first === null ? "" : String(first);
}

/** One line per row for two dimensions, else nested JSON. @param {any[]} data @param {number[]} shape */
export function formatTensor(data, shape) {
  const flat = data.flat(Infinity);
  if (shape.length !== 2 || flat.some(item => typeof item === "string")) return JSON.stringify(nest(flat, shape));
  const lines = [];
  for (let row = 0; row < shape[0]; row += 1) lines.push(flat.slice(row * shape[1], (row + 1) * shape[1]).join(", "));
  return lines.join("\n");
}

/** @param {any[]} flat @param {number[]} shape */
export function nest(flat, shape) {
  if (shape.length <= 1) return shape.length ? flat : flat[0];
  const size = flat.length / shape[0] || 0;
  return Array.from({ length: shape[0] }, (_, index) => nest(flat.slice(index * size, (index + 1) * size), shape.slice(1)));
}

// -- texts to elements --

const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;
const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** @param {Field} field @param {string} text */
function readElement(field, text) {
  const trimmed = text.trim();
  switch (field.kind === "tensor" ? elementKind(field) : field.kind) {
    case "integer":
      if (!/^[+-]?\d+$/.test(trimmed)) throw new FieldError(field.name, "an integer", text);
      return new Literal(trimmed.replace(/^\+/, "").replace(/^(-?)0+(?=\d)/, "$1"));
    case "number":
      if (/^(nan|null)$/i.test(trimmed)) return null;
      if (!NUMBER.test(trimmed)) throw new FieldError(field.name, "a number", text);
      return new Literal(JSON_NUMBER.test(trimmed) ? trimmed : String(Number(trimmed)));
    case "bool":
      if (/^(true|1)$/i.test(trimmed)) return true;
      if (/^(false|0)$/i.test(trimmed)) return false;
      throw new FieldError(field.name, "true or false", text);
    case "json":
      try { JSON.parse(text); } catch { throw new FieldError(field.name, "JSON", text); }
      return text;
    case "datetime":
      if (!trimmed || Number.isNaN(Date.parse(trimmed))) throw new FieldError(field.name, "a date and time", text);
      return trimmed;
    default:
      return text;
  }
}

/** Whether a text is an element of the field. @param {Field} field @param {string} text */
export function isElement(field, text) {
  try { readElement(field, text); } catch { return false; }
  return true;
}

/** @param {Field} field */
const elementKind = field => (field.datatype === "BOOL" ? "bool" : field.datatype === "BYTES" ? "text" : /INT/.test(field.datatype) ? "integer" : "number");

/** Elements and shape of a tensor's text: nested JSON, or one line per row. @param {Field} field @param {string} text */
export function readTensor(field, text) {
  const rank = field.shape.length;
  let flat, shape;
  if (text.trim().startsWith("[")) {
    let nested;
    try { nested = JSON.parse(text); } catch { throw new FieldError(field.name, "a JSON array", text); }
    shape = shapeOf(nested);
    flat = nested.flat(Infinity).map(item => (typeof item === "string" && field.datatype === "BYTES" ? item : readElement(field, String(item))));
  } else {
    const rows = text.split("\n").filter(line => line.trim()).map(line => line.trim().split(/\s*[,;\t]\s*|\s+/));
    if (!rows.length) throw new FieldError(field.name, `values of shape ${shapeText(field.shape)}`, "");
    shape = rank === 1 ? [rows.flat().length] : [rows.length, rows[0].length];
    if (rank !== 1 && rows.some(row => row.length !== rows[0].length)) throw new FieldError(field.name, "rows of equal length", text);
    flat = rows.flat().map(item => readElement(field, item));
  }
  if (shape.length === rank - 1 && field.shape[0] < 0) shape = [1, ...shape]; // one row without its brackets
  const fits = shape.length === rank && shape.every((size, index) => field.shape[index] < 0 || field.shape[index] === size);
  const known = field.shape.slice(1).every(size => size > 0) ? field.shape.slice(1).reduce((product, size) => product * size, 1) : 0;
  if (!fits && rank > 2 && known && flat.length % known === 0) shape = [flat.length / known, ...field.shape.slice(1)];
  else if (!fits) throw new FieldError(field.name, `shape ${shapeText(field.shape)}`, shapeText(shape));
  return { flat, shape };
}

/** @param {any} nested */
function shapeOf(nested) {
  const shape = [];
  for (let part = nested; Array.isArray(part); [part] = part) shape.push(part.length);
  return shape;
}

/** @param {number[]} shape */
export const shapeText = shape => `[${shape.map(size => (size < 0 ? "any" : size)).join(", ")}]`;

// -- bodies --

/** Texts of a field in each row. @param {Field} field @param {Values[]} rows */
const textsOf = (field, rows) => rows.map(row => row[field.name] ?? "");

/** Whether an optional field is left out. @param {Field} field @param {Values[]} rows */
const isOmitted = (field, rows) => field.optional && textsOf(field, rows).every(text => text === "");

/**
 * The body of a V2 request.
 * @param {Field[]} fields @param {Values[]} rows @param {any} parameters
 * @throws {FieldError}
 */
export function buildV2(fields, rows, parameters) {
  const inputs = fields.filter(field => !isOmitted(field, rows)).map(field => {
    const { flat, shape } = readField(field, rows);
    return { name: field.name, shape, datatype: field.datatype, data: flat };
  });
  return { ...(parameters ? { parameters } : {}), inputs };
}

/** @param {Field} field @param {Values[]} rows */
function readField(field, rows) {
  const texts = textsOf(field, rows);
  if (field.kind === "tensor") return readTensor(field, texts[0]);
  const flat = texts.map(text => readElement(field, text));
  const shape = field.shape.length ? [flat.length, ...field.shape.slice(1).map(() => 1)] : [];
  return { flat, shape };
}

/** The body of MLflow's `/invocations`. @param {Field[]} fields @param {Values[]} rows @param {any} params */
export function buildMLflow(fields, rows, params) {
  const extra = params ? { params } : {};
  const used = fields.filter(field => !isOmitted(field, rows));
  if (used.some(field => field.kind === "tensor")) {
    const tensors = Object.fromEntries(used.map(field => {
      const { flat, shape } = readField(field, rows);
      return [field.name, nest(flat, shape)];
    }));
    return { inputs: used.length === 1 ? tensors[used[0].name] : tensors, ...extra };
  }
  const data = rows.map(row => used.map(field => {
    const value = readElement(field, row[field.name] ?? "");
    return field.kind === "json" ? JSON.parse(String(value)) : value;
  }));
  return { dataframe_split: { columns: used.map(field => field.name), data }, ...extra };
}

/** The rows as CSV with a header. @param {Field[]} fields @param {Values[]} rows */
export function buildCSV(fields, rows) {
  const used = fields.filter(field => !isOmitted(field, rows));
  for (const row of rows) for (const field of used) readElement(field, row[field.name] ?? "");
  const quote = text => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [used.map(field => field.name), ...rows.map(row => used.map(field => row[field.name] ?? ""))];
  return `${lines.map(line => line.map(quote).join(",")).join("\n")}\n`;
}

/** Rows of a CSV text with a header; commas, semicolons or tabs. @param {string} text */
export function parseCSV(text) {
  const head = text.slice(0, text.search(/[\r\n]|$/));
  const separator = ["\t", ";", ","].find(mark => head.includes(mark)) || ",";
  /** @type {string[][]} */
  const lines = [[""]];
  let isQuoted = false;
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index], line = /** @type {string[]} */ (lines.at(-1));
    if (isQuoted && character === '"' && text[index + 1] === '"') { line[line.length - 1] += '"'; index += 1; }
    else if (character === '"') isQuoted = !isQuoted;
    else if (isQuoted) line[line.length - 1] += character;
    else if (character === separator) line.push("");
    else if (character === "\n") lines.push([""]);
    else if (character !== "\r") line[line.length - 1] += character;
  }
  const [columns, ...rows] = lines.filter(line => line.length > 1 || line[0].trim() !== "");
  return { columns: (columns || []).map(name => name.trim()), rows };
}

/** JSON with literals as they were typed. @param {any} value @param {string} [indent] */
export function toJSON(value, indent = "") {
  if (value instanceof Literal) return value.text;
  if (Array.isArray(value)) {
    const isFlat = value.every(item => !Array.isArray(item) && (typeof item !== "object" || item === null || item instanceof Literal));
    if (isFlat) return `[${value.map(item => toJSON(item)).join(", ")}]`;
    return `[\n${value.map(item => `${indent}  ${toJSON(item, `${indent}  `)}`).join(",\n")}\n${indent}]`;
  }
  if (value && typeof value === "object") {
    const pairs = Object.entries(value).map(([key, item]) => `${indent}  ${JSON.stringify(key)}: ${toJSON(item, `${indent}  `)}`);
    return pairs.length ? `{\n${pairs.join(",\n")}\n${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

/** The input that an error message names; null = none. @param {string} message @param {string[]} names */
export function findField(message, names) {
  const index = message.match(/inputs\[(\d+)\]/);
  if (index && names[Number(index[1])]) return names[Number(index[1])];
  const missing = message.match(/missing (?:inputs )?\[?['"]([^'"]+)['"]/);
  if (missing && names.includes(missing[1])) return missing[1];
  const named = names.filter(name => [`'${name}'`, `"${name}"`, `column ${name} `, `input ${name} `].some(form => message.includes(form)));
  return named.sort((left, right) => right.length - left.length)[0] || null;
}
