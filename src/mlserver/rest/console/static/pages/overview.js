// Overview: readiness, rates, latency and memory of the server and of each model.
import { html, useState } from "../lib.js";
import { Empty, Heading, Loading, ModelActions, Spark, Stat, State } from "../components.js";
import { bytes, count, duration, rate, UNKNOWN } from "../format.js";
import { Plot } from "../plot.js";
import { link } from "../router.js";
import { keyOf, listModels, summarize, summarizeAll } from "../store.js";

const SPARK_POINTS = 60;
const FILTER_FROM = 8; // models from which a filter is worth its place

export function Overview({ store }) {
  const [filter, setFilter] = useState("");
  if (store.phase === "loading" || (store.phase === "lost" && !store.data)) return html`<${Heading} title="Overview" /><${Loading} rows=${6} />`;
  const models = listModels();
  const shown = models.filter(model => model.name.toLowerCase().includes(filter.toLowerCase()));
  const failed = models.filter(model => model.reason && model.state !== "LOADING");
  return html`<${Heading} title="Overview" note=${store.data && `Up ${duration(Math.round(store.data.time - store.data.server.started))} · version ${store.data.server.version} · rates and latencies of the last minute`} />
    ${store.data ? html`<${Totals} store=${store} />` : html`<p class="banner warn">Rates and latencies need the scope <code>metrics</code>: ${store.error}</p>`}
    ${failed.map(model => html`<${FailedModel} key=${keyOf(model.name, model.version)} model=${model} />`)}
    ${store.data?.missing.map(name => html`<div class="banner bad" role="alert" key=${name}><strong class="text">${name}</strong> has no usable settings. The server's log has the reason.</div>`)}
    <section aria-labelledby="models-title">
      <div class="heading"><h2 id="models-title">Models <span class="quiet">${models.length}</span></h2>
        ${models.length >= FILTER_FROM && html`<input type="search" aria-label="Filter models" placeholder="Filter" value=${filter} onInput=${event => setFilter(event.target.value)} />`}</div>
      ${models.length ? html`<${Models} models=${shown} store=${store} />` : html`<${NoModels} error=${store.indexError} />`}
    </section>
    ${store.data && models.length > 0 && html`<section class="plots" aria-label="Plots of all models">
      <${Plot} title="Requests per second" format=${rate} lines=${[{ label: "all", values: store.total.rate }, { label: "errors", values: store.total.errors }]} />
      <${Plot} title="Latency" format=${duration} lines=${[{ label: "p50", values: store.total.p50 }, { label: "p95", values: store.total.p95 }, { label: "p99", values: store.total.p99 }]} />
    </section>`}`;
}

function Totals({ store }) {
  const all = summarizeAll();
  const memory = store.data.processes.reduce((sum, process) => sum + (process.resident_bytes ?? NaN), 0);
  const ready = store.data.models.filter(model => model.ready).length;
  return html`<dl class="stats" aria-label="Totals">
    <${Stat} label="Models ready" value=${`${ready} of ${store.data.models.length}`} tone=${ready < store.data.models.length ? "bad" : ""} />
    <${Stat} label="Requests" value=${rate(all.rate)} />
    <${Stat} label="Errors" value=${rate(all.errors)} tone=${all.errors > 0 ? "bad" : ""} />
    <${Stat} label="Latency p50" value=${duration(all.p50)} title="Of the last minute, in the server" />
    <${Stat} label="Latency p99" value=${duration(all.p99)} title="Of the last minute, in the server" />
    <${Stat} label="In flight" value=${count(all.inFlight)} />
    <${Stat} label="Memory" value=${bytes(memory)} title="Resident memory of all processes; shared pages are counted in each" />
  </dl>`;
}

/** The model's reason and what to do about it. */
function FailedModel({ model }) {
  return html`<div class="banner bad" role="alert"><div><strong class="text">${model.name}${model.version && ` version ${model.version}`}</strong>
      ${model.ready ? " serves its previous state: the last load failed." : " cannot serve."} <span class="text">${model.reason}</span></div>
    <p class="quiet">Correct the cause, then load the model again. <code>mlserver check FOLDER --verbose</code> prints the log of its load with the traceback.</p>
    <${ModelActions} name=${model.name} state=${model.state} /></div>`;
}

const NoModels = ({ error }) => error
  ? html`<${Empty} title="The models are not visible"><p>${error}</p></${Empty}>`
  : html`<${Empty} title="No model is loaded"><p>Put a model in the server's folder and load it, or start the server with one:</p>
      <pre>mlserver start FOLDER</pre><p>An MLflow model's folder is enough.</p></${Empty}>`;

function Models({ models, store }) {
  if (!models.length) return html`<${Empty} title="No model has this name" />`;
  return html`<div class="scroll card" tabindex="0" role="region" aria-label="Models"><table class="models">
    <thead><tr><th scope="col">Model</th><th scope="col">Version</th><th scope="col">State</th><th scope="col" class="num">Requests</th>
      <th scope="col" class="num">Errors</th><th scope="col" class="num">p50</th><th scope="col" class="num">p99</th>
      <th scope="col" class="num">In flight</th><th scope="col" class="num">Total</th><th scope="col">Last minute</th><th scope="col"><span class="hidden">Try it</span></th></tr></thead>
    <tbody>${models.map(model => html`<${ModelRow} key=${keyOf(model.name, model.version)} model=${model} store=${store} />`)}</tbody></table></div>`;
}

function ModelRow({ model, store }) {
  const now = store.data ? summarize(model.name, model.version) : null;
  const history = store.models.get(keyOf(model.name, model.version));
  const known = value => (store.data ? value : UNKNOWN);
  return html`<tr><th scope="row"><a class="name" href=${link("models", model.name, model.version)} title=${model.name}><bdi>${model.name}</bdi></a></th>
    <td class="text">${model.version || UNKNOWN}</td><td><${State} model=${model} /></td>
    <td class="num">${rate(now?.rate)}</td><td class="num ${now?.failed ? "bad" : ""}">${rate(now?.errors)}</td>
    <td class="num">${duration(now?.p50)}</td><td class="num">${duration(now?.p99)}</td>
    <td class="num">${known(count(model.in_flight))}</td><td class="num">${known(count(model.success + model.failure))}</td>
    <td>${history && html`<${Spark} values=${history.series.rate.subarray(-SPARK_POINTS)} label="Requests per second of the last minute" />`}</td>
    <td><a href=${link("try", model.name, model.version)} aria-label="Try it: ${model.name} ${model.version}">Try it</a></td></tr>`;
}
