/** Frames from files and masks into files. */

import fs from 'node:fs';

import { PNG } from 'pngjs';

import { UserError, firstLine } from './errors.js';

// four times an 8K frame, uncompressed
const LARGEST_FILE = 400 * 1024 * 1024;
const LARGEST_SIDE = 16384;

/**
 * Read a frame: PNG, or binary PPM or PGM. Grey is repeated, alpha dropped.
 *
 * @returns {{height: number, width: number, bgr: Uint8Array}}
 * @throws {UserError} the file is absent, empty, damaged or of another format
 */
export function readImage(file) {
  const bytes = readBytes(file);
  if (bytes.readUInt32BE(0) === 0x89504e47) return decodePng(bytes, file);
  const magic = bytes.toString('latin1', 0, 2);
  if (magic === 'P5' || magic === 'P6') return decodePnm(bytes, magic === 'P6' ? 3 : 1, file);
  throw new UserError(
    `${file} is no PNG, binary PPM or PGM; convert it, or give --size for raw BGR`,
  );
}

/** Read a file of width × height × 3 bytes: blue, green, red. */
export function readRaw(file, width, height) {
  const bytes = readBytes(file);
  const wanted = 3 * width * height;
  if (bytes.length !== wanted) {
    throw new UserError(
      `${file} has ${bytes.length} bytes, a BGR frame of ${width}×${height} has ${wanted}; ` +
        'check --size',
    );
  }
  return { height, width, bgr: new Uint8Array(bytes) };
}

/** Write a mask as a grey PNG, under a temporary name that is then renamed. */
export function writeMask(file, mask, width, height) {
  const png = new PNG({ width, height, colorType: 0, inputColorType: 0, inputHasAlpha: false });
  png.data = Buffer.from(mask.buffer, mask.byteOffset, mask.length);
  const options = { colorType: 0, inputColorType: 0, inputHasAlpha: false };
  const temporary = `${file}.part`;
  try {
    fs.writeFileSync(temporary, PNG.sync.write(png, options));
    fs.renameSync(temporary, file);
  } catch (error) {
    throw new UserError(`cannot write ${file} (${firstLine(error)}); check space and permissions`);
  }
}

/** The bytes of a file; throws UserError if it is absent, empty or too large for a frame. */
export function readBytes(file) {
  const found = fs.statSync(file, { throwIfNoEntry: false });
  if (found === undefined) throw new UserError(`${file} does not exist; check the path`);
  if (!found.isFile()) throw new UserError(`${file} is not a file; name an image`);
  if (found.size < 4) throw new UserError(`${file} is empty or cut short; copy the file again`);
  if (found.size > LARGEST_FILE) {
    throw new UserError(`${file} is too large to be an endoscopic frame; reduce it`);
  }
  return fs.readFileSync(file);
}

function decodePng(bytes, file) {
  // width and height stand first in the file: asked before memory is taken for them
  const [width, height] = bytes.length < 24 ? [0, 0] : [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  let png;
  try {
    if (Math.max(width, height) > LARGEST_SIDE) throw new Error('too many pixels');
    if (bytes[24] !== 8) throw new Error('not 8 bits a channel');
    png = PNG.sync.read(bytes);
  } catch (error) {
    throw new UserError(
      `${file} cannot be read as a PNG (${firstLine(error)}); write it again as an 8-bit RGB PNG`,
    );
  }
  return toBgr(png.data, 4, png.width, png.height);
}

/**
 * Read a golden map: a grey PNG of 16 bits and size × size pixels, 65535 being 1.
 *
 * @returns {Float32Array}
 * @throws {UserError} the file is absent, damaged or no such map
 */
export function readMapPng(file, size) {
  const bytes = readBytes(file);
  const header = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 16, 0]);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  let png;
  try {
    if (!bytes.subarray(16, 26).equals(header)) throw new Error(`not ${size}×${size} grey of 16 bits`);
    png = PNG.sync.read(bytes, { skipRescale: true });
  } catch (error) {
    throw new UserError(
      `${file} is not a map of probabilities (${firstLine(error)}); export the bundle again`,
    );
  }
  // four channels, of which grey fills three
  return Float32Array.from({ length: size * size }, (_, i) => png.data[4 * i] / 65535);
}

function decodePnm(bytes, channels, file) {
  const header = bytes.toString('latin1', 0, 4096);
  const gap = '(?:\\s|#[^\\n]*\\n)+';
  const match = new RegExp(`^P[56]${gap}(\\d{1,5})${gap}(\\d{1,5})${gap}255\\s`).exec(header);
  const [width, height] = match === null ? [0, 0] : [Number(match[1]), Number(match[2])];
  const count = width * height * channels;
  const start = match?.[0].length ?? 0;
  if (count === 0 || Math.max(width, height) > LARGEST_SIDE || bytes.length < start + count) {
    throw new UserError(`${file} is cut short or has not 8 bits a channel; write it again`);
  }
  return toBgr(bytes.subarray(start), channels, width, height);
}

/** Pixels with 1 (grey), 3 (RGB) or 4 (RGB and alpha) bytes each, as a BGR frame. */
function toBgr(pixels, channels, width, height) {
  const bgr = new Uint8Array(3 * width * height);
  const [green, blue] = channels === 1 ? [0, 0] : [1, 2];
  for (let from = 0, to = 0; to < bgr.length; from += channels, to += 3) {
    bgr[to] = pixels[from + blue];
    bgr[to + 1] = pixels[from + green];
    bgr[to + 2] = pixels[from];
  }
  return { height, width, bgr };
}
