// The page: the description of the model, and the inputs for files and drawings.
"use strict";

const BARS_SHOWN = 5;
const element = (id) => document.getElementById(id);
const classifier = loadClassifier();
let files = Promise.resolve();

/** Whether most browsers support a format; files of the others are tried as well. */
const isCommon = (format) => format !== "TIFF";

function describeModel() {
  const { width, height, channels } = MODEL.preprocessing.input;
  const pixels = `${width} × ${height} ${channels === 1 ? "greyscale" : "colour"} pixels`;
  document.title = `${MODEL.name}, version ${MODEL.version}`;
  element("name").textContent = MODEL.name;
  element("version").textContent = `version ${MODEL.version}`;
  element("about").textContent = `An image classifier: ${MODEL.classNames.length} classes, from ${pixels}.`;
  element("formats").textContent = MODEL.preprocessing.steps[0].formats.filter(isCommon).join(", ");
  element("runtime").textContent = RUNTIME.version;
  element("sha256").textContent = MODEL.sha256;
}

function announce(words) {
  element("status").textContent = words;
}

async function classifyFile(file, card) {
  const { formats } = MODEL.preprocessing.steps[0];
  try {
    const { format, pixels, bitmap } = await decode(file, formats, MODEL.maxPixels);
    showThumbnail(card.querySelector(".original"), bitmap);
    bitmap.close();
    const tensor = tensorOf(pixels, format, MODEL.preprocessing);
    showTensor(card.querySelector(".tensor"), tensor);
    const probabilities = await (await classifier)(tensor);
    card.querySelector(".size").textContent = `${pixels.width} × ${pixels.height}`;
    card.querySelector(".prediction").hidden = false;
    return showPrediction(card, probabilities, largest(probabilities, BARS_SHOWN));
  } catch (error) {
    const words = error instanceof ImageFailure ? error.message : `cannot be classified here (${error.message})`;
    card.classList.add("failed");
    card.querySelector(".trouble").textContent = words;
    return words;
  } finally {
    card.removeAttribute("aria-busy");
  }
}

/** Queue files, which are classified one after another. */
function addFiles(list) {
  const chosen = Array.from(list);
  if (chosen.length === 0) return;
  const cards = chosen.map((file) => {
    const card = copyOf("result");
    card.querySelector(".file").textContent = file.name;
    return card;
  });
  element("results").prepend(...cards);
  element("images").classList.add("has-results");
  files = files.then(async () => {
    for (const [index, file] of chosen.entries()) {
      const prediction = await classifyFile(file, cards[index]);
      announce(`${chosen.length > 1 ? `${index + 1} of ${chosen.length}: ` : ""}${file.name}: ${prediction}`);
    }
  });
}

function takeFiles() {
  const input = element("files");
  input.addEventListener("change", () => {
    addFiles(input.files);
    input.value = ""; // This allows choosing the same file again.
  });
  element("clear-results").addEventListener("click", () => {
    element("results").replaceChildren();
    element("images").classList.remove("has-results");
    announce("Results cleared");
    input.focus();
  });
  document.addEventListener("paste", (event) => addFiles(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    addFiles(event.dataTransfer.files);
  });
}

function takeDrawings() {
  const { input } = MODEL.preprocessing;
  const section = element("drawing");
  const seen = section.querySelector(".tensor");
  const classes = Array.from(MODEL.classNames.keys());
  let frame = 0;
  let drawings = 0;

  const show = async (isDone) => {
    cancelAnimationFrame(frame);
    frame = 0;
    const drawing = ++drawings;
    const tensor = tensorOfDrawing(canvas.ink(), input, MODEL.drawing);
    section.classList.toggle("empty", tensor === null);
    showTensor(seen, tensor ?? new Uint8Array(input.width * input.height).fill(MODEL.drawing.background));
    const probabilities = tensor ? await (await classifier)(tensor) : new Float32Array(classes.length);
    if (drawing !== drawings) return; // The drawing has changed since.
    const prediction = showPrediction(section, probabilities, classes);
    if (isDone) announce(`Drawing: ${prediction}`);
  };
  const canvas = openPad(element("canvas"), MODEL.drawing.background, (isDone) => {
    if (isDone) show(true);
    else frame ||= requestAnimationFrame(() => show(false));
  });
  element("clear-drawing").addEventListener("click", () => {
    canvas.clear();
    show(false);
    announce("Drawing cleared");
  });
  section.hidden = false;
  show(false);
}

describeModel();
takeFiles();
if (MODEL.drawing) takeDrawings();
classifier.then(
  () => document.body.classList.remove("loading"),
  (error) => {
    element("no-model").textContent = `The model cannot be loaded in this browser: ${error.message}`;
    element("no-model").hidden = false;
  },
);
