// The chat form of Try it: OpenAI's chat completions, streamed where the model streams.
import { html, useEffect, useRef, useState } from "../lib.js";
import { errorMessage, events, send, serverTiming } from "../api.js";
import { Timing } from "../answer.js";

const JSON_HEADERS = { "content-type": "application/json" };

/** @param {{path: string, streams: boolean}} options */
export function Chat({ path, streams }) {
  const [messages, setMessages] = useState([]);
  const [text, setText] = useState("");
  const [state, setState] = useState({ running: false, error: "", timing: null, total: 0 });
  const controller = useRef(null);
  useEffect(() => () => controller.current?.abort(), []);
  const submit = async event => {
    event.preventDefault();
    if (!text.trim() || state.running) return;
    const conversation = [...messages, { role: "user", content: text }];
    setMessages(conversation);
    setText("");
    controller.current = new AbortController();
    const started = performance.now();
    setState({ running: true, error: "", timing: null, total: 0 });
    const show = content => setMessages([...conversation, { role: "assistant", content }]);
    try {
      const body = JSON.stringify({ messages: conversation, stream: streams });
      const response = await send(`${path}/v1/chat/completions`, { method: "POST", body, headers: JSON_HEADERS, signal: controller.current.signal });
      const isStream = (response.headers.get("content-type") || "").startsWith("text/event-stream");
      const error = isStream ? await readEvents(response, show) : await readWhole(response, show);
      setState({ running: false, error, timing: serverTiming(response), total: performance.now() - started });
    } catch (error) {
      setState({ running: false, error: error.name === "AbortError" ? "Stopped" : error.message, timing: null, total: 0 });
    }
  };
  const onKey = event => { if (event.key === "Enter" && !event.shiftKey) submit(event); };
  return html`<div class="chat-column"><section class="card response chat" role="status" aria-label="Response">
      <div class="heading"><h2>Conversation</h2><div class="row end">${messages.length > 0 && html`<button type="button" class="quiet-button" onClick=${() => setMessages([])}>Clear</button>`}</div></div>
      ${messages.length === 0 && html`<p class="quiet">Nothing has been sent yet.</p>`}
      ${messages.map((message, index) => html`<div key=${index} class="message ${message.role}"><span class="quiet">${message.role}</span><div class="text">${message.content}</div></div>`)}
      ${state.running && html`<p class="quiet">Waiting</p>`}
      ${state.timing && html`<${Timing} timing=${state.timing} total=${state.total} />`}</section>
    <form class="card request" aria-label="Request" onSubmit=${submit}>
      <div class="control"><label for="chat-message">Message</label><textarea id="chat-message" rows="4" value=${text} onInput=${event => setText(event.target.value)} onKeyDown=${onKey}></textarea>
        <p class="hint">Enter sends, Shift+Enter starts a line</p></div>
      ${state.error && html`<div class="banner bad" role="alert"><span class="text">${state.error}</span></div>`}
      <div class="row send"><button type="submit" class="primary">Send</button>${state.running && html`<button type="button" onClick=${() => controller.current.abort()}>Stop</button>`}</div></form></div>`;
}

/** Show the deltas as they arrive; returns the error's message, "" = none. */
async function readEvents(response, show) {
  let content = "";
  for await (const data of events(response)) {
    if (data === "[DONE]") break;
    let chunk = null;
    try { chunk = JSON.parse(data); } catch { continue; }
    if (chunk.error) return chunk.error.message || String(chunk.error);
    content += chunk.choices?.[0]?.delta?.content || "";
    show(content);
  }
  return "";
}

async function readWhole(response, show) {
  let body = null;
  try { body = await response.json(); } catch { /* the status says enough */ }
  if (!response.ok) return errorMessage(body, response);
  show(body?.choices?.[0]?.message?.content ?? JSON.stringify(body, null, 2));
  return "";
}
