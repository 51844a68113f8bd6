// Cases in, answers out, for ONNX Runtime in Node.js and in a browser. export/cases.py describes
// the form of both.

const ARRAYS = { float32: Float32Array, int32: Int32Array };

/**
 * Answers every case: loads the model of each signature once and writes tensors and answers.txt.
 *
 * @param ort the module onnxruntime-node or onnxruntime-web
 * @param host read(name): ArrayBuffer of a file of the cases; load(signature): a session;
 *     write(name, bytes): a file of the answers. All may be asynchronous.
 */
export async function answerAll(ort, { read, load, write }) {
  const sessions = new Map();
  const lines = [];
  for (const [number, question] of parse(new TextDecoder().decode(await read("cases.txt"))).entries()) {
    const { signature, inputs, outputs } = question;
    if (!sessions.has(signature)) {
      try {
        sessions.set(signature, await load(signature));
      } catch (error) {
        throw new Error(`the signature ${signature} cannot be loaded: ${oneLine(error)}`);
      }
    }
    lines.push(`case ${number} ${signature}`);
    try {
      const feeds = {};
      for (const { name, type, sizes, file } of inputs) {
        feeds[name] = new ort.Tensor(type, new (arrayOf(type))(await read(file)), sizes);
      }
      const results = await sessions.get(signature).run(feeds, outputs);
      const answer = [];
      for (const name of outputs) {
        const { type, dims, data } = results[name];
        arrayOf(type);
        const file = `${number}-${name}.bin`;
        await write(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
        answer.push(["out", name, type, dims.length, ...dims, file].join(" "));
      }
      lines.push(...answer);
    } catch (error) {
      lines.push(`error ${number} ${oneLine(error)}`);
    }
  }
  await write("answers.txt", new TextEncoder().encode(lines.join("\n") + "\n"));
}

/** The message of an error in one line of at most 500 characters. */
export function oneLine(error) {
  const line = String(error?.message ?? error).split(/\s+/).join(" ").trim() || "no message";
  return line.length <= 500 ? line : `${line.slice(0, 497)}...`;
}

function parse(text) {
  const cases = [];
  for (const words of text.split("\n").map((line) => line.split(" "))) {
    if (words[0] === "case") {
      cases.push({ signature: words[2], inputs: [], outputs: [] });
    } else if (words[0] === "in") {
      const [, name, type, rank] = words;
      const sizes = words.slice(4, 4 + Number(rank)).map(Number);
      cases.at(-1).inputs.push({ name, type, sizes, file: words[4 + Number(rank)] });
    } else if (words[0] === "out") {
      cases.at(-1).outputs.push(words[1]);
    }
  }
  return cases;
}

function arrayOf(type) {
  if (!(type in ARRAYS)) {
    throw new Error(`expected tensors of ${Object.keys(ARRAYS).join(" or ")}; got ${type}`);
  }
  return ARRAYS[type];
}
