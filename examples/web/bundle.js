// A bundle: its manifest is read first, and no model is used whose SHA-256 is another.

// the schemas of the first release, whose manifests have no digest of their own
const WITHOUT_DIGEST = ["1.0", "1.1", "1.2"];
const SCHEMAS = [...WITHOUT_DIGEST, "1.3"];
// a real manifest holds some tens of kilobytes
const MANIFEST_LIMIT = 16 * 1024 * 1024;

/** What a person can mend; its message is the one line that the page shows. */
export class UserError extends Error {}

/** Reads the files of the bundle that serve.py was started with, or null where it has none. */
export async function servedBundle() {
  const answer = await fetch("bundle/manifest.json");
  if (answer.status === 404) return null;
  return openBundle(async (path) => {
    const found = await fetch(`bundle/${path.split("/").map(encodeURIComponent).join("/")}`);
    if (!found.ok) throw new UserError(`the bundle's ${path} cannot be read (${found.status})`);
    return found.arrayBuffer();
  });
}

/**
 * Reads a bundle from the files of a folder that the user chose.
 *
 * @param {FileList} files with paths relative to the folder above the chosen one
 */
export async function chosenBundle(files) {
  const byPath = new Map();
  for (const file of files) byPath.set(file.webkitRelativePath.split("/").slice(1).join("/"), file);
  if (!byPath.has("manifest.json")) {
    throw new UserError("the folder holds no manifest.json; choose one that kdas-edge export wrote");
  }
  return openBundle((path) => {
    const file = byPath.get(path);
    if (!file) throw new UserError(`the bundle lacks ${path}; copy it again`);
    return file.arrayBuffer();
  });
}

async function openBundle(read) {
  const content = await read("manifest.json");
  if (content.byteLength > MANIFEST_LIMIT) throw new UserError("manifest.json is too large");
  let text;
  let manifest;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    manifest = JSON.parse(text, finite);
  } catch {
    throw new UserError("manifest.json is not JSON; export the bundle again");
  }
  checkManifest(manifest);
  await checkDigest(manifest, text);
  // the page prepares the frame itself: `core` is the faster of the two presets here
  const models = manifest.models.filter(
    (model) => model.format === "onnx" && model.preset === "core",
  );
  if (!models.length) throw new UserError("the bundle has no ONNX model of the preset core");
  return { manifest, models, readModel: (model) => readModel(read, manifest, model) };
}

async function readModel(read, manifest, model) {
  const record = manifest.files?.[model.path];
  if (!record) throw new UserError(`the manifest holds no hash of ${model.path}; model refused`);
  const content = await read(model.path);
  if (content.byteLength !== record.bytes || (await sha256(content)) !== record.sha256) {
    throw new UserError(
      `${model.path} does not match its SHA-256 in the manifest; model refused, copy the bundle again`,
    );
  }
  return content;
}

/** Refuses a number that is too large to be one, like 1e999. */
function finite(key, value) {
  if (typeof value === "number" && !Number.isFinite(value)) throw new Error(`${key} is not finite`);
  return value;
}

/** The manifest's own digest is the SHA-256 of its bytes with the 64 digits themselves as zeros. */
async function checkDigest({ schema_version: version, sha256: own }, text) {
  if (WITHOUT_DIGEST.includes(version)) {
    if (own === undefined) return;
    throw new UserError(`manifest.json says schema ${version}, which has no digest, and holds one`);
  }
  const pieces = /^[0-9a-f]{64}$/.test(own) ? text.split(own) : [];
  const blank = new TextEncoder().encode(pieces.join("0".repeat(64)));
  if (pieces.length !== 2 || (await sha256(blank)) !== own) {
    throw new UserError(
      "manifest.json does not match its own digest; it was changed or damaged, copy the bundle again",
    );
  }
}

async function sha256(content) {
  if (!globalThis.crypto?.subtle) {
    throw new UserError("this address is not secure, so that no hash can be checked; use 127.0.0.1");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function checkManifest(manifest) {
  const version = manifest?.schema_version;
  if (!SCHEMAS.includes(version)) {
    throw new UserError(
      `the manifest has schema version ${JSON.stringify(version)}, this page reads ` +
        `${SCHEMAS.join(", ")}; take the page of the kdas-edge that wrote it`,
    );
  }
  const triple = (values) =>
    Array.isArray(values) && values.length === 3 && values.every(Number.isFinite);
  const good = {
    size: Number.isInteger(manifest.size) && manifest.size > 0 && manifest.size <= 4096,
    threshold: manifest.threshold >= 0 && manifest.threshold <= 1,
    normalisation: triple(manifest.normalisation?.mean) && triple(manifest.normalisation?.std),
    models: Array.isArray(manifest.models) && manifest.models.every((model) => safe(model?.path)),
  };
  for (const [key, fine] of Object.entries(good)) {
    if (!fine) throw new UserError(`manifest.json: ${key} is wrong; export the bundle again`);
  }
}

/** A path that stays in the bundle. */
function safe(path) {
  return (
    typeof path === "string" && path !== "" && !/[\\:]/.test(path) && !path.startsWith("/") &&
    !path.split("/").includes("..")
  );
}
