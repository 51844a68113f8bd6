// Data: the kind of one example, its display scale, and the conversion of files to examples.

/** What the examples of a model are: kind, sizes, range and whether they are whole numbers. */
export function describe({ data, observations }, { whole, parts }) {
  if (parts) return describeParts(parts);
  const { preparation, one_hot: oneHot } = data;
  const vocabulary = observations?.x?.vocabulary ?? null;
  return {
    ...kindOf(data.shape, oneHot),
    ...(vocabulary ? { kind: "text" } : {}),
    low: data.range[0],
    high: data.range[1],
    names: data.feature_names?.length === product(data.shape) ? data.feature_names : null,
    categories: preparation.categories || 0,
    vocabulary,
    isWhole: whole || preparation.step === "dequantize",
    mayBeAbsent: data.missing ?? false,
    center: preparation.center ?? [],
    spread: preparation.spread ?? [],
  };
}

/**
 * Named parts side by side in one row of numbers: those of each part, or of categories the share of
 * each, which is 0 or 1 in data and in draws.
 */
function describeParts(parts) {
  let start = 0;
  const entries = parts.map((part) => {
    const variables = part.oneHot ? 1 : product(part.shape);
    const shares = part.labels.length;
    const entry = {
      ...part,
      start,
      variables,
      shares,
      size: variables * Math.max(1, shares),
      about: { ...kindOf(part.shape, false), low: part.low, high: part.high },
    };
    start += entry.size;
    return entry;
  });
  return { kind: "row", size: start, low: null, high: null, center: [], spread: [], entries, shape: [parts.length] };
}

function kindOf(shape, oneHot) {
  const size = product(shape);
  if (shape.length === 3) {
    const [height, width, channels] = shape;
    return { shape, size, kind: "image", height, width, channels };
  }
  if (shape.length === 2 && oneHot) {
    return { shape, size, kind: "image", height: shape[1], width: shape[0], channels: 1, tokens: shape[1] };
  }
  if (shape.length === 2) return { shape, size, kind: "series", steps: shape[0], channels: shape[1] };
  return { shape, size, kind: "table" };
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);

const ABSENT = /^(nan|na|null|none)?$/i;

/** Returns the name of an entry of an example. */
export function label(about, i) {
  return about.names?.[i] ?? `x[${i}]`;
}

/**
 * The mean in the units of the data: of categories, whose mean is their probabilities, the expected
 * one, and of texts the number of the most probable token.
 */
export function inUnits(about, mean) {
  if (!about.categories) return mean;
  const values = new Float32Array(about.size);
  for (let i = 0; i < about.size; i++) {
    if (about.vocabulary) {
      const own = mean.subarray(i * about.categories, (i + 1) * about.categories);
      values[i] = own.indexOf(Math.max(...own));
      continue;
    }
    for (let k = 0; k < about.categories; k++) values[i] += k * mean[i * about.categories + k];
  }
  return values;
}

/**
 * Lowest and highest value that are shown: the data's range, else that of some examples; of tables
 * for each variable, with the share at which its bar starts.
 */
export function scaleOf(about, examples) {
  const { kind, size, center, spread } = about;
  if (kind === "row") return scaleOfParts(about, examples);
  if (kind === "text") return { low: about.low, high: about.high };
  if (kind === "table") {
    const low = new Float64Array(size);
    const high = new Float64Array(size);
    for (let i = 0; i < size; i++) {
      const [least, most] = reach(examples, i, i + 1);
      low[i] = about.low ?? (center.length ? center[i] - 3 * spread[i] : least);
      high[i] = about.high ?? (center.length ? center[i] + 3 * spread[i] : most);
    }
    return { low, high, zero: center.length ? 0.5 : 0 };
  }
  const [low, high] = reach(examples, 0, size);
  return { low: about.low ?? low, high: about.high ?? high };
}

/** The scale of named parts: that of each part, for all numbers of it. */
function scaleOfParts({ size, entries }, examples) {
  const [low, high] = [new Float64Array(size), new Float64Array(size)];
  for (const part of entries) {
    const end = part.start + part.size;
    const [least, most] = part.shares ? [0, 1] : reach(examples, part.start, end);
    low.fill(part.shares ? 0 : part.low !== null && part.high !== null ? part.low : least, part.start, end);
    high.fill(part.shares ? 1 : part.low !== null && part.high !== null ? part.high : most, part.start, end);
  }
  return { low, high, zero: 0 };
}

