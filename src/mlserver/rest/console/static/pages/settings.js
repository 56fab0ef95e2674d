// Settings: effective values and their sources.
import { html, useState } from "../lib.js";
import { Failure, Heading, Loading, formatText, useDocument } from "../components.js";

export function SettingsPage() {
  const [filter, setFilter] = useState("");
  const [isChangedOnly, setChangedOnly] = useState(false);
  const { data, error } = useDocument("/v2/console/settings");
  const title = html`<${Heading} title="Settings" note="Effective values and their origins; secrets are masked" />`;
  if (!data && error) return html`${title}<${Failure} error=${error} />`;
  if (!data) return html`${title}<${Loading} rows=${10} />`;
  const text = filter.toLowerCase();
  const matches = setting => `${setting.name} ${setting.description} ${setting.origin}`.toLowerCase().includes(text);
  const shown = data.settings.filter(setting => matches(setting) && (!isChangedOnly || setting.origin !== "default"));
  return html`${title}
    <div class="row"><input type="search" aria-label="Filter settings" placeholder="Filter by name or text" value=${filter} onInput=${event => setFilter(event.target.value)} />
      <label class="check"><input type="checkbox" checked=${isChangedOnly} onChange=${event => setChangedOnly(event.target.checked)} /> Only those that are set</label></div>
    <div class="scroll card" tabindex="0" role="region" aria-label="Settings"><table class="settings">
      <thead><tr><th scope="col">Setting</th><th scope="col">Value</th><th scope="col">Origin</th><th scope="col">Default</th></tr></thead>
      <tbody>${shown.map(setting => html`<${SettingRow} key=${setting.name} setting=${setting} />`)}
        ${shown.length === 0 && html`<tr><td colspan="4" class="quiet">No setting matches.</td></tr>`}</tbody></table></div>`;
}

const show = value => (value === null || value === undefined ? "none" : typeof value === "string" ? value || '""' : JSON.stringify(value));

function SettingRow({ setting }) {
  const isSet = setting.origin !== "default";
  return html`<tr><th scope="row"><code>${setting.name}</code><div class="quiet description">${formatText(setting.description)}</div></th>
    <td><code class="text ${isSet ? "changed" : ""}">${show(setting.value)}</code>${setting.unit && typeof setting.value === "number" && html` <span class="quiet">${setting.unit}</span>`}</td>
    <td class="text">${setting.origin}${setting.unused_variables.map(variable => html`<div key=${variable} class="bad">${variable} has no effect</div>`)}</td>
    <td><code class="text quiet">${show(setting.default)}</code></td></tr>`;
}
