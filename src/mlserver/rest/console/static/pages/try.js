// Try it: a form made from the model's metadata, its response, and the same call as code.
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { RequestError, base, errorMessage, events, hasCredential, modelPath, send, serverTiming } from "../api.js";
import { Answer, Timing } from "../answer.js";
import { Code, Empty, Failure, Heading, Loading, Tabs, useDocument } from "../components.js";
import { FieldControl } from "../fields.js";
import { link } from "../router.js";
import { listSnippets } from "../snippets.js";
import { listModels, store } from "../store.js";
import { buildCSV, buildMLflow, buildV2, exampleValues, findField, parseCSV, toField, toJSON } from "../tensors.js";
import { Chat } from "./chat.js";

const JSON_TYPE = "application/json";
const PREVIEW_ROWS = 50;
const MAX_EVENTS = 500;
const NO_INPUTS = `{
  "inputs": [
    {"name": "input-0", "shape": [1, 1], "datatype": "FP64", "data": [0.0]}
  ]
}`;

export function TryPage({ store, address }) {
  const models = listModels();
  const title = "Try it";
  if (store.phase === "loading" || (store.phase === "lost" && !store.data)) return html`<${Heading} title=${title} /><${Loading} rows=${8} />`;
  if (!models.length) return html`<${Heading} title=${title} /><${Empty} title="No model is loaded"><p>${store.indexError || "Load one to get a form for its inputs."}</p></${Empty}>`;
  const named = models.filter(model => model.name === address.name);
  const current = (address.name ? named.find(model => model.version === address.version) || named[0] : models.find(model => model.ready)) || null;
  const choose = event => { location.hash = event.target.value; };
  const picker = html`<label class="picker">Model
    <select value=${current ? link("try", current.name, current.version) : ""} onChange=${choose}>
      ${!current && html`<option value="">Choose a model</option>`}
      ${models.map(model => html`<option key=${link("try", model.name, model.version)} value=${link("try", model.name, model.version)}>${model.name}${model.version && `, version ${model.version}`}${model.ready ? "" : `, ${model.state.toLowerCase()}`}</option>`)}</select></label>`;
  return html`<${Heading} title=${title}>${picker}</${Heading}>
    ${!current ? html`<${Empty} title="There is no model of this name"><p class="text">${address.name}</p></${Empty}>`
      : current.ready ? html`<${ModelForm} key=${`${current.name}\n${current.version}`} name=${current.name} version=${current.version} />`
      : html`<${Empty} title="This model is ${current.state.toLowerCase()}"><p class="text">${current.reason || "It can be tried once it is ready."}</p></${Empty}>`}`;
}

/** Loads what the form is made from. */
function ModelForm({ name, version }) {
  const path = modelPath(name, version);
  const metadata = useDocument(path), api = useDocument(`${path}/docs/dataplane.json`);
  const error = metadata.error || api.error;
  if (error && !(metadata.data && api.data)) return html`<${Failure} error=${error} />`;
  if (!metadata.data || !api.data) return html`<${Loading} rows=${8} />`;
  return html`<${Form} name=${name} version=${version} metadata=${metadata.data} api=${api.data} />`;
}

/** The formats that the model accepts: pairs of name and label. */
function listFormats(paths, path, fields, canStream) {
  const has = route => `${path}${route}` in paths;
  const isTable = fields.length > 0 && fields.every(field => field.kind !== "tensor");
  const formats = [["v2", "V2"]];
  if (has("/v1/chat/completions")) formats.unshift(["chat", "Chat"]);
  if (has("/invocations")) formats.push(["mlflow", "MLflow"]);
  if (has("/invocations") && isTable) formats.push(["csv", "CSV"]);
  if (canStream) formats.push(["stream", "Stream"]);
  return formats;
}

