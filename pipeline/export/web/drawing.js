// A pad for drawing a digit, and its preprocessing: like MNIST, drawings are scaled to the size of the training
// digits and centred by their centre of mass.
"use strict";

// A fraction of the pad's width. Once scaled with the digit, strokes are about as wide as those of MNIST.
const PEN_WIDTH = 0.09;
const FAINTEST_INK = 32;

/**
 * Make a canvas a drawing pad.
 * @param {HTMLCanvasElement} canvas
 * @param {number} background 0 or 255; the pen uses the other value
 * @param {(isDone: boolean) => void} onChange called while a stroke is drawn, and when it ends
 * @returns {{clear: () => void, ink: () => Pixels}} `ink`: from 0, where nothing was drawn, to 255
 */
function openPad(canvas, background, onChange) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const shade = (level) => `rgb(${level} ${level} ${level})`;
  let previous = null;

  const clear = () => {
    context.fillStyle = shade(background);
    context.fillRect(0, 0, width, height);
  };
  const placeOf = (event) => {
    const shown = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - shown.left) / shown.width) * width,
      y: ((event.clientY - shown.top) / shown.height) * height,
    };
  };
  // Quadratic curves between the midpoints of successive pointer positions, which are the control points.
  const drawTo = (point) => {
    const middle = { x: (previous.point.x + point.x) / 2, y: (previous.point.y + point.y) / 2 };
    context.beginPath();
    context.moveTo(previous.middle.x, previous.middle.y);
    context.quadraticCurveTo(previous.point.x, previous.point.y, middle.x, middle.y);
    context.stroke();
    previous = { point, middle };
  };
  const start = (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    canvas.setPointerCapture(event.pointerId);
    const point = placeOf(event);
    previous = { point, middle: point };
    drawTo(point);
    onChange(false);
  };
  const move = (event) => {
    if (previous === null || !event.isPrimary) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) drawTo(placeOf(each));
    onChange(false);
  };
  const end = (event) => {
    if (previous === null || !event.isPrimary) return;
    drawTo(previous.point);
    previous = null;
    onChange(true);
  };
  canvas.addEventListener("pointerdown", start);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);

  context.lineCap = context.lineJoin = "round";
  context.lineWidth = PEN_WIDTH * width;
  context.strokeStyle = shade(255 - background);
  clear();
  return {
    clear,
    ink: () => {
      const { data } = context.getImageData(0, 0, width, height);
      const ink = Uint8Array.from({ length: width * height }, (_, at) => Math.abs(data[4 * at] - background));
      return { data: ink, width, height, channels: 1 };
    },
  };
}

/**
 * Convert a drawing to the model's input tensor.
 * @param {Pixels} ink
 * @param {{width: number, height: number}} size the tensor's size
 * @param {{background: number, extent: number}} style the background of the model's own images, and the fraction of
 *   the width or height that a digit fills
 * @returns {Uint8Array | null} [height, width, 1]; null where nothing was drawn
 */
function tensorOfDrawing(ink, { width, height }, { background, extent }) {
  const box = boundsOf(ink);
  if (box === null) return null;
  const [drawnWidth, drawnHeight] = [box.right - box.left, box.bottom - box.top];
  const scale = Math.min((extent * width) / drawnWidth, (extent * height) / drawnHeight);
  const digit = resize(ink, Math.max(1, Math.round(drawnWidth * scale)), Math.max(1, Math.round(drawnHeight * scale)), box);
  const center = centerOfMass(digit);
  const left = clamp(Math.round(width / 2 - center.x), 0, width - digit.width);
  const top = clamp(Math.round(height / 2 - center.y), 0, height - digit.height);
  const tensor = new Uint8Array(width * height).fill(background);
  digit.data.forEach((level, at) => {
    const [row, column] = [Math.floor(at / digit.width), at % digit.width];
    tensor[(top + row) * width + left + column] = Math.abs(background - level);
  });
  return tensor;
}

function boundsOf({ data, width, height }) {
  const box = { left: width, top: height, right: 0, bottom: 0 };
  data.forEach((level, at) => {
    if (level < FAINTEST_INK) return;
    const [row, column] = [Math.floor(at / width), at % width];
    box.left = Math.min(box.left, column);
    box.top = Math.min(box.top, row);
    box.right = Math.max(box.right, column + 1);
    box.bottom = Math.max(box.bottom, row + 1);
  });
  return box.right === 0 ? null : box;
}

function centerOfMass({ data, width }) {
  let [sum, x, y] = [0, 0, 0];
  data.forEach((level, at) => {
    sum += level;
    x += level * ((at % width) + 0.5);
    y += level * (Math.floor(at / width) + 0.5);
  });
  return { x: x / sum, y: y / sum };
}

function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
