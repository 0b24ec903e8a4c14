// From a file to pixels: the browser decodes and rotates; the settings here prevent any other change.
"use strict";

// Formats are detected by content; their names are those in preprocessing.json.
const STARTS = {
  JPEG: /^\xff\xd8\xff/,
  PNG: /^\x89PNG\r\n\x1a\n/,
  WEBP: /^RIFF[^]{4}WEBP/,
  BMP: /^BM/,
  GIF: /^GIF8[79]a/,
  TIFF: /^(II\*\0|MM\0\*)/,
};

/** A file that cannot be classified; the one-line message is shown to the user. */
class ImageFailure extends Error {}

/**
 * Decode a file and apply its EXIF orientation.
 * @param {File} file
 * @param {string[]} formats the formats that the model's preprocessing accepts
 * @param {number} maxPixels the largest width times height that is decoded
 * @returns {Promise<{format: string, pixels: Pixels, bitmap: ImageBitmap}>} `pixels` are RGBA, not premultiplied
 * @throws {ImageFailure}
 */
async function decode(file, formats, maxPixels) {
  const format = await formatOf(file, formats);
  const { width, height } = await sizeOf(file, format);
  if (width * height > maxPixels) {
    throw new ImageFailure(`too large: ${width} × ${height} pixels, over the limit of ${maxPixels.toLocaleString()}`);
  }
  try {
    const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
    return { format, pixels: readPixels(bitmap), bitmap };
  } catch {
    throw new ImageFailure(`a damaged ${format} file`);
  }
}

async function formatOf(file, formats) {
  let head;
  try {
    head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  } catch {
    throw new ImageFailure("cannot be read; it may be a folder, or a file that has changed");
  }
  if (head === "") throw new ImageFailure("an empty file");
  const format = formats.find((name) => STARTS[name].test(head));
  if (!format) throw new ImageFailure(`not an image: none of ${formats.join(", ")}`);
  return format;
}

/** Width and height as displayed, from the file's header alone. */
async function sizeOf(file, format) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
  } catch {
    throw new ImageFailure(`a ${format} file that is damaged, or that this browser does not support`);
  } finally {
    URL.revokeObjectURL(image.src);
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}

function readPixels(bitmap) {
  const { width, height } = bitmap;
  const draw = (settings) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true, ...settings });
    context.globalCompositeOperation = "copy";
    context.drawImage(bitmap, 0, 0);
    return context;
  };
  let { data } = draw({}).getImageData(0, 0, width, height);
  if (isTransparent(data)) {
    // A canvas stores colours multiplied by alpha, which loses precision at low alpha in 8 bits, but not in 16.
    // Browsers without 16-bit canvases ignore both settings and return 8 bits.
    const deep = draw({ colorType: "float16" }).getImageData(0, 0, width, height, { pixelFormat: "rgba-float16" });
    if (!(deep.data instanceof Uint8ClampedArray)) data = Uint8Array.from(deep.data, (share) => Math.round(share * 255));
  }
  return { data, width, height, channels: 4 };
}

function isTransparent(data) {
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}
