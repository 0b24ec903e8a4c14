// From decoded pixels to the network's input tensor, as described in preprocessing.json.
"use strict";

const RESIZE = { stretch, crop, pad };

/**
 * Convert an image to the input tensor.
 * @param {Pixels} pixels RGBA, not premultiplied, with the EXIF orientation applied
 * @param {string} format the file's format; JPEG images are downscaled as by the decoder
 * @param {object} description the content of preprocessing.json
 * @returns {Uint8Array} [height, width, channels]
 */
function tensorOf(pixels, format, description) {
  const { width, height } = description.input;
  const steps = Object.fromEntries(description.steps.map((step) => [step.step, step]));
  let image = format === "JPEG" ? shrink(pixels, jpegFactor(pixels, width, height)) : pixels;
  image = flatten(image, steps.flatten_transparency.background);
  image = steps.convert.to === "L" ? toGrey(image) : toRgb(image);
  if (image.width !== width || image.height !== height) image = RESIZE[steps.resize.how](image, steps.resize);
  return Uint8Array.from(image.data);
}

function jpegFactor(pixels, width, height) {
  const most = Math.min(Math.floor(pixels.width / width), Math.floor(pixels.height / height));
  return [8, 4, 2].find((factor) => factor <= most) ?? 1;
}

/**
 * The mean of each block of `factor` x `factor` pixels: what libjpeg's reduced inverse transforms compute, apart
 * from rounding and chroma subsampling.
 */
function shrink(image, factor) {
  if (factor === 1) return image;
  const { channels } = image;
  const [width, height] = [Math.ceil(image.width / factor), Math.ceil(image.height / factor)];
  const data = new Uint8ClampedArray(width * height * channels);
  for (let row = 0; row < height; row++) {
    const bottom = Math.min((row + 1) * factor, image.height);
    for (let column = 0; column < width; column++) {
      const right = Math.min((column + 1) * factor, image.width);
      const count = (bottom - row * factor) * (right - column * factor);
      for (let channel = 0; channel < channels; channel++) {
        let sum = count >> 1;
        for (let y = row * factor; y < bottom; y++) {
          for (let x = column * factor; x < right; x++) sum += image.data[(y * image.width + x) * channels + channel];
        }
        data[(row * width + column) * channels + channel] = Math.floor(sum / count);
      }
    }
  }
  return { data, width, height, channels };
}

/** Composite RGBA over an opaque background, rounded as in Pillow's libImaging/AlphaComposite.c. */
function flatten(image, background) {
  const data = Uint8Array.from(image.data);
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    for (let channel = 0; channel < 3; channel++) {
      const blended = 128 * (data[at + channel] * alpha + background[channel] * (255 - alpha) + 128);
      data[at + channel] = (((blended >> 8) + blended) >> 8) >> 7;
    }
  }
  return { ...image, data };
}

function toGrey({ data, width, height }) {
  const grey = new Uint8Array(width * height);
  for (let at = 0; at < grey.length; at++) {
    const [red, green, blue] = [data[4 * at], data[4 * at + 1], data[4 * at + 2]];
    grey[at] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
  }
  return { data: grey, width, height, channels: 1 };
}

function toRgb({ data, width, height }) {
  const colors = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < colors.length; from++) if (from % 4 < 3) colors[to++] = data[from];
  return { data: colors, width, height, channels: 3 };
}

function stretch(image, { width, height }) {
  return resize(image, width, height);
}

function crop(image, { width, height }) {
  const boxWidth = Math.min(image.width, (image.height * width) / height);
  const boxHeight = Math.min(image.height, (image.width * height) / width);
  const [left, top] = [(image.width - boxWidth) / 2, (image.height - boxHeight) / 2];
  return resize(image, width, height, { left, top, right: left + boxWidth, bottom: top + boxHeight });
}

function pad(image, { width, height, padding }) {
  const isWide = image.width * height > image.height * width;
  const whole = isWide
    ? resize(image, width, Math.max(1, roundHalfToEven((image.height / image.width) * width)))
    : resize(image, Math.max(1, roundHalfToEven((image.width / image.height) * height)), height);
  const left = roundHalfToEven((width - whole.width) / 2);
  const top = roundHalfToEven((height - whole.height) / 2);
  const { channels } = image;
  const data = Uint8Array.from({ length: width * height * channels }, (_, at) => padding[at % channels]);
  for (let row = 0; row < whole.height; row++) {
    const line = whole.data.subarray(row * whole.width * channels, (row + 1) * whole.width * channels);
    data.set(line, ((top + row) * width + left) * channels);
  }
  return { data, width, height, channels };
}

function roundHalfToEven(value) {
  const floor = Math.floor(value);
  const above = value - floor;
  return above === 0.5 ? floor + (floor % 2) : Math.round(value);
}
