// The thread in which `LocalEngine` computes: first {base}, then one {method, request} after another.

import { Core } from "./core.js";

let core;

self.onmessage = async ({ data: { base, method, request } }) => {
  if (base !== undefined) {
    core = new Core(base);
    return;
  }
  try {
    self.postMessage({ result: await core[method](request) });
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};
