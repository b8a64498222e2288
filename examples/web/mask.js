// From the network's probabilities to a mask at the size of the frame, and its overlay.

/** For each output pixel the two inputs and the weight of the second (half-pixel centres). */
function neighbours(from, to) {
  const first = new Int32Array(to);
  const second = new Int32Array(to);
  const weight = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const center = Math.min(Math.max((i + 0.5) * (from / to) - 0.5, 0), from - 1);
    first[i] = Math.floor(center);
    second[i] = Math.min(first[i] + 1, from - 1);
    weight[i] = center - first[i];
  }
  return { first, second, weight };
}

/**
 * Resize probabilities bilinearly to the frame, then compare: the contour stays smooth.
 *
 * @param {Float32Array} probability S × S, 0–1
 * @param {number} size side S
 * @param {number} width of the frame
 * @param {number} height of the frame
 * @param {number} threshold the mask is where the probability is above
 * @returns {{mask: Uint8Array, box: object}} height × width bytes, 1 where polyp, and the smallest
 *     box around them: left, top, and the first column right and row below
 */
export function maskAtSize(probability, size, width, height, threshold) {
  const limit = Math.fround(threshold);
  const { first, second, weight } = neighbours(size, width);
  const down = neighbours(size, height);
  const mask = new Uint8Array(width * height);
  const box = { left: width, top: height, right: 0, bottom: 0 };
  // a row of the network stretched to the frame's width serves several rows of the frame; from
  // `low` to `high` it may be above the threshold, and what is between two such rows as well
  const makeRow = () => ({ row: -1, values: new Float32Array(width), low: width, high: 0 });
  const stretched = [makeRow(), makeRow()];
  const stretch = (row) => {
    const line = stretched[row & 1];
    if (line.row === row) return line;
    Object.assign(line, { row, low: width, high: 0 });
    const { values } = line;
    const from = row * size;
    for (let x = 0; x < width; x++) {
      const left = probability[from + first[x]];
      values[x] = left + (probability[from + second[x]] - left) * weight[x];
      if (values[x] > limit) {
        if (x < line.low) line.low = x;
        line.high = x + 1;
      }
    }
    return line;
  };
  for (let y = 0; y < height; y++) {
    const upper = stretch(down.first[y]);
    const lower = stretch(down.second[y]);
    const [above, below, share] = [upper.values, lower.values, down.weight[y]];
    const high = Math.max(upper.high, lower.high);
    for (let x = Math.min(upper.low, lower.low), to = y * width + x; x < high; x++, to++) {
      if (above[x] + (below[x] - above[x]) * share > limit) {
        mask[to] = 1;
        if (x < box.left) box.left = x;
        if (x >= box.right) box.right = x + 1;
        if (y < box.top) box.top = y;
        box.bottom = y + 1;
      }
    }
  }
  return { mask, box };
}

// Okabe and Ito's sky blue and the opacity with which kdas_edge/overlay.py draws a prediction: told
// from mucosa by colour-blind readers too.
const COLOR = [86, 180, 233];
const FILL_OPACITY = 0.35;

/**
 * Draw the contour of a mask and, if wanted, its area.
 *
 * @param {Uint8Array} mask height × width, 1 where polyp
 * @param {number} width of the frame
 * @param {number} height of the frame
 * @param {object} box around the mask
 * @param {boolean} fill tint the area as well; the mucosa below is then harder to judge
 * @returns {?{image: ImageData, left: number, top: number}} transparent but for the drawing, and
 *     where in the frame it belongs; null where nothing is marked
 */
export function drawOverlay(mask, width, height, box, fill) {
  if (box.right === 0) return null;
  const thickness = Math.max(1, Math.round(Math.max(width, height) / 200));
  const stamp = disc(thickness);
  const reach = Math.floor(thickness / 2);
  const left = Math.max(0, box.left - reach);
  const top = Math.max(0, box.top - reach);
  const right = Math.min(width, box.right + reach);
  const bottom = Math.min(height, box.bottom + reach);
  const image = new ImageData(right - left, bottom - top);
  const words = new Uint32Array(image.data.buffer);
  // a canvas holds red, green, blue, alpha in the order of memory, whatever the processor
  const word = (opacity) => new Uint32Array(Uint8Array.of(...COLOR, 255 * opacity).buffer)[0];
  const [tint, line] = [word(FILL_OPACITY), word(1)];
  if (fill) {
    for (let y = box.top; y < box.bottom; y++) {
      const to = (y - top) * image.width - left;
      for (let x = box.left; x < box.right; x++) if (mask[y * width + x]) words[to + x] = tint;
    }
  }
  for (let y = box.top; y < box.bottom; y++) {
    for (let x = box.left, i = y * width + x; x < box.right; x++, i++) {
      if (!mask[i]) continue;
      const inside =
        x > 0 && x < width - 1 && y > 0 && y < height - 1 &&
        mask[i - 1] && mask[i + 1] && mask[i - width] && mask[i + width];
      if (inside) continue;
      for (const [dx, dy] of stamp) {
        const [column, row] = [x + dx, y + dy];
        if (column >= left && column < right && row >= top && row < bottom) {
          words[(row - top) * image.width + column - left] = line;
        }
      }
    }
  }
  return { image, left, top };
}

/** The pixels of a disc of this diameter around 0, 0. */
function disc(diameter) {
  const radius = diameter / 2;
  const reach = Math.floor(radius);
  const pixels = [];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      if (x * x + y * y <= radius * radius) pixels.push([x, y]);
    }
  }
  return pixels;
}
