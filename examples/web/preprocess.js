// The resize that trains, byte for byte: Pillow's antialiased bilinear filter on 8 bits.
//
// A canvas scales with a filter of the browser's choice, and the network notices: a resize that is
// not the training's costs more accuracy than quantisation does. So no canvas scales here.

// Pillow keeps filter weights as integers, scaled by 2^22.
const BITS = 22;
const HALF = 1 << (BITS - 1);

/** Weights of Pillow's triangle filter for one axis: output i is a sum over inputs first[i] … . */
function filterWeights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const width = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weights = new Int32Array(to * width);
  for (let i = 0; i < to; i++) {
    const center = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(from, Math.trunc(center + support + 0.5));
    const triangle = [];
    let sum = 0;
    for (let x = low; x < high; x++) {
      const weight = Math.max(0, 1 - Math.abs((x - center + 0.5) * (1 / support)));
      triangle.push(weight);
      sum += weight;
    }
    first[i] = low;
    count[i] = triangle.length;
    triangle.forEach((weight, k) => {
      weights[i * width + k] = Math.trunc(0.5 + (weight / sum) * (1 << BITS));
    });
  }
  return { first, count, weights, width };
}

/** Remembers the last result of a function of few numbers: the frames of a video are alike. */
function remember(make) {
  let key = null;
  let value = null;
  return (...numbers) => {
    const wanted = numbers.join();
    if (wanted !== key) {
      value = make(...numbers);
      key = wanted;
    }
    return value;
  };
}

const columnWeights = remember(filterWeights);
const rowWeights = remember(filterWeights);
const rowBuffer = remember((length) => new Uint8Array(length));

/**
 * Resize an image as Pillow's `Image.resize(…, BILINEAR)` does.
 *
 * @param {Uint8ClampedArray} rgba height × width × 4, as a canvas gives it; alpha is ignored
 * @param {number} width of the image in pixels
 * @param {number} height of the image in pixels
 * @param {number} size side S of the result in pixels
 * @returns {Uint8ClampedArray} S × S × 3, red, green, blue
 */
export function resizeImage(rgba, width, height, size) {
  const pixels = new Uint32Array(rgba.buffer, rgba.byteOffset, width * height);
  const rows = rowBuffer(height * size * 3);
  alongRows(pixels, width, height, size, columnWeights(width, size), rows);
  return downColumns(rows, size, rowWeights(height, size));
}

/** height × width pixels to height × S × 3, rounded to 8 bits as Pillow does between its passes. */
function alongRows(pixels, width, height, size, { first, count, weights, width: stride }, rows) {
  for (let y = 0, to = 0; y < height; y++) {
    const row = y * width;
    for (let x = 0; x < size; x++, to += 3) {
      let from = row + first[x];
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (let k = x * stride, end = k + count[x]; k < end; k++, from++) {
        const weight = weights[k];
        // one load for three channels: every machine with a browser is little-endian
        const pixel = pixels[from];
        // sums stay below 2^31: the weights of one output add up to about 2^22
        red = (red + Math.imul(pixel & 255, weight)) | 0;
        green = (green + Math.imul((pixel >>> 8) & 255, weight)) | 0;
        blue = (blue + Math.imul((pixel >>> 16) & 255, weight)) | 0;
      }
      rows[to] = red >> BITS;
      rows[to + 1] = green >> BITS;
      rows[to + 2] = blue >> BITS;
    }
  }
}

/** height × S × 3 to S × S × 3. */
function downColumns(rows, size, { first, count, weights, width: taps }) {
  const stride = size * 3;
  const result = new Uint8ClampedArray(size * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < size; y++) {
    sums.fill(HALF);
    for (let k = 0; k < count[y]; k++) {
      const weight = weights[y * taps + k];
      const from = (first[y] + k) * stride;
      for (let x = 0; x < stride; x++) sums[x] += Math.imul(rows[from + x], weight);
    }
    for (let x = 0, to = y * stride; x < stride; x++) result[to + x] = sums[x] >> BITS;
  }
  return result;
}

/**
 * `(x / 255 - mean) / std` per channel, channels apart.
 *
 * @param {Uint8ClampedArray} rgb S × S × 3
 * @param {{mean: number[], std: number[]}} normalisation of the manifest
 * @returns {Float32Array} 3 × S × S
 */
export function normalise(rgb, normalisation) {
  const pixels = rgb.length / 3;
  const result = new Float32Array(rgb.length);
  for (let channel = 0; channel < 3; channel++) {
    const table = Float32Array.from({ length: 256 }, (_, level) => {
      const value = Math.fround(Math.fround(level / 255) - Math.fround(normalisation.mean[channel]));
      return value / Math.fround(normalisation.std[channel]);
    });
    for (let i = 0; i < pixels; i++) result[channel * pixels + i] = table[rgb[3 * i + channel]];
  }
  return result;
}
