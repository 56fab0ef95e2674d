// State of the page: one poll per second while it is visible, 15 minutes of points, the caller's
// permissions. The server stores none of it.
import { useEffect, useState } from "./lib.js";
import { RequestError, json, post } from "./api.js";

const INTERVAL = 1000; // milliseconds between polls
export const POINTS = 900;
const WINDOW = 5; // polls of which a point of a plot shows the percentiles
const MINUTE = 60; // polls of which the tables show the percentiles
const GAP = 4; // seconds without a poll that are shown as a gap
export const SERIES = ["rate", "errors", "p50", "p95", "p99", "queue", "model", "transport", "batch", "inFlight", "memory", "processor"];

/** @typedef {Record<string, Float64Array>} Series */
/** @typedef {{name: string, version: string, state: string, ready: boolean, reason: string, [key: string]: any}} Model */

/** @returns {Series} */
const createSeries = () => Object.fromEntries(SERIES.map(name => [name, new Float64Array(POINTS).fill(NaN)]));

/** @type {{phase: "loading"|"live"|"forbidden"|"lost", data: any, error: string, status: number, access: any, lastPoll: number,
 *   times: Float64Array, total: Series, models: Map<string, History>, processes: Map<number, Series>, index: any[], indexError: string}} */
export const store = {
  phase: "loading", data: null, error: "", status: 0, access: null, lastPoll: 0,
  times: new Float64Array(POINTS).fill(NaN), total: createSeries(), models: new Map(), processes: new Map(), index: [], indexError: "",
};
const listeners = new Set();
const notify = () => listeners.forEach(listener => listener());

/** Render again after each poll. */
export function useStore() {
  const [, update] = useState(0);
  useEffect(() => {
    const listener = () => update(value => value + 1);
    listeners.add(listener);
    return () => { listeners.delete(listener); };
  }, []);
  return store;
}

/** Key of a model version. @param {string} name @param {string} version */
export const keyOf = (name, version) => `${name}\u0000${version}`;

/** @param {Float64Array} values @param {number} value */
function push(values, value) {
  values.copyWithin(0, 1);
  values[values.length - 1] = value;
}

/** The points and the last minute's documents of one model version. */
class History {
  constructor() {
    this.series = createSeries();
    /** @type {{time: number, model: Model}[]} */
    this.documents = [];
    this.seen = 0;
  }

  /** @param {number} time @param {Model} model @param {number[]} bounds */
  add(time, model, bounds) {
    const last = this.documents.at(-1);
    if (last && (model.success < last.model.success || model.failure < last.model.failure)) this.documents = [];
    this.documents.push({ time, model });
    if (this.documents.length > MINUTE + 1) this.documents.shift();
    this.seen = time;
    const recent = this.summarize(WINDOW, bounds), second = this.summarize(1, bounds);
    for (const name of SERIES) {
      const source = name === "rate" || name === "errors" ? second : recent;
      push(this.series[name], name === "inFlight" ? model.in_flight : source?.[name] ?? NaN);
    }
  }

  /** Rates and percentiles over the last so many polls; null = not known yet. @param {number} polls @param {number[]} bounds */
  summarize(polls, bounds) {
    const last = this.documents.at(-1), first = this.documents.at(-1 - polls) || this.documents[0];
    if (!last || !first || last === first) return null;
    const seconds = last.time - first.time, now = last.model, before = first.model;
    const done = now.success - before.success, failed = now.failure - before.failure;
    const counts = subtract(now.latency.counts, before.latency.counts);
    const runs = total(subtract(now.batch_requests.counts, before.batch_requests.counts));
    const each = name => (done > 0 ? (now[name] - before[name]) / done : NaN);
    return {
      rate: (done + failed) / seconds, errors: failed / seconds, done, failed,
      p50: percentile(counts, bounds, 0.5), p95: percentile(counts, bounds, 0.95), p99: percentile(counts, bounds, 0.99),
      queue: each("queue_seconds"), model: each("model_seconds"), transport: each("transport_seconds"),
      batch: runs > 0 ? (now.batch_requests.sum - before.batch_requests.sum) / runs : NaN,
    };
  }
}

/** @param {Record<string, number>} now @param {Record<string, number>} before */
export function subtract(now, before) {
  /** @type {Record<string, number>} */
  const difference = {};
  for (const index in now) {
    const added = now[index] - (before[index] || 0);
    if (added > 0) difference[index] = added;
  }
  return difference;
}

/** @param {Record<string, number>} counts */
const total = counts => Object.values(counts).reduce((sum, value) => sum + value, 0);

/**
 * A percentile of a histogram in seconds: geometric interpolation within its bucket.
 * @param {Record<string, number>} counts Bucket's index -> observations.
 * @param {number[]} bounds Upper bounds of the buckets.
 * @param {number} share E.g. 0.99.
 */
export function percentile(counts, bounds, share) {
  let rest = total(counts) * share;
  if (rest === 0) return NaN;
  for (const index of Object.keys(counts).map(Number).sort((left, right) => left - right)) {
    if (counts[index] >= rest) {
      if (index >= bounds.length) return Infinity;
      const upper = bounds[index], lower = index ? bounds[index - 1] : upper / 2;
      return lower * (upper / lower) ** (rest / counts[index]);
    }
    rest -= counts[index];
  }
  return NaN;
}

