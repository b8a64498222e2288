#!/usr/bin/env node
/** kdas-segment: segment frames with a bundle, check it, and measure how long a frame takes. */

import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

import ort from 'onnxruntime-node';

import { UserError, firstLine } from './errors.js';
import { checkGolden } from './golden.js';
import { readImage, readRaw, writeMask } from './images.js';
import { Segmenter } from './segmenter.js';

// The exit codes of `kdas-edge`.
const INTERNAL_ERROR = 1;
const WRONG_INPUT = 2;
const GATE_FAILED = 3;

// Untimed inferences before a frame of another size is timed.
const WARM_UP = 5;

const USAGE = `usage: node main.js --bundle DIR [--golden] [options] [FRAME ...]

Segments each FRAME (PNG, PPM, PGM; raw BGR with --size) with the bundle's camera model.

  --bundle DIR      the bundle; every file of it is compared with its hash first
  --golden          compare with the bundle's golden vectors; exit code 3 if they differ too much
  --out DIR         write a mask DIR/<name of the frame>.png, 255 where polyp
  --size WxH        each FRAME is a raw file of W x H x 3 bytes: blue, green, red
  --repeat N        segment each frame N times, for the percentiles (default 1)
  --precision P     fp32, fp16, int8 or int8_weights (default int8 where the bundle has it)
  --threads N       of one inference (default: one per physical core)

Exit codes: 0 done, 1 internal error, 2 the input is wrong, 3 the golden check failed.`;

function parse(words) {
  let parsed;
  try {
    parsed = parseArgs({
      args: words,
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        bundle: { type: 'string' },
        golden: { type: 'boolean' },
        out: { type: 'string' },
        size: { type: 'string' },
        repeat: { type: 'string' },
        precision: { type: 'string' },
        threads: { type: 'string' },
      },
    });
  } catch (error) {
    throw new UserError(`${firstLine(error)}; see --help`);
  }
  const { values, positionals } = parsed;
  const size = /^(\d+)x(\d+)$/.exec(values.size ?? '1x1');
  if (size === null) throw new UserError(`--size ${values.size} is not WxH; for example 1920x1080`);
  const options = {
    ...values,
    frames: positionals,
    size: values.size && { width: positive('--size', size[1]), height: positive('--size', size[2]) },
    repeat: positive('--repeat', values.repeat ?? '1'),
    threads: values.threads && positive('--threads', values.threads),
  };
  if (values.help) return options;
  if (!values.bundle) throw new UserError('no --bundle given; see --help');
  if (positionals.length === 0 && !values.golden) {
    throw new UserError('nothing to do; name a frame, or give --golden');
  }
  return options;
}

function positive(option, text) {
  if (!/^[1-9]\d{0,5}$/.test(text)) {
    throw new UserError(`${option} ${text} is not a number above 0; correct it`);
  }
  return Number(text);
}

/** Two frames of one name would have one mask; better said before an hour of work than after it. */
function maskFile(out, frame) {
  return path.join(out, `${path.parse(frame).name}.png`);
}

function prepareFolder(out, frames) {
  const files = frames.map((frame) => maskFile(out, frame));
  const twice = files.find((file, index) => files.indexOf(file) !== index);
  if (twice !== undefined) {
    throw new UserError(`two frames would become ${path.basename(twice)}; rename one`);
  }
  try {
    fs.mkdirSync(out, { recursive: true });
  } catch (error) {
    throw new UserError(`cannot make ${out} (${firstLine(error)}); choose another --out`);
  }
}

/** The value below which a share of the values lies, linear between neighbours as NumPy has it. */
function percentile(sorted, share) {
  const position = share * (sorted.length - 1);
  const low = Math.floor(position);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - low);
}

function printLatency(stage, milliseconds) {
  const sorted = Float64Array.from(milliseconds).sort();
  const values = [0.5, 0.9, 0.99, 1].map((share) => percentile(sorted, share));
  console.log(stage.padEnd(10) + values.map((ms) => ms.toFixed(2).padStart(9)).join(''));
}

async function reportGolden(segmenter) {
  const result = await checkGolden(segmenter);
  console.log(
    `golden: ${result.frames} frames, ${(100 * result.disagreement).toFixed(3)}% of mask pixels ` +
      `differ (at most ${(100 * result.allowed).toFixed(2)}%), largest probability difference ` +
      `${result.largest.toPrecision(2)}: ${result.passed ? 'pass' : 'FAIL'}`,
  );
  if (!result.passed) {
    console.error(
      `error: ${segmenter.bundle.manifest.name} does not reproduce its golden vectors on this ` +
        'device; do not use it here, try another precision',
    );
  }
  return result.passed;
}

async function segmentFrames(segmenter, { frames, size, repeat, out }) {
  const times = { inference: [], mask: [], total: [] };
  let shape = '';
  console.log(`${'frame'.padEnd(32)} ${'polyp %'.padStart(8)} ${'ms'.padStart(8)}`);
  for (const file of frames) {
    const frame = size ? readRaw(file, size.width, size.height) : readImage(file);
    if (shape !== `${frame.width}x${frame.height}`) {
      for (let i = 0; i < WARM_UP; i++) await segmenter.segment(frame);
      shape = `${frame.width}x${frame.height}`;
    }
    let result;
    for (let i = 0; i < repeat; i++) {
      result = await segmenter.segment(frame);
      times.inference.push(result.inferenceMs);
      times.mask.push(result.maskMs);
      times.total.push(result.inferenceMs + result.maskMs);
    }
    const marked = result.mask.reduce((sum, value) => sum + (value > 0), 0);
    console.log(
      `${path.basename(file).padEnd(32)} ` +
        `${((100 * marked) / result.mask.length).toFixed(2).padStart(8)} ` +
        `${times.total.at(-1).toFixed(1).padStart(8)}`,
    );
    if (out) writeMask(maskFile(out, file), result.mask, result.width, result.height);
  }
  const heads = ['p50', 'p90', 'p99', 'max'].map((head) => head.padStart(9)).join('');
  console.log(`\n${'stage'.padEnd(10)}${heads}   ms, ${times.total.length} timed frames`);
  for (const [stage, milliseconds] of Object.entries(times)) printLatency(stage, milliseconds);
}

async function run(words) {
  const options = parse(words);
  if (options.help) {
    console.log(USAGE);
    return;
  }
  if (options.out) prepareFolder(options.out, options.frames);
  const segmenter = await Segmenter.load(options.bundle, options);
  try {
    console.log(
      `${segmenter.bundle.manifest.name} ${segmenter.precision} camera: ONNX Runtime ` +
        `${ort.env.versions.node} on CPU, threads ${segmenter.threads || 'one per core'}`,
    );
    if (options.golden && !(await reportGolden(segmenter))) {
      process.exitCode = GATE_FAILED;
    } else if (options.frames.length > 0) {
      await segmentFrames(segmenter, options);
    }
  } finally {
    await segmenter.close();
  }
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  const wrong = error instanceof UserError;
  console.error(`${wrong ? 'error' : 'internal error'}: ${firstLine(error)}`);
  process.exitCode = wrong ? WRONG_INPUT : INTERNAL_ERROR;
}
