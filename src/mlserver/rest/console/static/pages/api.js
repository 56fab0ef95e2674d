// API: the server's OpenAPI document, grouped, each operation with a form to send it.
import { html, useMemo, useState } from "../lib.js";
import { base, hasCredential, modelPath, send } from "../api.js";
import { Code, Failure, Heading, Loading, formatText, useDocument } from "../components.js";
import { link } from "../router.js";
import { listModels } from "../store.js";
import { toJSON } from "../tensors.js";

const MAX_TEXT = 200000;
/** Name of a group and its paths; the first match counts. @type {[string, RegExp][]} */
const GROUPS = [
  ["Inference", /\/(infer|generate|infer_stream|generate_stream|invocations|v1\/[a-z/]+|responses)$/], ["Repository", /^\/v2\/repository/],
  ["Monitoring", /^\/v2\/console|\/stats$/], ["Health", /\/(health|ready|live|ping)/], ["Metadata", /./],
];

export function ApiPage({ address }) {
  const path = address.name ? modelPath(address.name, address.version) : "/v2";
  const { data, error } = useDocument(`${path}/docs/dataplane.json`);
  const title = address.name ? `API of ${address.name}${address.version && ` version ${address.version}`}` : "API";
  const names = [...new Set(listModels().map(model => model.name))];
  const choose = event => { location.hash = event.target.value; };
  return html`<${Heading} title=${html`<span class="text">${title}</span>`}>
      <label class="picker">Routes of <select value=${link("api", address.name)} onChange=${choose}><option value=${link("api")}>the server</option>
        ${names.map(name => html`<option key=${name} value=${link("api", name)}>${name}</option>`)}</select></label>
      <a class="button" href=${`${base}${path}/docs/dataplane.json`}>OpenAPI document</a></${Heading}>
    ${error ? html`<${Failure} error=${error} />` : data ? html`<${Operations} key=${path} api=${data} />` : html`<${Loading} rows=${10} />`}`;
}

function Operations({ api }) {
  const groups = useMemo(() => {
    const grouped = new Map(GROUPS.map(([name]) => [name, []]));
    for (const [path, operations] of Object.entries(api.paths)) {
      const [name] = GROUPS.find(([, pattern]) => pattern.test(path));
      for (const [method, operation] of Object.entries(operations)) grouped.get(name).push({ path, method, operation });
    }
    return [...grouped].filter(([, list]) => list.length);
  }, [api]);
  return groups.map(([name, list]) => html`<section key=${name} class="card operations" aria-label=${name}><h2>${name}</h2>
    ${list.map(entry => html`<${Operation} key=${entry.method + entry.path} api=${api} ...${entry} />`)}</section>`);
}

function Operation({ api, path, method, operation }) {
  const [isOpen, setOpen] = useState(false);
  return html`<details onToggle=${event => setOpen(event.target.open)}><summary><span class="method ${method}">${method.toUpperCase()}</span><code>${path}</code><span class="quiet">${formatText(operation.summary || "")}</span></summary>
    ${isOpen && html`<${OperationForm} api=${api} path=${path} method=${method} operation=${operation} />`}</details>`;
}

/** The example of a JSON body; null = no JSON body. */
function exampleOf(api, operation) {
  const media = operation.requestBody?.content?.["application/json"];
  if (!media) return null;
  if (media.example !== undefined) return toJSON(media.example);
  const name = media.schema?.$ref?.split("/").at(-1);
  const example = name && api.components.schemas[name]?.example;
  return example ? toJSON(example) : "{}";
}

function OperationForm({ api, path, method, operation }) {
  const parameters = operation.parameters || [];
  const [values, setValues] = useState(() => Object.fromEntries(parameters.map(parameter => [parameter.name, Object.keys(parameter.examples || {})[0] || ""])));
  const [body, setBody] = useState(() => exampleOf(api, operation));
  const [result, setResult] = useState(null);
  const filled = parameters.reduce((text, { name }) => text.replace(`{${name}}`, encodeURIComponent(values[name] || name)), path);
  const submit = async event => {
    event.preventDefault();
    setResult({ status: "Waiting", text: "" });
    const started = performance.now();
    try {
      const response = await send(filled, { method: method.toUpperCase(), ...(body === null ? {} : { body, headers: { "content-type": "application/json" } }) });
      let text = await response.text();
      try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as text */ }
      setResult({ isBad: !response.ok, status: `${response.status} ${response.statusText}, ${(performance.now() - started).toFixed(1)} ms`, text: text.slice(0, MAX_TEXT) });
    } catch (error) {
      setResult({ isBad: true, status: error.message, text: "" });
    }
  };
  const quote = text => `'${text.replaceAll("'", "'\\''")}'`;
  const command = `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${quote(location.origin + base + filled)}${hasCredential() ? ' -H "authorization: Bearer $KEY"' : ""}${body === null ? "" : ` -H 'content-type: application/json' -d ${quote(body)}`}`;
  return html`<form class="stack operation" onSubmit=${submit}>
    ${parameters.map(({ name }) => html`<label class="field" key=${name}>${name}<input value=${values[name]} onInput=${event => setValues({ ...values, [name]: event.target.value })} /></label>`)}
    ${body !== null && html`<label class="field">Body<textarea rows=${Math.min(16, body.split("\n").length + 1)} spellcheck=${false} value=${body} onInput=${event => setBody(event.target.value)}></textarea></label>`}
    <div class="row"><button type="submit">Send</button></div>
    <div role="status" aria-label="Response">${result && html`<p class=${result.isBad ? "bad" : ""}>${result.status}</p>${result.text && html`<pre class="body" tabindex="0">${result.text}</pre>`}`}</div>
    <${Code} text=${command} label="curl command" /></form>`;
}