function Form({ name, version, metadata, api }) {
  const path = modelPath(name, version);
  const fields = useMemo(() => (metadata.inputs || []).map(toField), [metadata]);
  const example = api.components.schemas.InferenceRequest.example;
  const model = listModels().find(entry => entry.name === name && entry.version === version);
  const formats = listFormats(api.paths, path, fields, model?.streams !== false);
  const [format, setFormat] = useState(formats[0][0]);
  const [rows, setRows] = useState(() => [exampleValues(fields, example)]);
  const [parameters, setParameters] = useState("");
  const [raw, setRaw] = useState(fields.length ? null : example ? toJSON(example) : NO_INPUTS);
  const [errors, setErrors] = useState({});
  const form = useRef(null);
  const call = useMemo(() => buildCall({ path, format, fields, rows, parameters, raw }), [format, rows, parameters, raw]);
  const exchange = useExchange();
  const fail = (message, field) => {
    const named = field ?? findField(message, fields.map(entry => entry.name));
    const isShown = named !== null && raw === null;
    setErrors(isShown ? { [named]: message } : { "": message });
    if (isShown) requestAnimationFrame(() => form.current?.querySelector("[aria-invalid=true]")?.focus());
  };
  const submit = async event => {
    event?.preventDefault();
    if (exchange.state.running) return;
    setErrors({});
    if (call.error) { exchange.clear(); fail(call.error.message, call.error.field ?? ""); return; }
    const failure = await exchange.run(call);
    if (failure) fail(failure.message);
    else requestAnimationFrame(() => showResponse(form.current));
  };
  const onKey = event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); };
  const tabs = formats.length > 1 && html`<div class="row"><span class="quiet" aria-hidden="true">Format</span><${Tabs} label="Format" value=${format} options=${formats} onChange=${value => { setFormat(value); setErrors({}); if (fields.length) setRaw(null); exchange.clear(); }} /></div>`;
  if (format === "chat") return html`<div class="try">${tabs}<${Chat} path=${path} streams=${model?.streams !== false} /></div>`;
  return html`<div class="try">${tabs}<div class="columns wide">
    <form ref=${form} class="card request" aria-label="Request" noValidate onSubmit=${submit} onKeyDown=${onKey}>
      <${Inputs} fields=${fields} rows=${rows} setRows=${setRows} errors=${errors} raw=${raw} setRaw=${setRaw} call=${call} />
      <details><summary>Parameters</summary><div class="control"><label for="request-parameters">Parameters of the request</label>
        <textarea id="request-parameters" rows="2" spellcheck=${false} placeholder=${'{"key": "value"}'} value=${parameters} onInput=${event => setParameters(event.target.value)}></textarea></div></details>
      ${errors[""] && html`<div class="banner bad" role="alert"><span class="text">${errors[""]}</span></div>`}
      <div class="row send"><button type="submit" class="primary">Send</button>
        ${exchange.state.running && html`<button type="button" onClick=${exchange.stop}>Stop</button>`}
        <span class="quiet">or Ctrl+Enter</span></div>
    </form>
    <div class="stack"><${ResponsePanel} state=${exchange.state} /><${Snippets} call=${call} name=${name} version=${version} /></div></div></div>`;
}

/** Scroll to the response where it is below the form and out of sight. @param {HTMLElement|null} form */
function showResponse(form) {
  const response = form?.parentElement?.querySelector(".response");
  const top = response?.getBoundingClientRect().top ?? 0;
  if (top > innerHeight - 120) response.scrollIntoView({ block: "center" });
}

/** Address, body and text of the request; `error` if a field cannot be read. */
function buildCall({ path, format, fields, rows, parameters, raw }) {
  const route = { v2: "/infer", stream: "/infer_stream", mlflow: "/invocations", csv: "/invocations" }[format];
  const call = { path: path + route, isStream: format === "stream", isV2: format === "v2" || format === "stream", contentType: format === "csv" ? "text/csv" : JSON_TYPE, body: null, text: "", error: null };
  try {
    const extra = parameters.trim() ? parseParameters(parameters) : null;
    if (raw !== null) {
      call.text = raw;
      if (call.contentType === JSON_TYPE) call.body = parseRaw(raw);
    } else if (format === "csv") call.text = buildCSV(fields, rows);
    else {
      call.body = format === "mlflow" ? buildMLflow(fields, rows, extra) : buildV2(fields, rows, extra);
      call.text = toJSON(call.body);
    }
  } catch (error) {
    call.error = error;
  }
  return call;
}

function parseParameters(text) {
  try { return JSON.parse(text); } catch { throw new Error("Parameters: expected a JSON object"); }
}

/** The body for the snippets; a text that is not JSON is sent all the same, and the server says what is wrong. */
function parseRaw(text) {
  try { return JSON.parse(text); } catch { return null; }
}

