// The engine that adapts inside the browser. server_engine.js has the same methods and asks a server.

import { Core } from "./core.js";

export class LocalEngine {
  #base;
  #ask;
  #before = Promise.resolve(); // the request before: one runs at a time

  /** @param {string} base address of the folder of checkpoints, with a slash at its end */
  constructor(base = new URL("checkpoints/", document.baseURI).href) {
    this.#base = base;
    this.#ask = typeof Worker === "undefined" ? askDirectly(base) : askWorker(base);
  }

  /** [{name, kind, title, method, ways, shots, steps, side, channels, accuracy}] */
  async checkpoints() {
    const response = await fetch(`${this.#base}index.json`);
    if (!response.ok) throw new Error(`The list of checkpoints cannot be read (status ${response.status}).`);
    return response.json();
  }

  /** {checkpoint, classes: [{name, pictures}], queries} -> {steps: [{probabilities, support_accuracy}], notes} */
  classify(request, { signal } = {}) {
    return this.#inTurn("classify", request, signal);
  }

  /** {checkpoint, points: [[x, y]]} -> {x, steps: [[y]], joint: [[y]]} */
  fit(request, { signal } = {}) {
    return this.#inTurn("fit", request, signal);
  }

  async #inTurn(method, request, signal) {
    const before = this.#before;
    const answer = before.then(() => {
      signal?.throwIfAborted(); // what nobody waits for any more does not keep the next one waiting
      return this.#ask(method, request);
    });
    this.#before = answer.catch(() => {});
    const result = await answer;
    signal?.throwIfAborted();
    return result;
  }
}

function askDirectly(base) {
  const core = new Core(base);
  return (method, request) => core[method](request);
}

/** Asks a worker, so that the page stays responsive while it computes. */
function askWorker(base) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  let stopped = null, fail = () => {};
  worker.onerror = () => {
    stopped = new Error("The part of the page that computes cannot run: load the page again.");
    fail(stopped);
  };
  worker.postMessage({ base });
  return (method, request) => new Promise((resolve, reject) => {
    fail = reject;
    if (stopped) fail(stopped);
    worker.onmessage = ({ data: { result, error } }) =>
      error === undefined ? resolve(result) : reject(new Error(error));
    worker.postMessage({ method, request });
  });
}
