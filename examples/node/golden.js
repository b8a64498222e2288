/** The golden check: does this device give what the network gave where it was trained? */

import { UserError } from './errors.js';
import { readBytes, readImage, readMapPng } from './images.js';

// What the project promises; a bundle may ask for more, not for less.
const PROMISED_DISAGREEMENT = 0.005;
// The two channels are probabilities, so that they add up to 1 but for rounding.
const SUM_TOLERANCE = 1e-3;

/**
 * Segment every golden frame and compare with the stored probabilities at the network's size, by
 * the rule of `kdas-edge verify` for camera models.
 *
 * @param {Segmenter} segmenter
 * @returns {Promise<{frames: number, disagreement: number, allowed: number, largest: number,
 *   passed: boolean}>} disagreement: share of mask pixels that differ, mean over the frames;
 *   largest: difference of a probability, with that of the camera's resize in it
 * @throws {UserError} the bundle has no golden vector of this precision, or the model's output is
 *   no probabilities
 */
export async function checkGolden(segmenter) {
  const { bundle, precision } = segmenter;
  const { golden, tolerances, size, threshold, name } = bundle.manifest;
  const vectors = golden.filter((vector) => Object.hasOwn(vector.expected, precision));
  if (vectors.length === 0) {
    throw new UserError(
      `bundle ${name} has no golden vectors of precision ${precision}; export it again`,
    );
  }
  const own = tolerances[precision]?.disagreement ?? PROMISED_DISAGREEMENT;
  const allowed = Math.min(own, PROMISED_DISAGREEMENT);
  const limit = Math.fround(threshold);
  let disagreement = 0;
  let largest = 0;
  for (const vector of vectors) {
    const expected = readMap(bundle.file(vector.expected[precision]), size);
    const found = await segmenter.segment(readImage(bundle.file(vector.frame)));
    let differing = 0;
    for (let i = 0; i < expected.length; i++) {
      // written so that a NaN fails as well
      if (!(Math.abs(found.background[i] + found.polyp[i] - 1) <= SUM_TOLERANCE)) {
        throw new UserError(
          `the model's two channels do not add up to 1 on ${vector.frame}; export the bundle again`,
        );
      }
      if (found.polyp[i] > limit !== expected[i] > limit) differing++;
      largest = Math.max(largest, Math.abs(found.polyp[i] - expected[i]));
    }
    disagreement += differing / expected.length / vectors.length;
  }
  const passed = disagreement <= allowed;
  return { frames: vectors.length, disagreement, allowed, largest, passed };
}

/** The expected probabilities of a frame, size × size. */
function readMap(file, size) {
  return file.endsWith('.npy') ? readNpy(file, size) : readMapPng(file, size);
}

/**
 * The golden maps before schema 1.3: an array as `numpy.save` writes it, format 1.0, little-endian
 * float32, C order, (size, size).
 */
function readNpy(file, size) {
  const bytes = readBytes(file);
  const known = bytes.length > 10 && bytes.toString('latin1', 0, 8) === '\x93NUMPY\x01\x00';
  const start = known ? 10 + bytes.readUInt16LE(8) : 0;
  const header = bytes.toString('latin1', 10, start);
  if (
    !header.includes("'descr': '<f4'") ||
    !header.includes("'fortran_order': False") ||
    !header.includes(`'shape': (${size}, ${size})`) ||
    bytes.length !== start + 4 * size * size
  ) {
    throw new UserError(`${file} is not a ${size}×${size} float32 array; export the bundle again`);
  }
  const values = new Float32Array(size * size);
  for (let i = 0; i < values.length; i++) values[i] = bytes.readFloatLE(start + 4 * i);
  return values;
}