/** One request at a time, and its response. */
function useExchange() {
  const [state, setState] = useState({ running: false, response: null, events: [], timing: null, total: 0, failure: null });
  const controller = useRef(null);
  useEffect(() => () => controller.current?.abort(), []);
  const run = async call => {
    controller.current = new AbortController();
    const started = performance.now();
    setState(previous => ({ ...previous, running: true, failure: null }));
    const finish = values => setState({ running: false, response: null, events: [], timing: null, failure: null, total: performance.now() - started, ...values });
    try {
      const response = await send(call.path, { method: "POST", body: call.text, headers: { "content-type": call.contentType }, signal: controller.current.signal });
      const timing = serverTiming(response);
      if (call.isStream && response.ok) return await readStream(response, timing, started, setState);
      const text = await response.text();
      let body = null;
      try { body = JSON.parse(text); } catch { /* shown as text */ }
      if (!response.ok) {
        const message = errorMessage(body, response);
        finish({ failure: { status: response.status, message } });
        return { message };
      }
      finish({ response: { text, body, status: response.status }, timing });
    } catch (error) {
      const isStopped = error.name === "AbortError";
      finish({ failure: { status: 0, message: isStopped ? "Stopped" : error.message } });
      return isStopped ? null : { message: error instanceof RequestError ? error.message : String(error) };
    }
    return null;
  };
  const clear = () => setState({ running: false, response: null, events: [], timing: null, total: 0, failure: null });
  return { state, run, clear, stop: () => controller.current?.abort() };
}

/** Show the events of a stream as they arrive. */
async function readStream(response, timing, started, setState) {
  const received = [];
  let failure = null;
  for await (const data of events(response)) {
    let body = null;
    try { body = JSON.parse(data); } catch { /* shown as text */ }
    if (body?.error) failure = { status: response.status, message: String(body.error) };
    else received.push({ data, body, at: performance.now() - started });
    setState({ running: true, response: null, events: received.slice(-MAX_EVENTS), timing, total: performance.now() - started, failure });
  }
  setState({ running: false, response: null, events: received.slice(-MAX_EVENTS), timing, total: performance.now() - started, failure });
  return failure;
}

function ResponsePanel({ state }) {
  const { running, response, failure, timing, total } = state;
  return html`<section class="card response" role="status" aria-label="Response" aria-busy=${running ? "true" : "false"}>
    <div class="heading"><h2>Response</h2>${response && html`<span class="tag good">${response.status}</span>`}${failure && failure.status > 0 && html`<span class="tag bad">${failure.status}</span>`}${running && html`<span class="quiet">Waiting</span>`}</div>
    ${response && html`<${Answer} response=${response} />`}
    ${state.events.length > 0 && html`<ol class="events">${state.events.map((event, index) => html`<li key=${index}><span class="quiet">${event.at.toFixed(0)} ms</span> <span class="text">${eventText(event)}</span></li>`)}</ol>`}
    ${failure && html`<p class="bad text">${failure.message}</p>`}
    ${timing && total > 0 && html`<${Timing} timing=${timing} total=${total} />`}
    ${!response && !failure && !running && !state.events.length && html`<p class="quiet">Nothing has been sent yet.</p>`}</section>`;
}

const eventText = ({ body, data }) => (body?.outputs ? body.outputs.map(output => `${output.name}: ${output.data.flat(Infinity).join(", ")}`).join("; ") : data);

function Snippets({ call, name, version }) {
  const [language, setLanguage] = useState("curl");
  if (call.error) return html`<section class="card"><h2>As code</h2><p class="quiet">A value of the form does not fit yet: press Send to see which.</p></section>`;
  const snippets = listSnippets({ ...call, url: `${location.origin}${base}${call.path}`, hasKey: hasCredential(), model: name, version, grpcPort: store.access?.grpc_port ?? null });
  const [shown, text] = snippets.find(([label]) => label === language) || snippets[0];
  return html`<section class="card" aria-label="As code"><div class="heading"><h2>As code</h2><${Tabs} label="Language" value=${shown} options=${snippets.map(([label]) => [label, label])} onChange=${setLanguage} /></div>
    <${Code} text=${text} label="Code" /></section>`;
}

