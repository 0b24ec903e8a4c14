// The model in onnxruntime-web. `MODEL` and `RUNTIME` come from model.js and runtime.js: a page that is opened
// from a disk may not fetch files, but it may load scripts, so the model and the runtime lie in some as base64.
"use strict";

/**
 * Load the model.
 * @returns {Promise<(tensor: Uint8Array) => Promise<Float32Array>>} probabilities for a tensor
 *   [height, width, channels], in the order of the class names
 */
async function loadClassifier() {
  const { height, width, channels } = MODEL.preprocessing.input;
  const module = new Blob([bytesOf(RUNTIME.module)], { type: "text/javascript" });
  // More threads would need headers that a disk or a plain server does not send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(module) };
  ort.env.wasm.wasmBinary = await unzipped(bytesOf(RUNTIME.binary));
  const session = await ort.InferenceSession.create(bytesOf(MODEL.onnx), { executionProviders: ["wasm"] });
  const answer = async (tensor) => {
    const image = new ort.Tensor("uint8", tensor, [1, height, width, channels]);
    const { probabilities } = await session.run({ image });
    return probabilities.data;
  };
  let last = Promise.resolve();
  return (tensor) => {
    // A session answers one question at a time.
    last = last.catch(() => {}).then(() => answer(tensor));
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
