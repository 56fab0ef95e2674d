// Workers: pools and processes, their memory, and why they were restarted.
import { html } from "../lib.js";
import { Empty, Failure, Heading, Loading, useDocument } from "../components.js";
import { bytes, count, dateTime, percent } from "../format.js";
import { Plot } from "../plot.js";
import { POINTS } from "../store.js";

const INTERVAL = 1000;

export function WorkersPage({ store }) {
  const { data, error } = useDocument("/v2/console/workers", INTERVAL);
  const title = html`<${Heading} title="Workers" note="The processes that run the models, and those that serve HTTP" />`;
  if (!data && error) return html`${title}<${Failure} error=${error} />`;
  if (!data) return html`${title}<${Loading} rows=${6} />`;
  const processor = pid => store.processes.get(pid)?.processor[POINTS - 1];
  return html`${title}
    ${data.pools.length === 0 && html`<${Empty} title="There are no worker processes"><p>Models run in a thread of the server's process (setting <code>parallel_workers</code> of 0).</p></${Empty}>`}
    ${data.pools.map(pool => html`<${Pool} key=${pool.number} pool=${pool} processor=${processor} />`)}
    <section class="card" aria-labelledby="front-ends"><h2 id="front-ends">Front ends</h2>
      <div class="scroll" tabindex="0" role="region" aria-label="Front ends"><table><thead><tr><th scope="col">Process</th><th scope="col">State</th><th scope="col" class="num">Memory</th><th scope="col" class="num">Processor</th></tr></thead>
      <tbody><${ProcessRow} name="server" process=${{ ...data.server, serving: true }} processor=${processor} />
        ${data.http_workers.map(process => html`<${ProcessRow} key=${process.pid} name="HTTP worker ${process.index}" process=${process} processor=${processor} />`)}</tbody></table></div></section>
    ${store.data && html`<${MemoryPlot} store=${store} />`}`;
}

const ProcessRow = ({ name, process, processor }) => html`<tr><th scope="row">${name} <span class="quiet">process ${process.pid}</span></th>
  <td><span class="tag ${process.serving ? "good" : "warn"}">${process.serving ? "serving" : "starting"}</span></td>
  <td class="num">${bytes(process.resident_bytes)}</td><td class="num">${percent(processor(process.pid))}</td></tr>`;

/** What the pool is for. */
function describe(pool) {
  const parts = [pool.environment && `environment ${pool.environment}`, pool.group && `group ${pool.group}`, pool.has_own_code && "models that ship code"];
  return parts.filter(Boolean).join(", ") || "models without code of their own";
}

function Pool({ pool, processor }) {
  const missing = pool.size - pool.ready;
  return html`<section class="card" aria-label="Pool ${pool.number}">
    <div class="heading"><h2>Pool ${pool.number}</h2><p class="quiet text">${describe(pool)}</p>
      <div class="row end"><span class="tag ${missing > 0 ? "bad" : "good"}">${pool.ready} of ${pool.size} ready</span></div></div>
    ${missing > 0 && html`<div class="banner warn" role="status">${missing === 1 ? "One worker is" : `${missing} workers are`} being started.</div>`}
    <div class="scroll" tabindex="0" role="region" aria-label="Workers of pool ${pool.number}"><table>
      <thead><tr><th scope="col">Worker</th><th scope="col">Models</th><th scope="col" class="num">In flight</th><th scope="col" class="num">Memory</th><th scope="col" class="num">Processor</th></tr></thead>
      <tbody>${pool.workers.map(worker => html`<tr key=${worker.pid}><th scope="row">Process ${worker.pid}</th>
        <td class="text models-cell">${worker.models.join(", ") || "none"}${worker.missing_models.length > 0 && html` <span class="tag warn">lacks ${worker.missing_models.join(", ")}</span>`}</td>
        <td class="num">${count(worker.in_flight)}</td><td class="num">${bytes(worker.resident_bytes)}</td><td class="num">${percent(processor(worker.pid))}</td></tr>`)}
        ${pool.workers.length === 0 && html`<tr><td colspan="5" class="quiet">No worker is ready.</td></tr>`}</tbody></table></div>
    <${Exits} pool=${pool} /></section>`;
}

const Exits = ({ pool }) => pool.restarts === 0 ? html`<p class="quiet">No worker has ended unexpectedly.</p>`
  : html`<details open><summary>${pool.restarts} ${pool.restarts === 1 ? "restart" : "restarts"}</summary>
      <ul class="plain">${[...pool.exits].reverse().map(exit => html`<li key=${`${exit.pid} ${exit.time}`}>${dateTime(exit.time)}: process ${exit.pid} ended, ${exit.reason}</li>`)}</ul></details>`;

/** Memory of each process over time. */
function MemoryPlot({ store }) {
  const kinds = { server: "server", worker: "worker", http_worker: "HTTP worker" };
  const lines = store.data.processes.filter(process => store.processes.has(process.pid))
    .map(process => ({ label: `${kinds[process.kind]} ${process.pid}`, values: store.processes.get(process.pid).memory }));
  return html`<div class="plots"><${Plot} title="Memory of the processes" format=${bytes} lines=${lines} /></div>`;
}
