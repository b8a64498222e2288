/**
 * One frame in, one mask out.
 *
 *     const segmenter = await Segmenter.load('mybundle', { threads: 1 });
 *     const { mask } = await segmenter.segment({ height, width, bgr });
 *     await segmenter.close();
 */

import { performance } from 'node:perf_hooks';

import ort from 'onnxruntime-node';

import { openBundle } from './bundle.js';
import { UserError, firstLine } from './errors.js';

const OUTPUT = 'probabilities';

/** A bundle's camera model in ONNX Runtime, on the CPU: frames are segmented one after the other. */
export class Segmenter {
  #session;
  #input;
  #last = Promise.resolve();

  /** Use `Segmenter.load`. */
  constructor(bundle, model, session, threads) {
    this.bundle = bundle;
    this.precision = model.precision;
    this.threads = threads;
    this.#session = session;
    this.#input = session.inputNames[0];
  }

  /**
   * Open a bundle, check its hashes and load its camera model.
   *
   * @param {string} directory the bundle
   * @param {{precision?: string, threads?: number}} [options] precision: by default int8 where the
   *   bundle has it, otherwise fp32; threads of one inference: by default one per physical core
   * @throws {UserError} the bundle is damaged, has no such model, or the model does not load
   */
  static async load(directory, { precision, threads = 0 } = {}) {
    const bundle = openBundle(directory);
    const model = bundle.cameraModel(precision);
    let session;
    try {
      session = await ort.InferenceSession.create(bundle.file(model.path), {
        executionProviders: ['cpu'],
        executionMode: 'sequential',
        graphOptimizationLevel: 'all',
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
      });
    } catch (error) {
      throw new UserError(
        `ONNX Runtime cannot load ${bundle.file(model.path)} (${firstLine(error)}); ` +
          'try another precision',
      );
    }
    return new Segmenter(bundle, model, session, threads);
  }

  /**
   * Segment one frame of any size. Calls may overlap: they run in the order of the calls.
   *
   * @param {{height: number, width: number, bgr: Uint8Array}} frame blue, green, red of each
   *   pixel, rows without gaps; do not change it before the promise is settled
   * @returns {Promise<Result>} `mask` (height × width, 255 where polyp), `background` and `polyp`
   *   (S × S probabilities), `size` (S), `inferenceMs` and `maskMs`; all of it is yours
   * @throws {UserError} the frame has no pixel or another number of bytes
   */
  segment(frame) {
    // a session runs overlapping calls in parallel, each then slower, in no certain order
    const result = this.#last.then(() => this.#segment(frame));
    this.#last = result.catch(() => {});
    return result;
  }

  /** Free the model, after the frames that are under way. */
  async close() {
    await this.#last;
    await this.#session.release();
  }

  async #segment(frame) {
    checkFrame(frame);
    const { size, threshold } = this.bundle.manifest;
    const { height, width, bgr } = frame;
    const started = performance.now();
    const tensor = new ort.Tensor('uint8', bgr, [1, height, width, 3]);
    const outputs = await this.#session.run({ [this.#input]: tensor });
    const output = outputs[OUTPUT];
    if (output?.data.length !== 2 * size * size) {
      throw new UserError(
        `the model does not give (1, 2, ${size}, ${size}) probabilities; export the bundle again`,
      );
    }
    const background = output.data.subarray(0, size * size);
    const polyp = output.data.subarray(size * size);
    const inferred = performance.now();
    const mask = maskAtSize(polyp, size, threshold, height, width);
    const finished = performance.now();
    const times = { inferenceMs: inferred - started, maskMs: finished - inferred };
    return { height, width, mask, size, background, polyp, ...times };
  }
}

/** Refuse what is no frame; see `Segmenter.segment`. */
function checkFrame({ height, width, bgr }) {
  if (!(Number.isInteger(height) && Number.isInteger(width) && height > 0 && width > 0)) {
    throw new UserError(`the frame of ${width}×${height} has no pixel; check the source`);
  }
  // a clamped array holds bytes too, but ONNX Runtime refuses it
  if (!(bgr instanceof Uint8Array) || bgr.length !== 3 * height * width) {
    throw new UserError(
      `a frame of ${width}×${height} is a Uint8Array of ${3 * height * width} bytes ` +
        `(blue, green, red), not ${bgr?.constructor?.name} of ${bgr?.length}; convert it`,
    );
  }
}

/**
 * Resize S × S probabilities bilinearly to height × width and compare with the threshold.
 *
 * The values are those of cv2.resize(…, INTER_LINEAR) to the last bit where OpenCV runs on Intel's
 * IPP with FMA, as its packages for x86-64 do since AVX2.
 *
 * @param {Float32Array} probability (S × S)
 * @returns {Uint8Array} height × width, 255 where the probability is above the threshold
 */
export function maskAtSize(probability, size, threshold, height, width) {
  const limit = Math.fround(threshold);
  const columns = taps(size, width);
  const rows = taps(size, height);
  const mask = new Uint8Array(height * width);
  // the two rows of the network's map around the current one, already at the frame's width
  let upper = new Float32Array(width);
  let lower = new Float32Array(width);
  let upperRow = -1;
  let lowerRow = -1;
  const widen = (row, out) => {
    const start = row * size;
    for (let x = 0; x < width; x++) {
      const a = probability[start + columns.first[x]];
      const b = probability[start + columns.second[x]];
      // rounded once after the product, as a fused multiply-add does: the product of two floats
      // is exact in double, and storing into a Float32Array rounds
      out[x] = a + Math.fround(b - a) * columns.weight[x];
    }
  };
  for (let y = 0; y < height; y++) {
    if (rows.first[y] !== upperRow) {
      if (rows.first[y] === lowerRow) {
        [upper, lower] = [lower, upper];
        lowerRow = -1;
      } else {
        widen(rows.first[y], upper);
      }
      upperRow = rows.first[y];
    }
    if (rows.second[y] !== lowerRow) {
      widen(rows.second[y], lower);
      lowerRow = rows.second[y];
    }
    const weight = rows.weight[y];
    const start = y * width;
    for (let x = 0; x < width; x++) {
      const value = Math.fround(upper[x] + Math.fround(lower[x] - upper[x]) * weight);
      mask[start + x] = value > limit ? 255 : 0;
    }
  }
  return mask;
}

/** Where the centres of `to` output pixels lie between `from` input pixels. */
function taps(from, to) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const weight = new Float32Array(to); // of the second
  const scale = from / to;
  for (let i = 0; i < to; i++) {
    const position = (i + 0.5) * scale - 0.5;
    const below = Math.floor(position);
    if (below >= 0 && below < from - 1) {
      first[i] = below;
      second[i] = below + 1;
      weight[i] = position - below;
    } else {
      first[i] = second[i] = below < 0 ? 0 : from - 1;
    }
  }
  return { first, second, weight };
}
