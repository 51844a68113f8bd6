// ONNX Runtime in Node.js: node node.mjs ARTIFACT_DIR CASES_DIR ANSWERS_DIR. NODE_PATH says where
// onnxruntime-node is installed.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { answerAll, oneLine } from "./cases.mjs";

try {
  const [artifact, cases, answers, ...rest] = process.argv.slice(2);
  if (!answers || rest.length) {
    throw new Error("expected ARTIFACT_DIR CASES_DIR ANSWERS_DIR");
  }
  const ort = createRequire(import.meta.url)("onnxruntime-node");
  const threads = Number(process.env.OMP_NUM_THREADS ?? 1);
  const options = {
    graphOptimizationLevel: "all",
    interOpNumThreads: threads,
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  };
  await mkdir(answers, { recursive: true });
  await answerAll(ort, {
    read: async (name) => new Uint8Array(await readFile(join(cases, name))).buffer,
    load: (name) => ort.InferenceSession.create(join(artifact, "onnx", `${name}.onnx`), options),
    write: (name, bytes) => writeFile(join(answers, name), bytes),
  });
} catch (error) {
  console.error(oneLine(error));
  process.exitCode = 1;
}