/** Lowest and highest number of the entries from start to end, absent ones left out. */
function reach(examples, start, end) {
  let [low, high] = [Infinity, -Infinity];
  for (const x of examples) {
    for (let i = start; i < end; i++) {
      if (Number.isNaN(x[i])) continue;
      low = Math.min(low, x[i]);
      high = Math.max(high, x[i]);
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/** The text of numbers of tokens, up to its first end. */
export function textOf({ vocabulary: { unit, tokens } }, x) {
  const end = x.findIndex((number) => !(number > 0));
  const words = Array.from(end < 0 ? x : x.subarray(0, end), (number) => tokens[number]);
  return words.join(unit === "words" ? " " : "");
}

/** Numbers of tokens with nothing after their first end, as a model takes a text. */
export function ended(x) {
  const end = x.indexOf(0);
  return end < 0 ? x : x.map((number, step) => (step > end ? NaN : number));
}

/** The numbers of the tokens of a text, NaN after its end; throws if the model cannot take it. */
function tokensOfText({ vocabulary: { unit, tokens, unknown }, size }, text, name) {
  const words = unit === "words" ? text.split(/\s+/).filter(Boolean) : Array.from(text);
  if (!words.length) throw new Error(`${name} is empty.`);
  if (words.length >= size) throw new Error(`${name}: expected at most ${size - 1} ${unit}; got ${words.length}.`);
  const numbers = new Float32Array(size).fill(NaN);
  for (const [step, word] of words.entries()) {
    const number = tokens.indexOf(word);
    if (number < 2 && !unknown) {
      throw new Error(`${name}: ${JSON.stringify(word.slice(0, 40))} is not in the vocabulary of the model.`);
    }
    numbers[step] = number < 2 ? 1 : number;
  }
  numbers[words.length] = 0;
  return numbers;
}

/** The texts of a file with one in each line; of .jsonl a string, or an object with the key "text". */
function parseTexts(about, words, name, isJson) {
  const lines = words.replace(/\r?\n$/, "").split(/\r?\n/);
  return lines.map((line, i) => {
    const place = lines.length > 1 ? `${name}, line ${i + 1}` : name;
    let text = line;
    if (isJson) {
      try {
        const value = JSON.parse(line);
        text = value?.text ?? value;
      } catch (error) {
        throw new Error(`${place} is no JSON: ${error.message}.`);
      }
      if (typeof text !== "string") throw new Error(`${place}: expected a text, or an object with the key "text".`);
    }
    return tokensOfText(about, text, place);
  });
}

/** The most probable token of each step of a sequence of one-hot vectors; empty where it is absent. */
export function tokensOf({ shape: [steps], tokens }, x) {
  return Array.from({ length: steps }, (_, step) => {
    const own = x.subarray(step * tokens, (step + 1) * tokens);
    return Number.isNaN(own[0]) ? "" : String(own.indexOf(Math.max(...own)));
  });
}

/** Position of a value between low and high, from 0 to 1. */
export function position(value, low, high) {
  return high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0;
}

/** The value in 8 bits: low is 0, high is 255, halves are rounded up. */
export function byte(value, { low, high }) {
  return Math.floor(255 * position(value, low, high) + 0.5);
}

/** Formats a number with four digits. */
export function text(value) {
  if (Number.isNaN(value)) return "absent";
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Reads the examples of a file, as {name, x}; throws an error if there are none. */
export async function readFile(about, file, isInverted) {
  if (about.vocabulary && !/\.(txt|jsonl)$/i.test(file.name)) {
    throw new Error(`${file.name}: expected a .txt file with one text a line, or a .jsonl file.`);
  }
  const isNumbers = about.vocabulary || /\.(csv|tsv|txt|json)$/i.test(file.name);
  if (!isNumbers && about.kind !== "image") {
    throw new Error(`${file.name}: expected a .csv or .json file of numbers.`);
  }
  if (!isNumbers) return [{ name: file.name, x: await readImage(about, file, isInverted) }];
  const rows = parseRows(about, await file.text(), file.name);
  return rows.map((x, i) => ({ name: rows.length > 1 ? `${file.name}, row ${i}` : file.name, x }));
}

/** Rows of numbers out of JSON, or out of lines with commas, semicolons, tabs or spaces; or texts. */
export function parseRows(about, words, name) {
  if (about.vocabulary) return parseTexts(about, words, name, /\.jsonl$/i.test(name));
  let rows;
  if (/^\s*\[/.test(words)) {
    let value;
    try {
      value = JSON.parse(words);
    } catch (error) {
      throw new Error(`${name} is no JSON: ${error.message}.`);
    }
    const isOne = value.flat(Infinity).length === about.size;
    rows = (isOne ? [value] : value).map((row) => (Array.isArray(row) ? row.flat(Infinity) : [row]));
  } else {
    const lines = words.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
    const header = lines.length > 1 ? cells(lines[0]) : [];
    const isHeader = header.length > 0 && header.every((cell) => !Number.isFinite(Number(cell)));
    if (isHeader) lines.shift();
    const places = isHeader ? columns(about, header, name) : null;
    rows = lines.map((line) => line.split(/\s*[,;\t]\s*|\s+/));
    if (places) rows = rows.map((row) => places.map((place) => row[place] ?? ""));
    rows = rows.map((row) => row.map((word) => (ABSENT.test(word) ? null : Number(word))));
  }
  if (!rows.length) throw new Error(`${name} holds no numbers.`);
  return rows.map((row, i) => check(about, row, rows.length > 1 ? `${name}, row ${i}` : name));
}

/** Returns the cells of the first line of a table; names may contain spaces. */
function cells(line) {
  const parts = line.split(/[,;\t]/.test(line) ? /[,;\t]/ : /\s+/);
  return parts.map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
}

/** Returns the indices of the model's columns in a header of any order; null without names. */
function columns(about, header, name) {
  if (!about.names) return null;
  const missing = about.names.filter((column) => !header.includes(column));
  if (missing.length) throw new Error(`${name} has no column ${missing.join(", ")}.`);
  return about.names.map((column) => header.indexOf(column));
}

function check(about, row, name) {
  if (row.length !== about.size) {
    const shape = about.shape.join(" × ");
    throw new Error(`${name}: expected ${about.size} numbers (${shape}); got ${row.length}.`);
  }
  const { low, high } = about;
  for (const [i, value] of row.entries()) {
    if (value === null && about.mayBeAbsent) continue;
    if (typeof value !== "number" || !Number.isFinite(value)) {
      throw new Error(`${name}: expected finite numbers; ${label(about, i)} is none.`);
    }
    if ((low !== null && value < low) || (high !== null && value > high)) {
      const bounds = `${low === null ? "" : `at least ${low}`}${low === null || high === null ? "" : " and "}${high === null ? "" : `at most ${high}`}`;
      throw new Error(`${name}: expected numbers of ${bounds}; ${label(about, i)} is ${value}.`);
    }
    if (about.isWhole && !Number.isInteger(value)) {
      throw new Error(`${name}: expected whole numbers; ${label(about, i)} is ${value}.`);
    }
  }
  return Float32Array.from(row, (value) => value ?? NaN);
}

async function readImage(about, file, isInverted) {
  const { width, height, channels } = about;
  if (about.tokens) throw new Error("The model's data is a sequence of tokens, which is no image; give numbers.");
  if (channels !== 1 && channels !== 3) {
    throw new Error(`Images have 1 or 3 channels and the model's have ${channels}; give numbers.`);
  }
  if (about.low === null || about.high === null) {
    throw new Error("The model's data has no lowest and highest value to put an image between.");
  }
  let bitmap;
  try {
    const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error(`${file.name} is no image that this browser can read.`);
  }
  // Crops the largest centred rectangle of the model's aspect ratio and scales it to the model's size.
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [cropWidth, cropHeight] = [scale * width, scale * height];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = scale !== 1;
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, width, height); // what is transparent is black
  const [left, top] = [(bitmap.width - cropWidth) / 2, (bitmap.height - cropHeight) / 2];
  context.drawImage(bitmap, left, top, cropWidth, cropHeight, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  const x = new Float32Array(about.size);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = pixels.subarray(4 * i, 4 * i + 3);
    const levels = channels === 3 ? [r, g, b] : [(19595 * r + 38470 * g + 7471 * b + 32768) >> 16];
    for (const [channel, level] of levels.entries()) {
      const share = (isInverted ? 255 - level : level) / 255;
      const value = about.low + share * (about.high - about.low);
      x[i * channels + channel] = about.isWhole ? Math.round(value) : value;
    }
  }
  return x;
}