/** Rates and percentiles over so many polls, of all models together. @param {any} data @param {number} polls */
function sumModels(data, polls) {
  const bounds = data.latency_bounds;
  let rate = 0, errors = 0, known = false;
  /** @type {Record<string, number>} */
  const counts = {};
  for (const model of data.models) {
    const history = store.models.get(keyOf(model.name, model.version));
    const now = history?.documents.at(-1), before = history?.documents.at(-1 - polls) || history?.documents[0];
    const summary = history?.summarize(polls, bounds);
    if (!now || !before || !summary) continue;
    known = true;
    rate += summary.rate;
    errors += summary.errors;
    const added = subtract(now.model.latency.counts, before.model.latency.counts);
    for (const index in added) counts[index] = (counts[index] || 0) + added[index];
  }
  const inFlight = data.models.reduce((sum, model) => sum + model.in_flight, 0);
  return {
    rate: known ? rate : NaN, errors: known ? errors : NaN, inFlight,
    p50: percentile(counts, bounds, 0.5), p95: percentile(counts, bounds, 0.95), p99: percentile(counts, bounds, 0.99),
  };
}

/** All models together over the last minute, as in the tables. */
export const summarizeAll = () => sumModels(store.data, MINUTE);

/** Rates and percentiles of one model version over the last minute. @param {string} name @param {string} version */
export const summarize = (name, version) =>
  store.models.get(keyOf(name, version))?.summarize(MINUTE, store.data.latency_bounds) || null;

/** @param {any} data A document of /v2/console/metrics. */
export function record(data) {
  if (store.data && data.server.started !== store.data.server.started) store.models.clear();
  const last = store.times[POINTS - 1];
  if (data.time <= last) {
    store.data = data;
    return;
  }
  if (data.time - last > GAP) addPoint({ ...data, time: last + 1, models: [], processes: [] });
  addPoint(data);
  store.data = data;
}

/** @param {any} data */
function addPoint(data) {
  push(store.times, data.time);
  for (const model of data.models) {
    const key = keyOf(model.name, model.version);
    const history = store.models.get(key) || new History();
    store.models.set(key, history);
    history.add(data.time, model, data.latency_bounds);
  }
  const sums = data.models.length ? sumModels(data, WINDOW) : {};
  for (const name of SERIES) push(store.total[name], sums[name] ?? NaN);
  for (const process of data.processes) addProcess(data.time, process);
  for (const [key, history] of store.models) {
    if (history.seen === data.time) continue;
    if (data.time - history.seen > POINTS) store.models.delete(key);
    for (const name of SERIES) push(history.series[name], NaN);
  }
  const alive = new Set(data.processes.map(process => process.pid));
  for (const [pid, series] of store.processes) {
    if (alive.has(pid)) continue;
    for (const name of ["memory", "processor", "total"]) push(series[name], NaN);
    if (series.memory.every(Number.isNaN)) store.processes.delete(pid);
  }
}

/** @param {number} time @param {any} process */
function addProcess(time, process) {
  let series = store.processes.get(process.pid);
  if (!series) {
    const create = () => new Float64Array(POINTS).fill(NaN);
    store.processes.set(process.pid, (series = { memory: create(), processor: create(), total: create() }));
  }
  const seconds = time - store.times[POINTS - 2], spent = process.processor_seconds ?? NaN;
  push(series.processor, Math.max(0, (spent - series.total[POINTS - 1]) / seconds));
  push(series.memory, process.resident_bytes ?? NaN);
  push(series.total, spent);
}

// -- polling --

let timer = 0;
let running = false;

/** Poll once, and again after `INTERVAL` while the page is visible. */
async function poll() {
  if (running) return;
  running = true;
  clearTimeout(timer);
  try {
    record(await json("/v2/console/metrics"));
    Object.assign(store, { phase: "live", error: "", indexError: "", status: 200, lastPoll: Date.now() / 1000 });
  } catch (error) {
    const status = error instanceof RequestError ? error.status : -1;
    if (!(error instanceof RequestError)) console.error(error);
    const phase = status === 401 || status === 403 ? "forbidden" : "lost";
    if (phase === "forbidden") store.data = null;
    Object.assign(store, { phase, error: error instanceof Error ? error.message : String(error), status });
    if (phase === "forbidden") await pollIndex();
  }
  running = false;
  notify();
  if (!document.hidden) timer = setTimeout(poll, store.phase === "live" ? INTERVAL : 2 * INTERVAL);
}

/** Read the repository index, for callers without the scope `metrics`. */
async function pollIndex() {
  try {
    store.index = await post("/v2/repository/index", {});
    store.indexError = "";
  } catch (error) {
    store.index = [];
    store.indexError = error instanceof Error ? error.message : String(error);
  }
}

/** Read what the caller may do, and poll at once. */
export async function refresh() {
  try { store.access = await post("/v2/console/access"); } catch { store.access = null; }
  await poll();
}

/** Start polling. */
export function start() {
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  refresh();
}

/** Names and versions of all known models. @returns {Model[]} */
export function listModels() {
  if (store.data) return store.data.models;
  return store.index.map(item => ({
    name: item.name, version: item.version || "", state: item.state, ready: item.state === "READY", reason: item.reason || "",
  }));
}
