// The model in onnxruntime-web. `MODEL` and `RUNTIME` are defined in model.js and runtime.js as base64, because
// a page opened from a disk can load scripts but not fetch files.
"use strict";

/**
 * Load the model.
 * @returns {Promise<(tensor: Uint8Array) => Promise<Float32Array>>} probabilities for a tensor
 *   [height, width, channels], in the order of the class names
 */
async function loadClassifier() {
  const { height, width, channels } = MODEL.preprocessing.input;
  const module = new Blob([bytesOf(RUNTIME.module)], { type: "text/javascript" });
  // More threads would require HTTP headers that neither a disk nor a simple server sends.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(module) };
  ort.env.wasm.wasmBinary = await unzipped(bytesOf(RUNTIME.binary));
  const session = await ort.InferenceSession.create(bytesOf(MODEL.onnx), { executionProviders: ["wasm"] });
  const predict = async (tensor) => {
    const image = new ort.Tensor("uint8", tensor, [1, height, width, channels]);
    const { probabilities } = await session.run({ image });
    return probabilities.data;
  };
  let last = Promise.resolve();
  return (tensor) => {
    // A session runs one prediction at a time.
    last = last.catch(() => {}).then(() => predict(tensor));
    return last;
  };
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