/** The fields of one row, a preview of several, or the body as text. */
function Inputs({ fields, rows, setRows, errors, raw, setRaw, call }) {
  const [isPasting, setPasting] = useState(false);
  const [problem, setProblem] = useState("");
  const isTable = fields.length > 0 && fields.every(field => field.kind !== "tensor");
  const takeTable = text => {
    const table = parseCSV(text), names = fields.map(field => field.name);
    const unknown = table.columns.find(column => !names.includes(column)), missing = fields.find(field => !field.optional && !table.columns.includes(field.name));
    if (!table.rows.length) return setProblem("Expected a line of column names and at least one row");
    if (unknown !== undefined) return setProblem(`Column “${unknown}”: the model has no such input`);
    if (missing) return setProblem(`Column “${missing.name}” is missing`);
    setRows(table.rows.map(cells => Object.fromEntries(table.columns.map((column, index) => [column, cells[index] ?? ""]))));
    setProblem("");
    setPasting(false);
  };
  const edit = fields.length > 0 && html`<button type="button" class="quiet-button" onClick=${() => setRaw(raw === null ? call.text : null)} disabled=${raw === null && Boolean(call.error)}>${raw === null ? "Edit the body" : "Back to the form"}</button>`;
  const paste = isTable && raw === null && html`<button type="button" class="quiet-button" aria-expanded=${isPasting ? "true" : "false"} onClick=${() => setPasting(!isPasting)}>Paste a table</button>`;
  const heading = html`<div class="heading"><h2>Request</h2><div class="row end">${paste}${edit}</div></div>`;
  if (raw !== null) {
    return html`${heading}<div class="control"><label for="request-body">Request body</label>
      <textarea id="request-body" class="body" rows=${Math.min(24, raw.split("\n").length + 1)} spellcheck=${false} value=${raw} onInput=${event => setRaw(event.target.value)}></textarea></div>`;
  }
  return html`${heading}${isPasting && html`<${TablePaste} onTable=${takeTable} problem=${problem} />`}
    ${rows.length > 1 ? html`<${Preview} fields=${fields} rows=${rows} errors=${errors} onBack=${() => setRows([rows[0]])} />`
      : html`<div class="fields">${fields.map(field => html`<${FieldControl} key=${field.name} field=${field} value=${rows[0][field.name] ?? ""} error=${errors[field.name] || ""}
        onChange=${text => setRows([{ ...rows[0], [field.name]: text }])} />`)}</div>`}`;
}

function TablePaste({ onTable, problem }) {
  const [text, setText] = useState("");
  const file = useRef(null);
  const read = async event => {
    const [chosen] = event.target.files;
    event.target.value = "";
    if (chosen) onTable(await chosen.text());
  };
  return html`<div class="paste control"><label for="table-text">Table with a line of column names, from a spreadsheet or a CSV file</label>
    <textarea id="table-text" rows="4" spellcheck=${false} value=${text} onInput=${event => setText(event.target.value)}></textarea>
    ${problem && html`<p class="bad" role="alert">${problem}</p>`}
    <div class="row"><button type="button" onClick=${() => onTable(text)}>Use these rows</button>
      <button type="button" onClick=${() => file.current.click()}>Choose a CSV file</button><input ref=${file} type="file" accept=".csv,.tsv,text/csv" hidden tabindex="-1" onChange=${read} /></div></div>`;
}

function Preview({ fields, rows, errors, onBack }) {
  const names = Object.keys(errors).filter(Boolean);
  return html`<div class="row"><strong>${rows.length} rows</strong><button type="button" class="quiet-button" onClick=${onBack}>Back to one row</button></div>
    ${names.map(name => html`<p class="bad" role="alert" key=${name}>${name}: ${errors[name]}</p>`)}
    <div class="scroll preview" tabindex="0" role="region" aria-label="Rows"><table><thead><tr><th scope="col" class="num">Row</th>${fields.map(field => html`<th scope="col" key=${field.name} class="text">${field.name}</th>`)}</tr></thead>
      <tbody>${rows.slice(0, PREVIEW_ROWS).map((row, index) => html`<tr key=${index}><th scope="row" class="num">${index + 1}</th>${fields.map(field => html`<td key=${field.name} class=${/number|integer/.test(field.kind) ? "num" : "text"}>${row[field.name]}</td>`)}</tr>`)}</tbody></table></div>
    ${rows.length > PREVIEW_ROWS && html`<p class="quiet">The first ${PREVIEW_ROWS} rows are shown; all are sent.</p>`}`;
}

