// The network, away from the page: whatever it does, buttons and sliders answer.
//
// In:  {load: {model, manifest, backend}}, {frame: VideoFrame or ImageBitmap, id, threshold, fill},
//      {redraw: {threshold, fill}}
// Out: {loaded}, {result}, {failed: "one line"}

import { drawOverlay, maskAtSize } from "./mask.js";
import { normalise, resizeImage } from "./preprocess.js";

const MODULES = { wasm: "ort.wasm.min.mjs", webgpu: "ort.webgpu.min.mjs" };

let ort = null;
let session = null;
let manifest = null;
// the last frame's probabilities: another threshold needs no inference
let last = null;
let canvas = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load);
    else if (data.frame) await segment(data);
    else if (data.redraw && last) send({ redrawn: true, ...draw(data.redraw) });
  } catch (error) {
    self.postMessage({ failed: firstLine(error), id: data.id ?? null });
  }
};

async function load({ model, manifest: contract, backend }) {
  const started = performance.now();
  manifest = contract;
  ort = await import(`/runtime/${MODULES[backend]}`);
  ort.env.wasm.wasmPaths = "/runtime/";
  ort.env.wasm.numThreads = threads();
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: [backend],
    graphOptimizationLevel: "all",
    // WebGPU reports at the level of warnings that it leaves shape arithmetic to the CPU
    logSeverityLevel: 3,
  });
  // the first inference allocates and, on a GPU, compiles: it is no frame's latency
  await infer(new Float32Array(3 * manifest.size ** 2));
  self.postMessage({
    loaded: {
      threads: backend === "wasm" ? threads() : null,
      milliseconds: performance.now() - started,
    },
  });
}

/** Half of the logical processors: hyper-threads do not help, and the page needs one as well. */
function threads() {
  if (!self.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(8, Math.floor(navigator.hardwareConcurrency / 2)));
}

async function infer(values) {
  const { size } = manifest;
  const tensor = new ort.Tensor("float32", values, [1, 3, size, size]);
  const outputs = await session.run({ [session.inputNames[0]]: tensor });
  const output = outputs[session.outputNames[0]];
  if (output.dims.join() !== `1,2,${size},${size}`) {
    throw new Error(`the model gives ${output.dims.join("×")} instead of 1×2×${size}×${size}`);
  }
  // channel 1 of background, polyp
  return output.data.slice(size * size);
}

async function segment({ frame, id, threshold, fill }) {
  const times = { received: performance.now() };
  let image;
  try {
    image = await read(frame);
  } finally {
    frame.close();
  }
  times.read = performance.now();
  const { data, width, height } = image;
  const input = normalise(resizeImage(data, width, height, manifest.size), manifest.normalisation);
  times.prepared = performance.now();
  const probability = await infer(input);
  times.inferred = performance.now();
  last = { id, width, height, probability };
  const drawing = draw({ threshold, fill });
  times.drawn = performance.now();
  send({
    image,
    ...drawing,
    milliseconds: {
      read: times.read - times.received,
      resize: times.prepared - times.read,
      network: times.inferred - times.prepared,
      mask: times.drawn - times.inferred,
    },
  });
}

/** The pixels of a frame at its own size: nothing is scaled. */
async function read(frame) {
  // straight from the decoder, ten times faster than by a canvas where that is in software
  if (frame.copyTo && !frame.rotation) {
    const { width, height } = frame.visibleRect;
    const pixels = new Uint8ClampedArray(width * height * 4);
    try {
      await frame.copyTo(pixels, { format: "RGBA" });
      return new ImageData(pixels, width, height);
    } catch (error) {
      // a browser that does not convert this format of the decoder's
      if (error.name !== "NotSupportedError") throw error;
    }
  }
  const width = frame.displayWidth ?? frame.width;
  const height = frame.displayHeight ?? frame.height;
  if (canvas?.width !== width || canvas?.height !== height) {
    canvas = new OffscreenCanvas(width, height);
  }
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.drawImage(frame, 0, 0);
  return context.getImageData(0, 0, width, height);
}

function draw({ threshold, fill }) {
  const { id, width, height, probability } = last;
  const { mask, box } = maskAtSize(probability, manifest.size, width, height, threshold);
  const overlay = drawOverlay(mask, width, height, box, fill);
  return { id, width, height, threshold, fill, mask, marked: count(mask, width, box), overlay };
}

function count(mask, width, box) {
  let marked = 0;
  for (let y = box.top; y < box.bottom; y++) {
    for (let x = box.left; x < box.right; x++) marked += mask[y * width + x];
  }
  return marked;
}

/** Hand a result over without copying its pixels. */
function send(result) {
  const owned = [result.mask.buffer];
  if (result.overlay) owned.push(result.overlay.image.data.buffer);
  if (result.image) owned.push(result.image.data.buffer);
  self.postMessage({ result }, owned);
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}
