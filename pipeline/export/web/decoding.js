// From a file to pixels: the browser decodes and turns, and this sees to it that it changes nothing else.
"use strict";

// By content, not by name; the names are those of preprocessing.json.
const STARTS = {
  JPEG: /^\xff\xd8\xff/,
  PNG: /^\x89PNG\r\n\x1a\n/,
  WEBP: /^RIFF[^]{4}WEBP/,
  BMP: /^BM/,
  GIF: /^GIF8[79]a/,
  TIFF: /^(II\*\0|MM\0\*)/,
};

/** A file that has no prediction; its message is for people and fits in a line. */
class ImageFailure extends Error {}

/**
 * Decode a file, turned as its EXIF orientation says.
 * @param {File} file
 * @param {string[]} formats those that the model's preprocessing takes
 * @param {number} maxPixels the largest width times height that is decoded at all
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
    throw new ImageFailure("cannot be read; a folder, perhaps, or a file that has changed");
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
    throw new ImageFailure(`a ${format} file that is damaged, or that this browser cannot show`);
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
    // A canvas keeps colours multiplied by alpha, and 8 bits forget them where alpha is low; 16 bits do not.
    // Browsers without such a canvas ignore both settings and give the 8 bits again.
    const deep = draw({ colorType: "float16" }).getImageData(0, 0, width, height, { pixelFormat: "rgba-float16" });
    if (!(deep.data instanceof Uint8ClampedArray)) data = Uint8Array.from(deep.data, (share) => Math.round(share * 255));
  }
  return { data, width, height, channels: 4 };
}

function isTransparent(data) {
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}
