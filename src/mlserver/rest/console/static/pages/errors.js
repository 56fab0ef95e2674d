// Errors: the most recent distinct error responses, and how many of each kind.
import { html, useState } from "../lib.js";
import { Code, Empty, Failure, Heading, Loading, useDocument } from "../components.js";
import { UNKNOWN, ago, count, dateTime } from "../format.js";

const INTERVAL = 2000;

export function ErrorsPage() {
  const [filter, setFilter] = useState("");
  const { data, error } = useDocument("/v2/console/errors", INTERVAL);
  const title = html`<${Heading} title="Errors" note="The last 200 distinct error responses, without the requests' data" />`;
  if (!data && error) return html`${title}<${Failure} error=${error} />`;
  if (!data) return html`${title}<${Loading} rows=${6} />`;
  if (!data.errors.length) return html`${title}<${Empty} title="No error since the start">
    <p>Since ${dateTime(data.since)}. Errors appear here within two seconds, with model, status and message.</p></${Empty}>`;
  const text = filter.toLowerCase();
  const shown = data.errors.filter(entry => `${entry.model} ${entry.status} ${entry.kind} ${entry.message} ${entry.request_id}`.toLowerCase().includes(text));
  return html`${title}
    <dl class="stats few" aria-label="Counts per kind">${Object.entries(data.counts).map(([kind, number]) => html`<div class="stat" key=${kind}><dt>${kind}</dt><dd>${count(number)}</dd></div>`)}</dl>
    <input type="search" aria-label="Filter errors" placeholder="Filter by model, status, text or request id" value=${filter} onInput=${event => setFilter(event.target.value)} />
    <div class="scroll card" tabindex="0" role="region" aria-label="Recent errors"><table class="errors">
      <thead><tr><th scope="col">Last</th><th scope="col">Model</th><th scope="col" class="num">Status</th><th scope="col" class="num">Times</th><th scope="col">Message</th></tr></thead>
      <tbody>${shown.map(entry => html`<${ErrorRow} key=${[entry.model, entry.version, entry.operation, entry.status, entry.message].join("\n")} entry=${entry} now=${data.time} />`)}</tbody></table></div>`;
}

function ErrorRow({ entry, now }) {
  return html`<tr><td title=${dateTime(entry.last)}>${ago(entry.last, now)}</td>
    <td class="text">${entry.model || UNKNOWN}${entry.version && ` ${entry.version}`}</td>
    <td class="num ${entry.status >= 500 ? "bad" : ""}">${entry.status}</td><td class="num">${count(entry.count)}</td>
    <td><div class="text">${entry.message}</div>
      <div class="quiet text">${entry.kind} · ${entry.operation || "unknown operation"}${entry.request_id && ` · request ${entry.request_id}`}${entry.count > 1 && ` · first ${dateTime(entry.first)}`}</div>
      ${entry.traceback && html`<details><summary>Traceback</summary><${Code} text=${entry.traceback} label="Traceback" /></details>`}</td></tr>`;
}
