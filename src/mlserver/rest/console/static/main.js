// The frame of the page: header, navigation, the page of the address, the dialog for the credential.
import { html, render, useEffect, useRef, useState } from "./lib.js";
import { hasCredential, setCredential } from "./api.js";
import { Heading, NoPermission } from "./components.js";
import { parseAddress } from "./router.js";
import { refresh, start, useStore } from "./store.js";
import { ApiPage } from "./pages/api.js";
import { ErrorsPage } from "./pages/errors.js";
import { ModelPage } from "./pages/model.js";
import { Overview } from "./pages/overview.js";
import { SettingsPage } from "./pages/settings.js";
import { TrafficPage } from "./pages/traffic.js";
import { TryPage } from "./pages/try.js";
import { WorkersPage } from "./pages/workers.js";

const PAGES = [
  { path: "", title: "Overview", page: Overview },
  { path: "try", title: "Try it", page: TryPage },
  { path: "traffic", title: "Traffic", page: TrafficPage },
  { path: "workers", title: "Workers", page: WorkersPage },
  { path: "errors", title: "Errors", page: ErrorsPage },
  { path: "settings", title: "Settings", page: SettingsPage },
  { path: "api", title: "API", page: ApiPage },
  { path: "models", title: "Model", page: ModelPage, hidden: true },
];

function useAddress() {
  const [address, setAddress] = useState(parseAddress);
  useEffect(() => {
    const update = () => setAddress(parseAddress());
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return address;
}

function Status({ store }) {
  const { phase, data } = store;
  const states = {
    loading: ["quiet", "Connecting"],
    live: data?.server.ready ? ["good", "Ready"] : ["bad", "Not ready"],
    lost: ["bad", "Not reachable"],
    forbidden: ["warn", "No access to metrics"],
  };
  const [tone, text] = states[phase];
  return html`<span class="status ${tone}" role="status" aria-label="Server">${text}</span>`;
}

/** Dialog for the API key or token, which stays in the page's memory. */
function KeyDialog({ store }) {
  const dialog = useRef(null), field = useRef(null);
  const open = () => { dialog.current.showModal(); field.current.focus(); };
  const use = event => {
    event.preventDefault();
    setCredential(field.current.value);
    dialog.current.close();
    refresh();
  };
  const remove = () => {
    field.current.value = "";
    setCredential("");
    dialog.current.close();
    refresh();
  };
  const scopes = store.access?.scopes || {};
  return html`<button type="button" class="quiet-button" onClick=${open}>${hasCredential() ? "API key set" : "API key"}</button>
    <dialog ref=${dialog} aria-labelledby="key-title">
      <form onSubmit=${use} class="stack">
        <h2 id="key-title">Credential</h2>
        <p class="quiet">Kept in this page's memory until it is closed or loaded again; sent to this server only.</p>
        <label class="field">API key or token<input ref=${field} type="password" autocomplete="off" spellcheck=${false} /></label>
        <ul class="plain">${Object.entries(scopes).map(([scope, { allowed, reason }]) =>
          html`<li key=${scope}><span class="tag ${allowed ? "good" : "off"}">${scope}</span> <span class="quiet">${allowed ? "allowed" : reason}</span></li>`)}</ul>
        <div class="row end"><button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
          ${hasCredential() && html`<button type="button" onClick=${remove}>Remove key</button>`}<button type="submit" class="primary">Use key</button></div>
      </form>
    </dialog>`;
}

function App() {
  const store = useStore();
  const address = useAddress();
  const current = PAGES.find(page => page.path === address.page) || PAGES[0];
  const main = useRef(null);
  useEffect(() => {
    const names = [address.name, current.title].filter(Boolean).join(" · ");
    document.title = `${names} – ${store.data?.server.name || "MLServer"}`;
  }, [address.name, current.title, store.data?.server.name]);
  useEffect(() => { // on a narrow screen, the links scroll
    document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [current]);
  const skip = event => { event.preventDefault(); main.current.focus(); };
  const needsKey = store.access?.requires_credentials && !store.access.scopes.infer.allowed && !store.access.scopes.metrics.allowed;
  const Page = current.page;
  return html`<a class="skip" href="#" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/"><span class="logo" aria-hidden="true"></span>${store.data?.server.name || "mlserver"}</a>
      <nav aria-label="Pages">${PAGES.filter(page => !page.hidden).map(page =>
        html`<a key=${page.path} href=${`#/${page.path}`} aria-current=${page === current ? "page" : undefined}>${page.title}</a>`)}</nav>
      <div class="top-end"><${Status} store=${store} /><${KeyDialog} store=${store} /></div>
    </header>
    <main ref=${main} tabindex="-1">
      ${store.phase === "lost" && html`<div class="banner bad" role="alert"><strong>The server does not answer.</strong> ${store.error}.
        ${store.data ? " The values below are the last ones received." : ""} Trying again every two seconds.</div>`}
      ${needsKey ? html`<${Heading} title=${current.title} /><${NoPermission} title="This server needs a credential" reason=${store.access.scopes.infer.reason} />`
        : html`<${Page} key=${current.path} store=${store} address=${address} />`}
    </main>`;
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
document.querySelector(".boot")?.remove();
start();
