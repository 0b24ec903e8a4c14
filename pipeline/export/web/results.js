// What the page shows of an answer. Names of classes and files enter as text, never as HTML.
"use strict";

const THUMBNAIL_SIDE = 192;

/** A copy of what a `<template>` of index.html holds. */
function copyOf(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** A probability as people read it. */
function percent(probability) {
  return `${(probability * 100).toFixed(2)}%`;
}

/** The places of the `count` largest probabilities, largest first. */
function largest(probabilities, count) {
  const places = Array.from(probabilities.keys());
  return places.sort((one, other) => probabilities[other] - probabilities[one]).slice(0, count);
}

/**
 * Fill a list with a bar for each of some classes.
 * @param {HTMLOListElement} list keeps the bars it has, so that they move
 * @param {Float32Array} probabilities of all classes
 * @param {number[]} places the classes to show, in their order
 */
function showBars(list, probabilities, places) {
  while (list.children.length < places.length) list.append(copyOf("bar"));
  const [first] = largest(probabilities, 1);
  places.forEach((place, index) => {
    const bar = list.children[index];
    const figure = bar.querySelector("data");
    bar.classList.toggle("first", place === first);
    bar.querySelector(".name").textContent = MODEL.classNames[place];
    bar.querySelector("i").style.width = `${probabilities[place] * 100}%`;
    figure.value = probabilities[place];
    figure.textContent = percent(probabilities[place]);
  });
}

/**
 * Show a tensor as the picture that it is.
 * @param {HTMLCanvasElement} canvas
 * @param {Uint8Array} tensor [height, width, channels]
 */
function showTensor(canvas, tensor) {
  const { width, height, channels } = MODEL.preprocessing.input;
  const picture = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    for (let color = 0; color < 3; color++) picture.data[4 * at + color] = tensor[at * channels + (color % channels)];
    picture.data[4 * at + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** Show an image, no larger than a thumbnail and never enlarged. */
function showThumbnail(canvas, bitmap) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.classList.toggle("small", scale === 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
