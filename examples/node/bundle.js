/** Opening a bundle: nothing in it is used before its hash has been compared with the manifest. */

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { UserError, firstLine } from './errors.js';

const MANIFEST = 'manifest.json';
// the schemas of the first release, whose manifests have no digest of their own
const WITHOUT_DIGEST = ['1.0', '1.1', '1.2'];
const READABLE = [...WITHOUT_DIGEST, '1.3'];
// A real manifest holds some tens of kilobytes; a device must not be filled by a hostile one.
const MANIFEST_LIMIT = 16 * 1024 * 1024;
const LARGEST_SIZE = 8192;
const READ_BYTES = 1 << 20;

/**
 * Open a bundle; compare the manifest with its own digest, and size and SHA-256 of every file with
 * the manifest.
 *
 * @param {string} directory the folder that holds `manifest.json`
 * @returns {Bundle}
 * @throws {UserError} not a bundle, an unknown schema, or a file that is changed, missing, not
 *   named in the manifest, or a link out of the bundle
 */
export function openBundle(directory) {
  if (!fs.existsSync(directory)) {
    throw new UserError(`bundle ${directory} does not exist; check the path`);
  }
  if (!fs.statSync(directory).isDirectory()) {
    throw new UserError(`bundle ${directory} is not a directory; name the folder of ${MANIFEST}`);
  }
  const root = fs.realpathSync(directory);
  const source = path.join(root, MANIFEST);
  if (!fs.existsSync(source) || !fs.statSync(source).isFile()) {
    throw new UserError(`${directory} has no ${MANIFEST}, so it is not a bundle; check the path`);
  }
  const manifest = parseManifest(source);
  checkReferences(root, manifest);
  refuseExtraFiles(root, root, manifest);
  for (const [relative, record] of Object.entries(manifest.files)) {
    checkFile(root, relative, record);
  }
  return new Bundle(root, manifest);
}

/** An opened bundle. `manifest` is its contract, as the file gives it. */
export class Bundle {
  constructor(root, manifest) {
    this.root = root;
    this.manifest = manifest;
  }

  /** The absolute path of a file that the manifest names. */
  file(relative) {
    return path.join(this.root, relative);
  }

  /**
   * The ONNX file that takes camera frames.
   *
   * @param {string} [precision] by default int8 where the bundle has it, otherwise fp32
   * @throws {UserError} there is none
   */
  cameraModel(precision) {
    const held = this.manifest.models.filter((m) => m.format === 'onnx' && m.preset === 'camera');
    const wanted = precision === undefined ? ['int8', 'fp32'] : [precision];
    for (const name of wanted) {
      const model = held.find((m) => m.precision === name);
      if (model !== undefined) return model;
    }
    throw new UserError(
      `bundle ${this.manifest.name} has no ONNX model of preset camera` +
        `${precision === undefined ? '' : ` in ${precision}`}; export it with --preset core,camera`,
    );
  }
}

function parseManifest(source) {
  if (fs.statSync(source).size > MANIFEST_LIMIT) {
    throw new UserError(`${source} is too large to be a manifest; export the bundle again`);
  }
  let text;
  let manifest;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(fs.readFileSync(source));
    manifest = JSON.parse(text, finite);
  } catch (error) {
    const reason = firstLine(error);
    throw new UserError(`${source} is not JSON (${reason}); export the bundle again`);
  }
  const require = (good, what) => {
    if (!good) throw new UserError(`${source}: ${what}; export the bundle again`);
  };
  const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
  require(isObject(manifest), 'not a manifest');
  if (!READABLE.includes(manifest.schema_version)) {
    const writer = manifest.provenance?.code_version ?? 'that wrote it';
    throw new UserError(
      `${source} has schema version '${manifest.schema_version}', this program reads ` +
        `${READABLE.join(', ')}; use the example of kdas-edge ${writer}`,
    );
  }
  const problem = digestProblem(manifest, text);
  require(problem === null, problem);
  const { size, threshold, models, golden, tolerances, files } = manifest;
  require(typeof manifest.name === 'string', 'name is not a text');
  require(Number.isInteger(size) && size > 0 && size <= LARGEST_SIZE, 'size is not a number of pixels');
  require(typeof threshold === 'number', 'threshold is not a number');
  require(Array.isArray(models) && models.every(isObject), 'models is not a list');
  require(Array.isArray(golden) && golden.every((g) => isObject(g?.expected)), 'golden is not a list');
  require(isObject(tolerances) && Object.values(tolerances).every(isObject), 'tolerances is not a table');
  require(isObject(files) && Object.values(files).every(isObject), 'files is not a table');
  for (const name of [...mentioned(manifest), ...Object.keys(files)]) {
    require(isInside(name), `path '${name}' leaves the bundle`);
  }
  return manifest;
}

