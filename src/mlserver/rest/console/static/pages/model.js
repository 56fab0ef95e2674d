// One model: signature, state, settings, plots.
import { html } from "../lib.js";
import { modelPath } from "../api.js";
import { Empty, Failure, Heading, Loading, ModelActions, Stat, State, useDocument } from "../components.js";
import { UNKNOWN, count, dateTime, duration, number, percent, rate } from "../format.js";
import { Plot } from "../plot.js";
import { link } from "../router.js";
import { keyOf, listModels, summarize } from "../store.js";

export function ModelPage({ store, address }) {
  const versions = listModels().filter(model => model.name === address.name);
  const model = versions.find(entry => entry.version === address.version) || versions[0];
  const version = model?.version || "";
  const path = model?.state === "READY" ? modelPath(address.name, version) : "";
  const metadata = useDocument(path), config = useDocument(path && `${path}/config`);
  if (store.phase === "loading") return html`<${Heading} title=${address.name} /><${Loading} rows=${8} />`;
  if (!model) return html`<${Heading} title=${address.name} /><${Empty} title="There is no such model"><p>It may have been unloaded. <a href="#/">All models</a></p></${Empty}>`;
  const note = store.data && model.state === "READY" && !(model.success + model.failure) ? "No request yet: Try it sends one" : "";
  return html`<${Heading} title=${html`<bdi class="text">${model.name}</bdi>`} note=${note}>
      <${State} model=${model} /><a class="button primary" href=${link("try", model.name, version)}>Try it</a>
      <a class="button" href=${link("api", model.name, version)}>API</a></${Heading}>
    ${versions.length > 1 && html`<nav class="versions" aria-label="Versions">${versions.map(entry =>
      html`<a key=${entry.version} href=${link("models", entry.name, entry.version)} aria-current=${entry === model ? "page" : undefined}>Version ${entry.version || "without a name"}</a>`)}
      <a href=${link("traffic")}>Compare</a></nav>`}
    ${model.reason && html`<div class="banner bad" role="alert">${model.reason}</div>`}
    <${ModelActions} name=${model.name} state=${model.state} />
    ${store.data && html`<${Numbers} model=${model} />`}
    ${store.data && html`<${Plots} history=${store.models.get(keyOf(model.name, version))} />`}
    ${metadata.error ? html`<${Failure} error=${metadata.error} />` : metadata.data ? html`<${Signature} metadata=${metadata.data} />` : path && html`<${Loading} />`}
    ${store.data && html`<${Facts} model=${model} config=${config.data} metadata=${metadata.data} />`}`;
}

function Numbers({ model }) {
  const now = summarize(model.name, model.version);
  const total = model.success + model.failure;
  return html`<dl class="stats" aria-label="Numbers">
    <${Stat} label="Requests" value=${rate(now?.rate)} /><${Stat} label="Errors" value=${rate(now?.errors)} tone=${now?.failed ? "bad" : ""} />
    <${Stat} label="Latency p50" value=${duration(now?.p50)} /><${Stat} label="Latency p95" value=${duration(now?.p95)} /><${Stat} label="Latency p99" value=${duration(now?.p99)} />
    <${Stat} label="In flight" value=${count(model.in_flight)} /><${Stat} label="Requests per batch" value=${number(now?.batch)} />
    <${Stat} label="Failed since start" value=${total ? percent(model.failure / total) : UNKNOWN} /></dl>`;
}

function Plots({ history }) {
  if (!history) return null;
  const { series } = history;
  return html`<section class="plots" aria-label="Plots of the last 15 minutes">
    <${Plot} title="Latency" format=${duration} lines=${[{ label: "p50", values: series.p50 }, { label: "p95", values: series.p95 }, { label: "p99", values: series.p99 }]} />
    <${Plot} title="Requests per second" format=${rate} lines=${[{ label: "all", values: series.rate }, { label: "errors", values: series.errors }]} />
    <${Plot} title="Time per stage" format=${duration} lines=${[{ label: "queue", values: series.queue }, { label: "model", values: series.model }, { label: "transport", values: series.transport }]} />
    <${Plot} title="Requests per batch and in flight" format=${number} lines=${[{ label: "per batch", values: series.batch }, { label: "in flight", values: series.inFlight }]} />
  </section>`;
}

const shapeText = shape => `[${shape.map(size => (size < 0 ? "any" : size)).join(", ")}]`;

function Tensors({ title, tensors }) {
  return html`<div class="card"><h2>${title}</h2>${tensors?.length
    ? html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table><thead><tr><th scope="col">Name</th><th scope="col">Datatype</th><th scope="col">Shape</th><th scope="col">Content type</th></tr></thead>
      <tbody>${tensors.map(tensor => html`<tr key=${tensor.name}><th scope="row" class="text">${tensor.name}${tensor.parameters?.required === false && html` <span class="quiet">optional</span>`}</th>
        <td>${tensor.datatype}</td><td>${shapeText(tensor.shape)}</td><td>${tensor.parameters?.content_type || UNKNOWN}</td></tr>`)}</tbody></table></div>`
    : html`<p class="quiet">Not declared: the model accepts any.</p>`}</div>`;
}

const Signature = ({ metadata }) => html`<section class="columns" aria-label="Signature">
  <${Tensors} title="Inputs" tensors=${metadata.inputs} /><${Tensors} title="Outputs" tensors=${metadata.outputs} /></section>`;

/** What is known about the version, as a list of names and values. */
function Facts({ model, config, metadata }) {
  const rejected = Object.entries(model.rejected).map(([reason, number_]) => `${count(number_)} ${reason}`).join(", ");
  const looked = model.cache_hits + model.cache_misses;
  const facts = [
    ["Runtime", model.implementation], ["Platform", model.platform], ["Source", model.source],
    ["Digest", metadata?.parameters?.digest], ["Loaded in", duration(model.load_seconds)],
    ["Last request", dateTime(model.last_request)], ["Rows", count(model.rows)], ["Executions", count(model.executions)],
    ["Batch size at most", model.max_batch_size > 1 ? `${model.max_batch_size} requests` : "no batching"],
    ["Streams", model.streams === null ? "" : model.streams ? "yes" : "no"], ["Rejected", rejected || "none"],
    ["Response cache", looked ? `${percent(model.cache_hits / looked)} of ${count(looked)} found` : "not used"],
    ["Routes of its own", model.routes.join(", ")],
    ["Configuration", config ? `max_batch_size ${config.max_batch_size}, backend ${config.backend}` : ""],
  ].filter(([, value]) => value);
  return html`<section class="card" aria-labelledby="facts"><h2 id="facts">Details</h2>
    <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="text">${value}</dd></div>`)}</dl></section>`;
}
