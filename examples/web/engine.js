// The network on one backend, in a worker of its own: another choice is another worker.

import { UserError } from "./bundle.js";

/** Is there a graphics processor that WebGPU reaches? One that software imitates does not count. */
export async function hasWebGPU() {
  if (!navigator.gpu) return false;
  try {
    const adapter = await navigator.gpu.requestAdapter();
    return adapter !== null && !adapter.info?.isFallbackAdapter;
  } catch {
    return false;
  }
}

export class Engine {
  #worker = new Worker("worker.js", { type: "module" });
  #waiting = { load: null, frame: null };
  #onRedrawn;

  /** @param {(result: object) => void} onRedrawn gets the last frame at another threshold */
  constructor(onRedrawn) {
    this.#onRedrawn = onRedrawn;
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new UserError(`the worker stopped (${event.message ?? "it could not be loaded"})`));
    };
  }

  get busy() {
    return this.#waiting.frame !== null;
  }

  /** Load a model; resolves with its number of threads and the time that loading took. */
  load(model, manifest, backend) {
    const { size, normalisation } = manifest;
    const message = { load: { model, manifest: { size, normalisation }, backend } };
    return new Promise((resolve, reject) => {
      this.#waiting.load = { resolve, reject };
      this.#worker.postMessage(message, [model]);
    });
  }

  /** Segment one frame, which is handed over; its pixels come back in the result. */
  segment(frame, id, look) {
    return new Promise((resolve, reject) => {
      this.#waiting.frame = { resolve, reject };
      this.#worker.postMessage({ frame, id, ...look }, [frame]);
    });
  }

  /** Draw the last frame's probabilities anew. */
  redraw(look) {
    this.#worker.postMessage({ redraw: look });
  }

  close() {
    this.#worker.terminate();
    this.#fail(new UserError("the model was changed"));
  }

  #receive({ loaded, result, failed }) {
    if (loaded) this.#take("load")?.resolve(loaded);
    else if (result?.redrawn) this.#onRedrawn(result);
    else if (result) this.#take("frame")?.resolve(result);
    else this.#fail(new UserError(failed));
  }

  #take(what) {
    const waiting = this.#waiting[what];
    this.#waiting[what] = null;
    return waiting;
  }

  #fail(error) {
    for (const what of ["load", "frame"]) this.#take(what)?.reject(error);
  }
}
