// Requests to the server that has served this page. The credential stays in this module's memory.

/** The server's root, with the prefix of a reverse proxy, without a slash at the end. */
export const base = location.pathname.replace(/\/console(\/.*)?$/, "");

let credential = "";

/** @param {string} key An API key or token; "" = none. It is not stored anywhere else. */
export const setCredential = key => { credential = key.trim(); };
export const hasCredential = () => credential !== "";

/** An error response, or a connection that failed (status 0). */
export class RequestError extends Error {
  /** @param {string} message @param {number} status @param {any} body */
  constructor(message, status, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** Path of a model. @param {string} name @param {string} [version] */
export const modelPath = (name, version) =>
  `/v2/models/${encodeURIComponent(name)}${version ? `/versions/${encodeURIComponent(version)}` : ""}`;

/**
 * Send a request; returns any response.
 * @param {string} path Below the server's root.
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function send(path, options = {}) {
  const headers = new Headers(options.headers);
  if (credential) headers.set("authorization", `Bearer ${credential}`);
  try {
    return await fetch(base + path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new RequestError("The server cannot be reached", 0);
  }
}

/** The message of an error body of V2, of MLflow or of OpenAI. @param {any} body @param {Response} response */
export function errorMessage(body, response) {
  const parts = [body?.error?.message, body?.error, body?.message, body?.detail];
  const text = parts.find(part => typeof part === "string" && part);
  return text || `Status ${response.status} ${response.statusText}`;
}

/**
 * Send a request and return the JSON of the response.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 * @throws {RequestError}
 */
export async function json(path, options) {
  const response = await send(path, options);
  const text = await response.text();
  let body = null;
  try { body = text ? JSON.parse(text) : null; } catch { /* not JSON: the status says enough */ }
  if (!response.ok) throw new RequestError(errorMessage(body, response), response.status, body);
  return body;
}

/** @param {string} path @param {any} [body] */
export const post = (path, body) =>
  json(path, { method: "POST", body: body === undefined ? undefined : JSON.stringify(body), headers: { "content-type": "application/json" } });

/**
 * The `data:` lines of a stream of server-sent events.
 * @param {Response} response
 * @returns {AsyncGenerator<string>}
 */
export async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? "\n" : decoder.decode(value, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() || "";
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    if (done) return;
  }
}

/** Stages of `Server-Timing` in milliseconds. @param {Response} response */
export function serverTiming(response) {
  /** @type {{stages: Record<string, number>, batch: string}} */
  const timing = { stages: {}, batch: "" };
  for (const part of (response.headers.get("server-timing") || "").split(/,(?=\s*[a-z]+;)/)) {
    const [name, value] = part.trim().split(";");
    if (value?.startsWith("dur=")) timing.stages[name] = Number(value.slice(4));
    if (value?.startsWith("desc=")) timing.batch = value.slice(6, -1);
  }
  return timing;
}
