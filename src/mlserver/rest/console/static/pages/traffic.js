// Versions and traffic: configured and measured shares, shadows, followed aliases.
import { html } from "../lib.js";
import { Bar, Empty, Failure, Heading, Loading, State, useDocument } from "../components.js";
import { UNKNOWN, ago, count, dateTime, duration, percent, rate } from "../format.js";
import { link } from "../router.js";
import { keyOf, summarize } from "../store.js";

const INTERVAL = 2000;

export function TrafficPage({ store }) {
  const { data, error } = useDocument("/v2/console/routing", INTERVAL);
  const title = html`<${Heading} title="Versions and traffic" />`;
  if (!data && error) return html`${title}<${Failure} error=${error} />`;
  if (!data || !store.data) return html`${title}<${Loading} rows=${6} />`;
  const isInteresting = model => model.versions.length > 1 || model.versions.some(version => version.alias);
  const shown = data.models.filter(isInteresting), others = data.models.length - shown.length;
  return html`${title}
    ${shown.length === 0 && html`<${Empty} title="No model has several versions"><p>Give two models one name and different versions, and weights
      in <code>parameters.extra.traffic</code>: their shares, latencies and errors stand here side by side. So do shadow versions and followed aliases.</p></${Empty}>`}
    ${shown.map(model => html`<${ModelCard} key=${model.name} model=${model} store=${store} now=${data.time} />`)}
    ${others > 0 && html`<p class="quiet">${others} ${others === 1 ? "model has" : "models have"} one version without an alias.</p>`}`;
}

/** Requests of each version since the server's start. */
function countRequests(store, name) {
  const counts = {};
  for (const model of store.data.models) if (model.name === name) counts[model.version] = model.success + model.failure;
  return counts;
}

function ModelCard({ model, store, now }) {
  const counts = countRequests(store, model.name);
  const isServing = version => !version.is_shadow;
  const total = model.versions.filter(isServing).reduce((sum, version) => sum + (counts[version.version] || 0), 0);
  const rules = [
    model.sticky_header && `requests with equal header ${model.sticky_header} get one version`,
    model.shadow && `version ${model.shadow} gets copies of the requests`,
  ].filter(Boolean).join("; ");
  return html`<section class="card" aria-label=${model.name}>
    <div class="heading"><h2><bdi class="text">${model.name}</bdi></h2><p class="quiet">${rules || `requests without a version go to ${model.default_version || "the only one"}`}</p></div>
    <div class="scroll" tabindex="0" role="region" aria-label="Versions of ${model.name}"><table>
      <thead><tr><th scope="col">Version</th><th scope="col">State</th><th scope="col" class="num"><span class="dot configured"></span>Configured share</th><th scope="col" class="num"><span class="dot measured"></span>Measured share</th><th scope="col"><span class="hidden">Shares as bars</span></th>
        <th scope="col" class="num">Requests</th><th scope="col" class="num">Total</th><th scope="col" class="num">Failed</th><th scope="col" class="num">p50</th><th scope="col" class="num">p99</th></tr></thead>
      <tbody>${model.versions.map(version => html`<${VersionRow} key=${version.version} name=${model.name} version=${version} number=${counts[version.version] || 0} total=${total} store=${store} />`)}</tbody></table></div>
    ${model.versions.filter(version => version.is_shadow).map(version => html`<${Shadow} key=${version.version} name=${model.name} version=${version} store=${store} />`)}
    ${model.versions.filter(version => version.alias).map(version => html`<${Alias} key=${version.version} name=${model.name} version=${version} store=${store} now=${now} />`)}
  </section>`;
}

const findModel = (store, name, version) => store.data.models.find(model => model.name === name && model.version === version);

function VersionRow({ name, version, number, total, store }) {
  const model = findModel(store, name, version.version), recent = summarize(name, version.version);
  const seen = version.is_shadow || !total ? NaN : number / total;
  const failed = number ? (model?.failure || 0) / number : NaN;
  return html`<tr><th scope="row"><a class="text underlined" href=${link("models", name, version.version)}>${version.version || UNKNOWN}</a>
      ${version.is_default && html` <span class="tag off">default</span>`}${version.is_shadow && html` <span class="tag warn">shadow</span>`}</th>
    <td><${State} model=${version} /></td><td class="num">${version.is_shadow ? "copies" : percent(version.share)}</td><td class="num">${percent(seen)}</td>
    <td><${Bar} share=${version.share} /><${Bar} share=${seen} tone="seen" /></td>
    <td class="num">${rate(recent?.rate)}</td><td class="num">${count(number)}</td><td class="num ${failed > 0 ? "bad" : ""}">${percent(failed)}</td>
    <td class="num">${duration(recent?.p50)}</td><td class="num">${duration(recent?.p99)}</td></tr>`;
}

/** Outcomes of the copied requests. */
function Shadow({ name, version, store }) {
  const outcomes = findModel(store, name, version.version)?.shadow || {};
  const sum = Object.values(outcomes).reduce((total, value) => total + value, 0);
  const part = key => `${count(outcomes[key] || 0)} ${key}`;
  return html`<p class=${outcomes.different || outcomes.failed ? "banner warn" : "quiet"}>Shadow version <span class="text">${version.version}</span>: ${sum
    ? ["same", "different", "failed", "dropped"].map(part).join(", ") : "no request has been copied yet"}.</p>`;
}

/** The followed alias: its version, its last change, its last failure. */
function Alias({ name, version, store, now }) {
  const { alias } = version, swaps = findModel(store, name, version.version)?.swaps || {};
  return html`<div class=${alias.failure ? "banner bad" : "quiet"}>Follows <code class="text">${alias.address}</code>, now <code class="text">${version.source || "not resolved"}</code>;
    polled every ${duration(alias.interval)}, last ${ago(alias.checked, now)}; moved ${alias.moved ? dateTime(alias.moved) : "never since the start"};
    ${count(swaps.loaded || 0)} reloads, ${count(swaps.failed || 0)} failed.
    ${alias.failure && html`<p role="alert"><strong>Last failure, ${dateTime(alias.failed)}:</strong> <span class="text">${alias.failure}</span>. The previous version keeps serving.</p>`}</div>`;
}
