// The engine that asks the server of `lightning-meta demo`. engine/local.js has the same methods without a server.

export class ServerEngine {
  /** [{name, kind, title, method, ways, shots, steps, side, channels, accuracy}] */
  checkpoints() {
    return this.#ask("api/checkpoints", {});
  }

  /** {checkpoint, classes: [{name, pictures}], queries} -> {steps: [{probabilities, support_accuracy}], notes} */
  classify(request, { signal } = {}) {
    return this.#post("api/classify", request, signal);
  }

  /** {checkpoint, points: [[x, y]]} -> {x, steps: [[y]], joint: [[y]]} */
  fit(request, { signal } = {}) {
    return this.#post("api/fit", request, signal);
  }

  #post(path, request, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(request), signal });
  }

  async #ask(path, options) {
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is “lightning-meta demo” still running?");
    }
    const answer = await response.json().catch(() => null);
    if (response.ok && answer !== null) return answer;
    const message = answer !== null && typeof answer.error === "string" ? answer.error : null;
    throw new Error(message ?? `The server could not answer (status ${response.status}).`);
  }
}
