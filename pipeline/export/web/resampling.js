// Pillow's bilinear filter, bit for bit: a triangle, widened by the scale when downscaling, in fixed point
// (Pillow's libImaging/Resample.c). Downscaling with a canvas gives different pixels.
"use strict";

/**
 * A decoded image.
 * @typedef {{data: Uint8Array | Uint8ClampedArray, width: number, height: number, channels: number}} Pixels
 *   `data`: [height, width, channels], row by row.
 *
 * A part of an image, its edges in pixels and not always whole.
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box
 */

const WEIGHT_BITS = 32 - 8 - 2;

/**
 * Resize an image, or a part of it, to `width` x `height` pixels.
 * @param {Pixels} image
 * @param {number} width
 * @param {number} height
 * @param {Box} box
 * @returns {Pixels}
 */
function resize(image, width, height, box = { left: 0, top: 0, right: image.width, bottom: image.height }) {
  const passes = [(part) => resizeWidth(part, width, box), (part) => resizeHeight(part, height, box)];
  // The order of the passes matters, because each rounds to integers; this is the order of Pillow 13.
  const heightFirst = image.height > height && image.height - height > 2 * (image.width - width);
  if (heightFirst) passes.reverse();
  return passes.reduce((part, pass) => pass(part), image);
}

function resizeWidth(image, width, { left, right }) {
  if (width === image.width && left === 0 && right === width) return image;
  const columns = weightsOf(image.width, left, right, width);
  return { ...image, width, data: weigh(image.data, image.height, image.width, image.channels, columns) };
}

function resizeHeight(image, height, { top, bottom }) {
  if (height === image.height && top === 0 && bottom === height) return image;
  const rows = weightsOf(image.height, top, bottom, height);
  return { ...image, height, data: weigh(image.data, 1, image.height, image.width * image.channels, rows) };
}

/**
 * The filter weights of each output pixel along one axis, and the first input pixel that they apply to.
 * @returns {{first: number, weights: Int32Array}[]} an entry for each of the `wanted` pixels
 */
function weightsOf(length, start, end, wanted) {
  // Pillow stores the edges of a box in single precision.
  const scale = Math.fround(Math.fround(end) - Math.fround(start)) / wanted;
  const reach = Math.max(scale, 1);
  return Array.from({ length: wanted }, (_, index) => {
    const center = Math.fround(start) + (index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - reach + 0.5), 0);
    const last = Math.min(Math.trunc(center + reach + 0.5), length);
    const triangle = Array.from({ length: last - first }, (_, step) =>
      Math.max(1 - Math.abs((first + step - center + 0.5) * (1 / reach)), 0),
    );
    const sum = triangle.reduce((total, weight) => total + weight, 0);
    const weights = triangle.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** WEIGHT_BITS));
    return { first, weights: Int32Array.from(weights) };
  });
}

/** Apply weights to the middle axis of an array [outer, length, inner]; returns [outer, taken.length, inner]. */
function weigh(data, outer, length, inner, taken) {
  const result = new Uint8ClampedArray(outer * taken.length * inner);
  let at = 0;
  for (let line = 0; line < outer; line++) {
    for (const { first, weights } of taken) {
      const start = (line * length + first) * inner;
      for (let place = start; place < start + inner; place++) {
        let sum = 1 << (WEIGHT_BITS - 1);
        for (let step = 0; step < weights.length; step++) sum += data[place + step * inner] * weights[step];
        result[at++] = sum >> WEIGHT_BITS;
      }
    }
  }
  return result;
}
