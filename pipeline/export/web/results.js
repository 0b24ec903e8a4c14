// Displaying predictions. Class and file names are inserted as text, never as HTML.
"use strict";

const THUMBNAIL_SIDE = 192;

/** A copy of the content of a `<template>` in index.html. */
function copyOf(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

/** A probability as a percentage. */
function percent(probability) {
  return `${(probability * 100).toFixed(2)}%`;
}

/** The indices of the `count` largest probabilities, largest first. */
function largest(probabilities, count) {
  const places = Array.from(probabilities.keys());
  return places.sort((one, other) => probabilities[other] - probabilities[one]).slice(0, count);
}

/**
 * Show the top-1 class in an element's `.verdict`, and a bar for each of the given classes in its `.bars`.
 * @param {HTMLElement} place existing bars are updated, so that they animate
 * @param {Float32Array} probabilities of all classes
 * @param {number[]} classes the classes to show, in this order
 * @returns {string} the top-1 class and its probability
 */
function showPrediction(place, probabilities, classes) {
  const bars = place.querySelector(".bars");
  while (bars.children.length < classes.length) bars.append(copyOf("bar"));
  const [first] = largest(probabilities, 1);
  classes.forEach((index, row) => {
    const bar = bars.children[row];
    const figure = bar.querySelector("data");
    bar.classList.toggle("first", index === first);
    bar.querySelector(".name").textContent = MODEL.classNames[index];
    bar.querySelector("i").style.width = `${probabilities[index] * 100}%`;
    figure.value = probabilities[index];
    figure.textContent = percent(probabilities[index]);
  });
  place.querySelector(".verdict strong").textContent = MODEL.classNames[first];
  place.querySelector(".verdict span").textContent = percent(probabilities[first]);
  return `${MODEL.classNames[first]}, ${percent(probabilities[first])}`;
}

/**
 * Draw a tensor as an image.
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

/** Show an image, downscaled to a thumbnail but never enlarged. */
function showThumbnail(canvas, bitmap) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.classList.toggle("small", scale === 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
