// ONNX Runtime in a thread of its own, so that the page stays responsive. Messages are
// {id, file, sha256, feeds, outputs}; answers are {id, results} or {id, problem}.

import * as ort from "./ort/ort.js";

ort.env.wasm.numThreads = 1;
const sessions = new Map();
let runtime = null;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  queue = queue.then(() => answer(data));
};

async function answer({ id, file, sha256, feeds, outputs }) {
  try {
    if (!sessions.has(file)) sessions.set(file, await open(file, sha256));
    const tensors = {};
    for (const [name, { type, data, dims }] of Object.entries(feeds)) {
      tensors[name] = new ort.Tensor(type, data, dims);
    }
    const found = await sessions.get(file).run(tensors, outputs);
    const results = {};
    for (const name of outputs) results[name] = Float32Array.from(found[name].data);
    self.postMessage({ id, results });
  } catch (error) {
    self.postMessage({ id, problem: String(error?.message ?? error) });
  }
}

async function open(file, sha256) {
  runtime ??= read("ort/ort.wasm").then((bytes) => {
    ort.env.wasm.wasmBinary = bytes;
  });
  const [bytes] = await Promise.all([read(`artifact/${file}`), runtime]);
  // Browsers give crypto.subtle to https and to this machine only.
  if (sha256 && crypto.subtle && (await digest(bytes)) !== sha256) {
    throw new Error(
      `${file} is not the file that was published (its SHA-256 is another): it is damaged, or ` +
        "was changed. Export the model again.",
    );
  }
  try {
    return await ort.InferenceSession.create(bytes, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
    });
  } catch (error) {
    throw new Error(`${file} cannot be loaded by ONNX Runtime: ${error?.message ?? error}`);
  }
}

async function read(path) {
  const reply = await fetch(new URL(path, import.meta.url));
  if (!reply.ok) throw new Error(`${path} is missing on this server (status ${reply.status}).`);
  return reply.arrayBuffer();
}

async function digest(bytes) {
  const words = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(words, (word) => word.toString(16).padStart(2, "0")).join("");
}
