// Runs one job for test_engine.py: JSON from standard input to standard output.

import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";

const job = JSON.parse(await text(process.stdin));
const module = (name) => import(new URL(name, job.engine));

const batch = ({ data, shape: [rows, height, width, channels] }) =>
  ({ data: Float64Array.from(data), rows, height, width, channels });
const lists = (steps) => steps.map((rows) => rows.map((row) => [...row]));

const jobs = {
  /** Outputs of a learner for support set and queries after every step. */
  async adapt({ checkpoint, support, targets, classes, queries }) {
    const { readSafetensors } = await module("safetensors.js");
    const { Learner } = await module("learner.js");
    const { buffer } = Uint8Array.from(await readFile(checkpoint));
    const learner = new Learner(readSafetensors(buffer));
    const adapted = classes === null
      ? learner.adaptToValues(batch(support), targets) : learner.adaptToClasses(batch(support), targets, classes);
    const answer = { support: lists(adapted.supportSteps()), queries: lists(adapted.querySteps(batch(queries))) };
    return { ...answer, head: adapted.head };
  },

  /** The inputs that a network is given for pictures, channels last. */
  async prepare({ pictures }) {
    const { Preprocessing } = await module("preprocessing.js");
    return pictures.map(({ settings, picture }) => {
      const preprocessing = new Preprocessing(settings);
      const given = { ...picture, data: Uint8ClampedArray.from(picture.data) };
      return { data: [...preprocessing.inputs(given).data], reversed: preprocessing.isReversed(given) };
    });
  },

  /** Products left · rightᵀ of matrices, one after another, as WebAssembly makes them. */
  async multiply({ factors }) {
    const { available, multiplyTransposedInSimd } = await module("simd.js");
    if (!available()) throw new Error("this node has no WebAssembly with vectors of 128 bits");
    const flat = (matrix) => Float64Array.from(matrix.flat());
    return factors.map(([left, right]) =>
      [...multiplyTransposedInSimd(flat(left), flat(right), left.length, right.length, left[0].length)]);
  },

  /** The pixels of a drawing. */
  async draw({ strokes }) {
    const { drawLikeOmniglot } = await module("picture.js");
    return [...drawLikeOmniglot(strokes).data];
  },

  /** What an engine answers to some requests, one after another, each [method, request]; an error as {error}. */
  async ask({ base, requests }) {
    const { LocalEngine } = await module("local.js");
    const engine = new LocalEngine(base), answers = [];
    for (const [method, ...request] of requests) {
      answers.push(await engine[method](...request).catch(({ message }) => ({ error: message })));
    }
    return answers;
  },

  /** Two requests that are made at once, the first of which is aborted: names of their errors, and files asked for. */
  async abort({ base, requests: [[first, request], [second, other]] }) {
    const { LocalEngine } = await module("local.js");
    const engine = new LocalEngine(base), abort = new AbortController(), ask = globalThis.fetch, files = [];
    globalThis.fetch = (address) => {
      files.push(address.slice(base.length));
      return ask(address);
    };
    const answers = [engine[first](request, abort), engine[second](other)];
    abort.abort();
    return { errors: (await Promise.allSettled(answers)).map(({ reason }) => reason?.name ?? null), files };
  },
};

process.stdout.write(JSON.stringify(await jobs[job.do](job)));
