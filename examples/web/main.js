// The page: what buttons do, and the way of a frame from its source to the screen.

import { UserError, chosenBundle, servedBundle } from "./bundle.js";
import { Engine, hasWebGPU } from "./engine.js";
import { listCameras, openCamera, openFile } from "./sources.js";
import { Statistics } from "./statistics.js";
import * as view from "./view.js";

const element = (id) => document.getElementById(id);
// the first of these that a bundle has; WebGPU has no kernels for 8-bit arithmetic
const PREFERRED = {
  wasm: ["int8", "int8_weights", "fp32", "fp16"],
  webgpu: ["fp16", "fp32", "int8_weights", "int8"],
};

const statistics = new Statistics();
let bundle = null;
let engine = null;
let source = null;
let shown = null; // result of the frame on the screen: {id, mask, width, height, threshold, fill}
let openings = 0; // of sources, and their ends: what is still being opened may be unwanted by then
let frames = 0; // grabbed since the page was opened; the number of a frame is its identity
let unseen = 0; // frames that a moving source has shown since the last one was grabbed
let dropped = 0;

/** The mask on the screen: height × width bytes, 1 where polyp; or null. */
export function currentMask() {
  return shown;
}

// ---- bundle and model ----

async function useBundle(opened) {
  bundle = opened;
  const { manifest, models } = bundle;
  view.showBundle(manifest, models);
  element("threshold").value = manifest.threshold;
  view.showThreshold(look().threshold);
  await useModel();
}

/** Load the chosen model on the chosen backend; what was loaded before is given up. */
async function useModel({ precision = null } = {}) {
  engine?.close();
  engine = null;
  shown = null;
  view.setReady(false);
  view.setStatus("Loading the model…");
  const asked = element("backend").value;
  const backend = asked === "auto" ? ((await hasWebGPU()) ? "webgpu" : "wasm") : asked;
  try {
    await start(backend, precision);
  } catch (error) {
    if (asked !== "auto" || backend === "wasm" || engine === null) throw error;
    engine.close();
    await start("wasm", precision, ` (WebGPU failed: ${error.message})`);
  }
  view.setStatus("Open an image or a video, or start the camera.");
  view.setReady(true);
  statistics.clear();
  if (source) await nextFrame();
}

async function start(backend, precision, note = "") {
  const model = pick(backend, precision);
  const content = await bundle.readModel(model);
  const record = bundle.manifest.files[model.path];
  engine = new Engine((result) => result.id === shown?.id && show(result));
  const loaded = await engine.load(content, bundle.manifest, backend);
  view.showModel(bundle.manifest, model, record, backend, loaded, note);
}

function pick(backend, precision) {
  const wanted = precision ? [precision] : PREFERRED[backend];
  const found = wanted.map((name) => bundle.models.find((model) => model.precision === name));
  return found.find(Boolean) ?? bundle.models[0];
}

// ---- frames ----

async function useSource(open) {
  closeSource();
  const opening = openings;
  const opened = await open();
  if (opening !== openings) return opened.close();
  source = opened;
  unseen = dropped = 0;
  statistics.clear();
  view.showSource(source);
  if (source.video) {
    const { video } = source;
    watch(source, video);
    await video.play();
  } else {
    await nextFrame();
  }
}

function closeSource() {
  openings += 1;
  source?.close();
  source = shown = null;
  view.showSource(null);
}

/** Count what a video shows, and grab a frame whenever the network has nothing to do. */
function watch(watched, video) {
  let before = null;
  const presented = (_, { presentedFrames }) => {
    if (source !== watched) return;
    unseen += before === null ? 1 : presentedFrames - before;
    before = presentedFrames;
    view.showPosition(video);
    attempt(nextFrame);
    video.requestVideoFrameCallback(presented);
  };
  video.requestVideoFrameCallback(presented);
}

/** Segment the newest frame of the source. A frame that comes meanwhile waits for no one. */
async function nextFrame() {
  if (!source || !engine || engine.busy || nextFrame.grabbing) return;
  const [from, on] = [source, engine];
  nextFrame.grabbing = true;
  const began = performance.now();
  let frame;
  try {
    dropped += Math.max(0, unseen - 1);
    unseen = 0;
    frame = await from.grab();
  } catch (error) {
    if (source === from) throw error; // a closed source has no frame, and needs none
  } finally {
    nextFrame.grabbing = false;
  }
  // what came meanwhile found this one under way and left: it has its turn now
  if (source !== from || engine !== on) {
    frame?.close();
    return nextFrame();
  }
  frames += 1;
  const waiting = on.segment(frame, frames, look());
  let result;
  try {
    result = await waiting;
  } catch (error) {
    if (engine !== on) return;
    closeSource();
    throw error;
  }
  if (source !== from) return nextFrame();
  view.drawFrame(result);
  show(result);
  const total = performance.now() - began;
  statistics.add({ ...result.milliseconds, total });
  view.showMeasured(statistics, from.video ? dropped : null);
  const wanted = look(); // the slider may have moved while the network ran
  if (wanted.threshold !== result.threshold || wanted.fill !== result.fill) on.redraw(wanted);
  if (unseen > 0) await nextFrame();
}

function show(result) {
  shown = result;
  view.drawOverlay(result);
}

function look() {
  return { threshold: Number(element("threshold").value), fill: element("fill").checked };
}

// ---- what the user does ----

/** Do something; what goes wrong is one line on the page. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof UserError)) console.error(error);
    view.showError(String(error.message ?? error).split("\n")[0]);
  }
}

const act = (action) => (event) => {
  view.showError(null);
  return attempt(() => action(event));
};

function openChosen(files) {
  const file = files[0];
  if (file) return useSource(() => openFile(file, element("video")));
}

async function startCamera(deviceId) {
  const lost = (error) => {
    closeSource();
    view.showError(error.message);
  };
  await useSource(() => openCamera(element("video"), deviceId, lost));
  view.showCameras(await listCameras(), source?.deviceId);
}

function listen() {
  const on = (id, type, action) => element(id).addEventListener(type, act(action));
  on("open", "click", () => element("file").click());
  on("file", "change", async ({ target }) => {
    const files = [...target.files];
    target.value = ""; // the same file may be opened again
    await openChosen(files);
  });
  on("camera", "click", () => startCamera(null));
  on("cameras", "change", ({ target }) => startCamera(target.value));
  on("stop", "click", closeSource);
  on("play", "click", () => view.togglePlay(element("video")));
  on("seek", "input", ({ target }) => view.seek(element("video"), Number(target.value)));
  on("threshold", "input", () => {
    view.showThreshold(look().threshold);
    if (shown) engine?.redraw(look());
  });
  on("fill", "change", () => shown && engine?.redraw(look()));
  on("precision", "change", ({ target }) => useModel({ precision: target.value }));
  on("backend", "change", () => useModel());
  on("folder", "click", () => element("folder-files").click());
  on("folder-files", "change", async ({ target }) => {
    if (target.files.length) await useBundle(await chosenBundle(target.files));
  });
  for (const type of ["dragover", "drop"]) {
    document.addEventListener(type, (event) => event.preventDefault());
  }
  on("stage", "drop", ({ dataTransfer }) => {
    if (engine) return openChosen(dataTransfer.files);
  });
}

async function begin() {
  if (typeof WebAssembly !== "object") {
    throw new UserError("this browser has no WebAssembly; use a current Chrome, Edge or Firefox");
  }
  listen();
  const served = await servedBundle();
  if (served) await useBundle(served);
  else view.setStatus("Open the folder of a bundle.");
}

view.setStatus("Looking for a bundle…");
attempt(begin);
