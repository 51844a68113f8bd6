// Three draws from an exported model: node sample.mjs artifacts/quickstart/1 7
//
// Needs onnxruntime-node only (npm install onnxruntime-node). The same seed gives the same
// draws in every runtime.

import { InferenceSession, Tensor } from "onnxruntime-node";

const [artifact, seed] = [process.argv[2], Number(process.argv[3])];
const session = await InferenceSession.create(`${artifact}/onnx/sample.onnx`);

// Row i of the batch has the seed pair (seed, i).
const seeds = Int32Array.of(seed, 0, seed, 1, seed, 2);
const { sample } = await session.run({ seed: new Tensor("int32", seeds, [3, 2]) }, ["sample"]);

const size = sample.data.length / 3;
for (let row = 0; row < 3; row++) {
  const draw = sample.data.slice(row * size, (row + 1) * size);
  console.log(Array.from(draw, (number) => number.toFixed(4)).join(" "));
}
