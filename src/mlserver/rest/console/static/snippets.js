// The same call as code to copy. Pure. The credential is a variable, never its value.
import { Literal, toJSON } from "./tensors.js";

/** @typedef {{url: string, body: any, text: string, contentType: string, hasKey: boolean, model: string, version: string, isV2: boolean,
 *   path: string, grpcPort: number|null}} Call `path`: below the server's root; `grpcPort`: null = not known */

/** @param {string} text */
const shell = text => `'${text.replaceAll("'", "'\\''")}'`;

/** A value as Python source. @param {any} value @param {string} [indent] @returns {string} */
function python(value, indent = "") {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (value instanceof Literal) return value.text;
  if (Array.isArray(value)) {
    const isFlat = value.every(item => typeof item !== "object" || item === null || item instanceof Literal);
    if (isFlat) return `[${value.map(item => python(item)).join(", ")}]`;
    return `[\n${value.map(item => `${indent}    ${python(item, `${indent}    `)}`).join(",\n")},\n${indent}]`;
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([key, item]) => `${indent}    ${JSON.stringify(key)}: ${python(item, `${indent}    `)}`);
    return pairs.length ? `{\n${pairs.join(",\n")},\n${indent}}` : "{}";
  }
  return JSON.stringify(value);
}

/** @param {Call} call */
function curl(call) {
  const key = call.hasKey ? ' \\\n  -H "authorization: Bearer $KEY"' : "";
  return `curl ${shell(call.url)} \\\n  -H 'content-type: ${call.contentType}'${key} \\\n  -d ${shell(call.text)}`;
}

/** @param {Call} call */
function requests(call) {
  const headers = call.hasKey ? ',\n    headers={"authorization": f"Bearer {os.environ[\'KEY\']}"}' : "";
  const isJSON = call.contentType === "application/json" && call.body;
  const data = isJSON ? `    json=${python(call.body, "    ")}`
    : `    data=${JSON.stringify(call.text)},\n    headers={"content-type": ${JSON.stringify(call.contentType)}}`;
  return `${call.hasKey ? "import os\n\n" : ""}import requests\n\nresponse = requests.post(\n    ${JSON.stringify(call.url)},\n${data}${isJSON ? headers : ""},\n)\nresponse.raise_for_status()\nprint(response.json())`;
}

const NUMPY = { FP16: "float16", FP32: "float32", FP64: "float64", BOOL: "bool_", BYTES: "object_" };

/** @param {Call} call @param {"http"|"grpc"} protocol */
function triton(call, protocol) {
  const { protocol: scheme, host, hostname, pathname } = new URL(call.url);
  const prefix = pathname.slice(0, pathname.length - call.path.length); // of a reverse proxy
  const address = protocol === "http" ? host + prefix : `${hostname}:${call.grpcPort ?? 8081}`;
  const options = [JSON.stringify(address), ...(scheme === "https:" ? ["ssl=True"] : [])];
  const lines = [...(call.hasKey ? ["import os", ""] : []), "import numpy as np", `import tritonclient.${protocol} as client`, ""];
  lines.push(`server = client.InferenceServerClient(${options.join(", ")})`, "inputs = []");
  for (const input of call.body.inputs) {
    const type = NUMPY[input.datatype] || input.datatype.toLowerCase();
    const shape = `[${input.shape.join(", ")}]`;
    lines.push(`tensor = client.InferInput(${JSON.stringify(input.name)}, ${shape}, ${JSON.stringify(input.datatype)})`);
    lines.push(`tensor.set_data_from_numpy(np.array(${python(input.data)}, dtype=np.${type}).reshape(${shape}))`, "inputs.append(tensor)");
  }
  const values = [JSON.stringify(call.model), "inputs"];
  if (call.version) values.push(`model_version=${JSON.stringify(call.version)}`);
  if (call.hasKey) values.push('headers={"authorization": f"Bearer {os.environ[\'KEY\']}"}');
  lines.push(`result = server.infer(${values.join(", ")})`, "for output in result.get_response()[\"outputs\"]:", '    print(output["name"], result.as_numpy(output["name"]))');
  if (protocol === "grpc") lines.splice(-2, 2, "for output in result.get_response().outputs:", "    print(output.name, result.as_numpy(output.name))");
  return lines.join("\n");
}

/** @param {Call} call */
function javascript(call) {
  const key = call.hasKey ? ", authorization: `Bearer ${key}`" : "";
  const body = call.contentType === "application/json" && call.body ? `JSON.stringify(${toJSON(call.body, "  ")})` : JSON.stringify(call.text);
  return `const response = await fetch(${JSON.stringify(call.url)}, {\n  method: "POST",\n  headers: { "content-type": ${JSON.stringify(call.contentType)}${key} },\n  body: ${body},\n});\nconsole.log(await response.json());`;
}

/** Pairs of language and source. @param {Call} call @returns {[string, string][]} */
export function listSnippets(call) {
  /** @type {[string, string][]} */
  const snippets = [["curl", curl(call)], ["Python", requests(call)]];
  if (call.isV2 && call.body?.inputs) snippets.push(["tritonclient", triton(call, "http")], ["gRPC", triton(call, "grpc")]);
  snippets.push(["JavaScript", javascript(call)]);
  return snippets;
}
