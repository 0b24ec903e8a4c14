// Predicts with either build of onnxruntime, like tests/engines/answering.py with the other engines: in one batch,
// then image by image.
export async function answer(ort, questions) {
  const answers = {};
  for (const { name, model, shape, pixels } of questions) {
    const session = await ort.InferenceSession.create(model);
    const [images, ...image] = shape;
    const size = pixels.length / images;
    const ask = async (first, count) => {
      const data = Uint8Array.from(pixels.slice(first * size, (first + count) * size));
      const tensor = new ort.Tensor("uint8", data, [count, ...image]);
      return rows((await session.run({ image: tensor })).probabilities);
    };
    answers[name] = await ask(0, images);
    for (let index = 0; index < images; index++) answers[name].push(...(await ask(index, 1)));
  }
  return answers;
}

function rows({ data, dims: [count, classes] }) {
  return Array.from({ length: count }, (_, row) =>
    Array.from(data.subarray(row * classes, (row + 1) * classes)),
  );
}
