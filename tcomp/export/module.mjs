// @name@: a model compiled by tcomp @version@. For browsers and Node.js; needs @file@ beside it, or as `source`.

const INPUTS = @inputs@;
const OUTPUTS = @outputs@;
const ARRAYS = {
  bool: Uint8Array, uint8: Uint8Array, int8: Int8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, float16: Uint16Array, bfloat16: Uint16Array, float32: Float32Array, float64: Float64Array,
};
const ERRORS = { 2: "out of memory", 4: "an index in an input is out of range" };

/** Names, shapes and dtypes. float16 and bfloat16 are arrays of their bits (Uint16Array). */
export const inputs = INPUTS, outputs = OUTPUTS;

/** Loads the model. source: a URL, a Response, bytes or a WebAssembly.Module; by default the file beside this one. */
export async function load(source = new URL("./@file@", import.meta.url)) {
  const { exports } = await instantiate(source);
  succeed(exports.init());

  const view = (spec, i) => new ARRAYS[spec.dtype](exports.memory.buffer, exports.address(i), size(spec));

  /** Runs the model: {name: typed array} for each input; returns the same of the results, in arrays of their own. */
  function run(given) {
    const unknown = Object.keys(given).find((name) => !INPUTS.some((spec) => spec.name === name));
    if (unknown !== undefined) throw new TypeError(`no input ${unknown}; there are ${INPUTS.map((s) => s.name).join(", ")}`);
    INPUTS.forEach((spec, i) => {
      const array = given[spec.name], kind = ARRAYS[spec.dtype];
      if (!(array instanceof kind) || array.length !== size(spec))
        throw new TypeError(`input ${spec.name} must be a ${kind.name} of ${size(spec)} elements, shape [${spec.shape.join(", ")}]`);
      view(spec, i).set(array);
    });
    succeed(exports.run());
    return Object.fromEntries(OUTPUTS.map((spec, i) => [spec.name, view(spec, INPUTS.length + i).slice()]));
  }

  /** Runs the example stored at export; the relative difference of its results. Throws if that is more than rounding explains. */
  function selftest() {
    const error = exports.selftest();
    if (error < 0) throw new Error("the results differ from those stored at export");
    return error;
  }

  return { run, selftest, inputs: INPUTS, outputs: OUTPUTS };
}

async function instantiate(source) {
  if (source instanceof WebAssembly.Module) return WebAssembly.instantiate(source, {});
  if (typeof source === "string" || source instanceof URL) {
    const url = new URL(source, import.meta.url);
    if (url.protocol === "file:") source = await (await import("node:fs/promises")).readFile(url);
    else source = await fetch(url);
  }
  if (typeof Response !== "undefined" && source instanceof Response) {
    if (!source.ok) throw new Error(`cannot load ${source.url}: ${source.status}`);
    source = await source.arrayBuffer();
  }
  return (await WebAssembly.instantiate(source, {})).instance;
}

function size(spec) {
  return spec.shape.reduce((a, b) => a * b, 1);
}

function succeed(code) {
  if (code) throw new Error(ERRORS[code] ?? `error ${code}`);
}
