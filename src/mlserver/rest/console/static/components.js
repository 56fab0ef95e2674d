// Parts that several pages use.
import { html, useEffect, useId, useRef, useState } from "./lib.js";
import { RequestError, json, post } from "./api.js";
import { refresh, store } from "./store.js";

const STATES = { READY: "good", LOADING: "warn", UNLOADING: "warn", UNAVAILABLE: "bad" };

/** State of a model as text with a colour. */
export const State = ({ model }) =>
  html`<span class="tag ${STATES[model.state] || "off"}">${model.state.toLowerCase()}</span>`;

/** A page's heading, with controls at its end. */
export const Heading = ({ title, note, children }) =>
  html`<div class="heading"><h1>${title}</h1>${note && html`<p class="quiet">${note}</p>`}<div class="row end">${children}</div></div>`;

/** What is shown where there is nothing. */
export const Empty = ({ title, children }) =>
  html`<div class="empty"><h2>${title}</h2><div class="quiet">${children}</div></div>`;

/** Lines in place of content that is being loaded. */
export const Loading = ({ rows = 4 }) =>
  html`<div class="loading" role="status" aria-label="Loading">${Array.from({ length: rows }, (_, index) => html`<div key=${index} class="line"></div>`)}</div>`;

/** Why a page shows nothing to this caller, and what to do. */
export const NoPermission = ({ title, reason }) =>
  html`<${Empty} title=${title}><p>${reason}</p>
    <p>Enter a key with the needed scope under <strong>API key</strong> at the top.
    Keys are made with <code>mlserver key NAME SCOPES</code>.</p></${Empty}>`;

/** Text between backticks as code. */
export const formatText = text => text.split("`").map((part, index) => (index % 2 ? html`<code key=${index}>${part}</code>` : part));

/** An error of a request. */
export const Failure = ({ error }) =>
  error.status === 401 || error.status === 403
    ? html`<${NoPermission} title="Not allowed" reason=${error.message} />`
    : html`<div class="banner bad" role="alert"><strong>This could not be loaded.</strong> ${error.message}</div>`;

/**
 * JSON of a path, read again every `interval` milliseconds (0 = once) while the page is visible.
 * @returns {{data: any, error: RequestError|null, reload: () => void}}
 */
export function useDocument(path, interval = 0) {
  const [state, setState] = useState({ data: null, error: null, path });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let timer = 0, isOver = false;
    async function load() {
      if (!path) return;
      try {
        const data = await json(path);
        if (!isOver) setState({ data, error: null, path });
      } catch (error) {
        if (!isOver) setState(previous => ({ data: previous.path === path ? previous.data : null, error, path }));
      }
      if (interval && !isOver) timer = setTimeout(() => (document.hidden ? wait() : load()), interval);
    }
    function wait() { if (!isOver) timer = setTimeout(() => (document.hidden ? wait() : load()), interval); }
    load();
    return () => { isOver = true; clearTimeout(timer); };
  }, [path, interval, turn, store.access]);
  const current = state.path === path ? state : { data: null, error: null };
  return { ...current, reload: () => setTurn(value => value + 1) };
}

/** Buttons of which one is selected; arrow keys move. `options`: pairs of value and label. */
export function Tabs({ label, value, options, onChange }) {
  const list = useRef(null);
  const move = event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = options.findIndex(([name]) => name === value);
    onChange(options[(index + step + options.length) % options.length][0]);
    requestAnimationFrame(() => list.current?.querySelector("[aria-selected=true]")?.focus());
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>${options.map(([name, text]) =>
    html`<button key=${name} type="button" role="tab" aria-selected=${name === value ? "true" : "false"} tabindex=${name === value ? 0 : -1}
      onClick=${() => onChange(name)}>${text}</button>`)}</div>`;
}

/** A button that copies a text. */
export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed on plain HTTP of another machine: use a selection
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class="quiet-button" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/** A text that can be scrolled and copied. */
export const Code = ({ text, label }) =>
  html`<div class="code"><pre tabindex="0" role="region" aria-label=${label}>${text}</pre><${Copy} text=${text} /></div>`;

/** A line of the last values, without axes. */
export function Spark({ values, label }) {
  const shown = Array.from(values);
  const known = shown.filter(value => !Number.isNaN(value));
  const top = Math.max(...known, 1e-9), width = 96, height = 22;
  let path = "", drawing = false;
  shown.forEach((value, index) => {
    if (Number.isNaN(value)) { drawing = false; return; }
    const x = (index / Math.max(shown.length - 1, 1)) * width, y = height - 1 - (value / top) * (height - 3);
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  return html`<svg class="spark" viewBox="0 0 ${width} ${height}" width=${width} height=${height} role="img" aria-label=${label}>
    <path d="M0 ${height - 1}H${width}" class="spark-base" /><path d=${path} /></svg>`;
}

/** One number with its name. */
export const Stat = ({ label, value, tone, title }) =>
  html`<div class="stat ${tone || ""}" title=${title}><dt>${label}</dt><dd>${value}</dd></div>`;

/** A bar of shares of 1. */
export const Bar = ({ share, tone }) =>
  html`<svg class="bar ${tone || ""}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
    <rect width="100" height="8" class="bar-base" /><rect width=${Math.max(0, Math.min(1, share || 0)) * 100} height="8" /></svg>`;

/** Buttons to load and unload a model, greyed with the reason for callers without the scope. */
export function ModelActions({ name, state }) {
  const [running, setRunning] = useState("");
  const [message, setMessage] = useState(null);
  const id = useId();
  const admin = store.access?.scopes.admin;
  const refusal = admin ? (admin.allowed ? "" : admin.reason) : "The permissions are not known yet";
  const run = action => async () => {
    if (refusal || running) return;
    setRunning(action);
    setMessage(null);
    try {
      await post(`/v2/repository/models/${encodeURIComponent(name)}/${action}`);
      setMessage(["good", action === "load" ? "Loaded" : "Unloaded"]);
    } catch (error) {
      setMessage(["bad", error.message]);
    }
    setRunning("");
    refresh();
  };
  const isLoaded = state === "READY" || state === "LOADING";
  const button = (action, text) => html`<button type="button" aria-disabled=${refusal ? "true" : undefined} aria-describedby=${refusal ? id : undefined}
    title=${refusal || undefined} onClick=${run(action)}>${running === action ? "Working" : text}</button>`;
  return html`<div class="actions">${button("load", isLoaded ? "Reload" : "Load")}${isLoaded && button("unload", "Unload")}
    ${refusal && html`<span id=${id} class="hint">${refusal}</span>`}
    ${message && html`<span role=${message[0] === "bad" ? "alert" : "status"} class="hint ${message[0]}">${message[1]}</span>`}</div>`;
}