/** Refuses a number that is too large to be one, like 1e999. */
function finite(key, value) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new Error(`${key} is not finite`);
  return value;
}

/** The manifest's own digest is the SHA-256 of its bytes with the 64 digits themselves as zeros. */
function digestProblem({ schema_version: version, sha256: own }, text) {
  if (WITHOUT_DIGEST.includes(version)) {
    const held = own !== undefined;
    return held ? `it says schema ${version}, which has no digest, and holds one` : null;
  }
  const pieces = /^[0-9a-f]{64}$/.test(own) ? text.split(own) : [];
  const hash = createHash('sha256').update(pieces.join('0'.repeat(64)), 'utf8').digest('hex');
  const good = pieces.length === 2 && hash === own;
  return good ? null : 'it does not match its own digest, it was changed or damaged';
}

/** Refuse what could leave the bundle: absolute, `..`, a backslash or a drive. */
function isInside(name) {
  return (
    typeof name === 'string' &&
    name !== '' &&
    !name.startsWith('/') &&
    !/[\\:]/.test(name) &&
    !name.split('/').includes('..')
  );
}

/** Every file that the contract uses; the weights of an .xml lie in the .bin beside it. */
function mentioned({ models, golden }) {
  const used = models.flatMap((model) =>
    model.format === 'openvino'
      ? [model.path, String(model.path).replace(/\.[^./]*$/, '.bin')]
      : [model.path],
  );
  return [...used, ...golden.flatMap((g) => [g.frame, ...Object.values(g.expected)])];
}

/** Every file that is used must have a hash, or it would be read unchecked. */
function checkReferences(root, manifest) {
  for (const relative of mentioned(manifest)) {
    if (!Object.hasOwn(manifest.files, relative)) {
      throw new UserError(
        `${root}: '${relative}' is used but has no hash in ${MANIFEST}; export the bundle again`,
      );
    }
  }
}

function refuseExtraFiles(root, folder, manifest) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    const relative = path.relative(root, full).split(path.sep).join('/');
    // a link to a folder is not entered, and judged like a file
    if (entry.isSymbolicLink() && leaves(root, full)) {
      throw new UserError(
        `${root}: '${relative}' is a link that leaves the bundle; export it again`,
      );
    }
    if (entry.isDirectory()) {
      refuseExtraFiles(root, full, manifest);
    } else if (relative !== MANIFEST && !Object.hasOwn(manifest.files, relative)) {
      throw new UserError(
        `${root}: '${relative}' is not in ${MANIFEST}; remove it, or export the bundle again`,
      );
    }
  }
}

function leaves(root, link) {
  try {
    const relative = path.relative(root, fs.realpathSync(link));
    return relative.startsWith('..') || path.isAbsolute(relative);
  } catch {
    return true; // it leads nowhere
  }
}

function checkFile(root, relative, record) {
  const full = path.join(root, relative);
  const found = fs.statSync(full, { throwIfNoEntry: false });
  if (!found?.isFile()) {
    throw new UserError(`${root}: file '${relative}' is missing; copy the bundle again`);
  }
  if (found.size !== record.bytes || sha256(full) !== record.sha256) {
    throw new UserError(
      `${root}: '${relative}' does not match its hash in ${MANIFEST}; the bundle was changed or ` +
        'damaged, copy it again',
    );
  }
}

function sha256(file) {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  const handle = fs.openSync(file, 'r');
  try {
    for (let count; (count = fs.readSync(handle, buffer, 0, READ_BYTES, null)) > 0; ) {
      hash.update(buffer.subarray(0, count));
    }
  } finally {
    fs.closeSync(handle);
  }
  return hash.digest('hex');
}
