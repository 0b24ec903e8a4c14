// Pillow's bilinear filter to the last bit: a triangle, widened by the scale when it shrinks, in fixed point
// (libImaging/Resample.c of Pillow). A canvas that draws an image smaller gives other pixels.
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
 * Make an image, or a part of it, `width` x `height` pixels large.
 * @param {Pixels} image
 * @param {number} width
 * @param {number} height
 * @param {Box} box
 * @returns {Pixels}
 */
function resize(image, width, height, box = { left: 0, top: 0, right: image.width, bottom: image.height }) {
  const { channels } = image;
  let { data } = image;
  if (width !== image.width || box.left !== 0 || box.right !== width) {
    const columns = weightsOf(image.width, box.left, box.right, width);
    data = weigh(data, image.height, image.width, channels, columns);
  }
  if (height !== image.height || box.top !== 0 || box.bottom !== height) {
    const rows = weightsOf(image.height, box.top, box.bottom, height);
    data = weigh(data, 1, image.height, width * channels, rows);
  }
  return { data, width, height, channels };
}

/**
 * What each pixel of the result takes from which pixels of a line.
 * @returns {{first: number, weights: Int32Array}[]} one for each of the `wanted` pixels
 */
function weightsOf(length, start, end, wanted) {
  // Pillow holds the edges of a box in single precision.
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

/** Weigh the middle axis of an array [outer, length, inner]; it comes back as [outer, taken.length, inner]. */
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
