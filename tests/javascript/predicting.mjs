// Predicts with either build of onnxruntime, like tests/engines/predicting.py with the other engines: in one batch,
// then image by image.
export async function predict(ort, requests) {
  const predictions = {};
  for (const { name, model, shape, pixels } of requests) {
    const session = await ort.InferenceSession.create(model);
    const [images, ...image] = shape;
    const size = pixels.length / images;
    const run = async (first, count) => {
      const data = Uint8Array.from(pixels.slice(first * size, (first + count) * size));
      const tensor = new ort.Tensor("uint8", data, [count, ...image]);
      return rows((await session.run({ image: tensor })).probabilities);
    };
    predictions[name] = await run(0, images);
    for (let index = 0; index < images; index++) predictions[name].push(...(await run(index, 1)));
  }
  return predictions;
}

function rows({ data, dims: [count, classes] }) {
  return Array.from({ length: count }, (_, row) =>
    Array.from(data.subarray(row * classes, (row + 1) * classes)),
  );
}
