// Reads the file format safetensors: eight bytes of length, a header in JSON, and the tensors' bytes.

const ARRAYS = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array, I32: Int32Array, BF16: Uint16Array };

/**
 * The tensors of a checkpoint in double precision, and what its header says of it.
 *
 * @param {ArrayBuffer} file
 * @returns {{description: object, tensors: Object<string, {shape: number[], data: Float64Array}>}}
 */
export function readSafetensors(file) {
  const start = 8 + Number(new DataView(file).getBigUint64(0, true));
  const header = new TextDecoder().decode(new Uint8Array(file, 8, start - 8));
  const { __metadata__: metadata, ...entries } = JSON.parse(header);
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    if (!(dtype in ARRAYS)) throw new Error(`The checkpoint holds ${name} as ${dtype}, which the page cannot read.`);
    // A copy, since tensors need not begin where their element size allows a view.
    let values = new ARRAYS[dtype](file.slice(start + from, start + to));
    // The upper halves of numbers in single precision.
    if (dtype === "BF16") values = new Float32Array(Uint32Array.from(values, (half) => half << 16).buffer);
    tensors[name] = { shape, data: Float64Array.from(values, Number) };
  }
  if (!metadata?.lightning_meta) throw new Error("The checkpoint does not say which learner it holds.");
  return { description: JSON.parse(metadata.lightning_meta), tensors };
}
