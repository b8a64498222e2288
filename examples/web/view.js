// What the page shows; nothing here decides anything.

const element = (id) => document.getElementById(id);
const STAGES = {
  read: "Read the pixels",
  resize: "Resize, normalise",
  network: "Network",
  mask: "Mask, overlay",
  total: "Grab to screen",
};
const BACKENDS = { wasm: "WASM", webgpu: "WebGPU" };

export function showError(line) {
  element("error").hidden = !line;
  element("error").textContent = line ?? "";
}

export function setStatus(line) {
  element("status").textContent = line;
}

export function setReady(ready) {
  for (const id of ["open", "camera", "precision", "backend"]) element(id).disabled = !ready;
}

export function showThreshold(value) {
  element("threshold-value").textContent = value.toFixed(2);
}

export function showBundle(manifest, models) {
  element("bundle-name").textContent = manifest.name;
  element("model-input").textContent = `${manifest.size} × ${manifest.size} pixels`;
  const options = models.map((model) => new Option(model.precision, model.precision));
  element("precision").replaceChildren(...options);
}

export function showModel(manifest, model, record, backend, loaded, note) {
  element("precision").value = model.precision;
  const size = (record.bytes / 1e6).toFixed(record.bytes < 1e5 ? 3 : 1);
  element("model-file").textContent = `${model.precision}, ${size} MB`;
  element("model-hash").textContent = `${record.sha256.slice(0, 12)}… checked`;
  element("model-hash").title = record.sha256;
  const { threads } = loaded;
  const kind = threads ? `, ${threads} ${threads === 1 ? "thread" : "threads"}` : "";
  element("model-backend").textContent = BACKENDS[backend] + kind + note;
}

export function showSource(source) {
  const moving = Boolean(source?.video);
  element("stop").disabled = !source;
  element("transport").hidden = !moving;
  element("seek-row").hidden = source?.kind !== "video";
  element("play").textContent = "Pause";
  element("position").textContent = "";
  element("fraction").textContent = "–";
  if (source?.kind !== "camera") element("cameras-row").hidden = true;
  if (!source) element("stage").dataset.empty = "";
  showMeasured(null, null);
}

export function showCameras(cameras, chosen) {
  const options = cameras.map((camera) => new Option(camera.label, camera.deviceId));
  element("cameras").replaceChildren(...options);
  if (chosen) element("cameras").value = chosen;
  element("cameras-row").hidden = cameras.length < 2;
}

/** Put a frame on the screen; its overlay follows. */
export function drawFrame({ image, width, height }) {
  for (const id of ["frame", "overlay"]) {
    const canvas = element(id);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
  }
  element("stage").style.setProperty("--ratio", width / height);
  delete element("stage").dataset.empty;
  element("frame").getContext("2d", { alpha: false }).putImageData(image, 0, 0);
}

export function drawOverlay({ overlay, marked, width, height }) {
  const context = element("overlay").getContext("2d");
  context.clearRect(0, 0, width, height);
  if (overlay) context.putImageData(overlay.image, overlay.left, overlay.top);
  const share = `${((100 * marked) / (width * height)).toFixed(1)} %`;
  element("fraction").textContent = share;
  element("frame").setAttribute("aria-label", `Frame, ${share} of it marked as polyp`);
}

export function showMeasured(statistics, dropped) {
  const rate = statistics?.rate() ?? null;
  element("rate").textContent = rate === null ? "–" : rate.toFixed(1);
  element("dropped").textContent = dropped ?? "–";
  const rows = Object.entries(STAGES).map(([stage, label]) => {
    const latency = statistics?.latency(stage) ?? null;
    const cells = [label, latency?.p50.toFixed(1) ?? "–", latency?.p95.toFixed(1) ?? "–"];
    const row = document.createElement("tr");
    for (const [index, text] of cells.entries()) {
      const cell = document.createElement(index === 0 ? "th" : "td");
      if (index === 0) cell.scope = "row";
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  element("latency").replaceChildren(...rows);
}

export async function togglePlay(video) {
  if (video.paused) await video.play();
  else video.pause();
  element("play").textContent = video.paused ? "Play" : "Pause";
}

export function showPosition(video) {
  if (!Number.isFinite(video.duration)) return;
  element("seek").max = video.duration;
  if (document.activeElement !== element("seek")) element("seek").value = video.currentTime;
  element("position").textContent = `${clock(video.currentTime)} / ${clock(video.duration)}`;
}

export function seek(video, seconds) {
  video.currentTime = seconds;
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
