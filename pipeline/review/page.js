"use strict";
// The review page: one image at a time, a key for every answer, and the answers kept in this browser.

const DATA = JSON.parse(document.getElementById("data").textContent);
const KEY = `pixelmill-review:${DATA.key}`;
const AHEAD = 3;
const element = (id) => document.getElementById(id);
const state = { answers: {}, history: [], at: 0, who: "" };
const pictures = new Map();
const keysOfClasses = assignKeys(DATA.classes);
let found = 0;

/** The keys 1 to 9 and 0: a class whose name is one digit has that key, the others the rest in order. */
function assignKeys(classes) {
  const keys = [..."1234567890"];
  const taken = new Map(classes.flatMap(({ name }, at) => (keys.includes(name) ? [[name, at]] : [])));
  const free = keys.filter((key) => !taken.has(key));
  classes.forEach(({ name }, at) => {
    if (!taken.has(name) && free.length) taken.set(free.shift(), at);
  });
  return taken;
}

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function restore() {
  try {
    Object.assign(state, JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    state.at = Math.min(Math.max(state.at, 0), DATA.images.length - 1);
  } catch {
    tell("This browser keeps no progress for this page: save corrections.csv before you close it.");
  }
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    tell("This browser keeps no progress for this page: save corrections.csv before you close it.");
  }
}

function tell(words) {
  element("trouble").textContent = words;
  element("trouble").hidden = false;
}

/** The element of a full-size picture, which loads from the first call on. */
function pictureOf(at) {
  if (!pictures.has(at)) {
    const { image, width, height, shown } = DATA.images[at];
    const picture = make("img", { src: image, alt: shown, decoding: "async" });
    picture.classList.toggle("small", Math.max(width, height) <= 64);
    picture.addEventListener("error", () => tell(`${image} is missing: keep its folder beside the page.`));
    pictures.set(at, picture);
  }
  return pictures.get(at);
}

function loadAround(at) {
  for (const other of [...pictures.keys()]) {
    if (Math.abs(other - at) > AHEAD) pictures.delete(other);
  }
  for (let next = at + 1; next <= Math.min(at + AHEAD, DATA.images.length - 1); next += 1) pictureOf(next);
}

function show(at) {
  const { history, answers } = state;
  state.at = Math.min(Math.max(at, 0), DATA.images.length - 1);
  const image = DATA.images[state.at];
  const stage = element("stage");
  stage.classList.remove("actual");
  // The thumbnail is there at once, and stays below the picture until that is complete.
  const under = make("img", { src: image.thumbnail, alt: "", className: "under" });
  under.classList.toggle("small", Math.max(image.width, image.height) <= 64);
  const picture = pictureOf(state.at);
  stage.replaceChildren(under, picture);
  picture.decode().then(() => under.remove(), () => {});
  element("path").textContent = `${image.shown} · ${image.width} × ${image.height}`;
  element("prediction").replaceChildren(
    make("b", { className: "name", textContent: DATA.classes[image.class].shown }),
    make("span", { textContent: ` with ${image.probability.toFixed(3)}` }),
  );
  element("reasons").replaceChildren(
    ...image.reasons.map(({ title, words }) =>
      make("li", {}, make("b", { textContent: title }), make("span", { textContent: ` ${words}` }))),
  );
  element("undo").disabled = !history.length;
  element("find").value = "";
  listClasses();
  mark(answers);
  loadAround(state.at);
  keep();
}

function matching() {
  const wanted = element("find").value.trim().toLowerCase();
  const rank = (name) => (name === wanted ? 0 : name.startsWith(wanted) ? 1 : name.includes(wanted) ? 2 : 3);
  return DATA.classes
    .map((one, at) => ({ ...one, at, rank: wanted ? rank(one.name.toLowerCase()) : 0 }))
    .filter(({ rank: place }) => place < 3)
    .sort((one, other) => one.rank - other.rank || one.at - other.at);
}

function listClasses() {
  const image = DATA.images[state.at];
  const answer = state.answers[image.sha256];
  const keys = new Map([...keysOfClasses].map(([key, at]) => [at, key]));
  const searches = element("find").value.trim() !== "";
  const list = matching();
  found = Math.min(found, Math.max(list.length - 1, 0));
  element("classes").replaceChildren(
    ...list.map(({ at, shown }, place) => {
      const notes = { [image.second]: "second", [image.class]: "predicted" };
      const button = make("button", { type: "button" },
        keys.has(at) ? make("kbd", { textContent: keys.get(at) }) : make("span", {}),
        make("span", { className: "name", textContent: shown }),
        make("small", { textContent: notes[at] ?? "" }));
      button.classList.toggle("chosen", answer?.label === at);
      button.classList.toggle("found", searches && place === found);
      button.addEventListener("click", () => answerWith({ label: at }));
      return make("li", {}, button);
    }),
  );
  if (!list.length) {
    element("classes").append(make("li", { className: "empty", textContent: "No class has this in its name." }));
  }
  element("classes").querySelector(".found, .chosen")?.scrollIntoView({ block: "nearest" });
}

const kindOf = (answer) =>
  !answer ? "" : answer.skipped ? "skipped" : answer.excluded ? "excluded" : "labelled";

/** Update the strip and the counts. */
function mark(answers) {
  const cells = element("strip").children;
  const current = element("strip").querySelector("[aria-current]");
  current?.removeAttribute("aria-current");
  for (const at of new Set([Number(current?.dataset.at ?? state.at), state.at])) {
    cells[at].className = kindOf(answers[DATA.images[at].sha256]);
  }
  cells[state.at].setAttribute("aria-current", "true");
  cells[state.at].scrollIntoView({ block: "nearest", inline: "nearest" });
  const kinds = Object.values(answers).map(kindOf);
  const skipped = kinds.filter((kind) => kind === "skipped").length;
  const total = DATA.images.length;
  element("progress").textContent =
    `${kinds.length - skipped} of ${total} answered, ${skipped} skipped · image ${state.at + 1}`;
  element("bar").style.width = `${(100 * kinds.length) / total}%`;
  element("export").disabled = kinds.length === skipped;
}

function answerWith(answer) {
  const { sha256 } = DATA.images[state.at];
  state.history.push([state.at, state.answers[sha256] ?? null]);
  state.answers[sha256] = { ...answer, when: new Date().toISOString().replace(/\.\d+Z$/, "Z") };
  element("strip").children[state.at].className = kindOf(state.answers[sha256]);
  element("find").blur();
  show(state.at + 1);
}

function undo() {
  const last = state.history.pop();
  if (!last) return;
  const [at, before] = last;
  if (before) state.answers[DATA.images[at].sha256] = before;
  else delete state.answers[DATA.images[at].sha256];
  element("strip").children[at].className = kindOf(before);
  show(at);
}

/** The rows for `dataset.corrections`; a skipped image has none. */
function corrections() {
  const cell = (text) => (/[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = DATA.images.flatMap(({ sha256, path }) => {
    const answer = state.answers[sha256];
    if (!answer || answer.skipped) return [];
    const label = answer.excluded ? DATA.exclude : DATA.classes[answer.label].name;
    // A spreadsheet would run a path that begins like a formula.
    const safe = /^[=+\-@\t\r]/.test(path) ? `./${path}` : path;
    const who = state.who.replace(/^[=+\-@\t\r]+/, "");
    return [[sha256, safe, label, who, answer.when].map(cell).join(",")];
  });
  return ["sha256,path,label,who,when", ...rows, ""].join("\n");
}

function save() {
  const link = make("a", {
    href: URL.createObjectURL(new Blob([corrections()], { type: "text/csv" })),
    download: DATA.corrections,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const ACTIONS = {
  accept: () => answerWith({ label: DATA.images[state.at].class }),
  skip: () => answerWith({ skipped: true }),
  exclude: () => answerWith({ excluded: true }),
  undo,
  back: () => show(state.at - 1),
  next: () => show(state.at + 1),
  export: save,
};
const KEYS = {
  Enter: ACTIONS.accept,
  " ": ACTIONS.skip,
  Delete: ACTIONS.exclude,
  Backspace: undo,
  ArrowLeft: ACTIONS.back,
  ArrowRight: ACTIONS.next,
  "/": () => element("find").focus(),
  "+": () => element("stage").classList.add("actual"),
  "-": () => element("stage").classList.remove("actual"),
};

function onKey(event) {
  if (event.target === element("who")) {
    if (event.key === "Enter" || event.key === "Escape") event.target.blur();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key === "z") {
    event.preventDefault();
    undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === element("find") && onFindKey(event)) return;
  // A button that was reached with Tab is pressed as everywhere else.
  if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
  if (keysOfClasses.has(event.key)) {
    event.preventDefault();
    answerWith({ label: keysOfClasses.get(event.key) });
  } else if (event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key]();
  } else if (event.key.length === 1) {
    found = 0;
    element("find").focus();
  }
}

/** Keys while a class is searched for; true if the key belongs to the search. */
function onFindKey(event) {
  const input = event.target;
  if (event.key === "Escape") {
    input.value = "";
    input.blur();
    listClasses();
    return true;
  }
  if (input.value === "" && event.key.length > 1) return false;
  const list = matching();
  if (event.key === "Enter") {
    event.preventDefault();
    if (list.length) answerWith({ label: list[found].at });
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    found = Math.min(Math.max(found + (event.key === "ArrowDown" ? 1 : -1), 0), list.length - 1);
    listClasses();
  }
  return true;
}

function start() {
  restore();
  element("strip").append(
    ...DATA.images.map(({ thumbnail, shown, sha256 }, at) => {
      const picture = make("img", { loading: "lazy", decoding: "async", alt: "", src: thumbnail });
      const cell = make("button", { type: "button", title: shown, tabIndex: -1 }, picture, make("i", {}));
      cell.dataset.at = at;
      cell.className = kindOf(state.answers[sha256]);
      cell.addEventListener("click", () => {
        cell.blur();
        show(at);
      });
      return cell;
    }),
  );
  for (const [id, act] of Object.entries(ACTIONS)) {
    element(id).addEventListener("click", (event) => {
      event.currentTarget.blur();
      act();
    });
  }
  element("who").value = state.who;
  element("who").addEventListener("input", (event) => {
    state.who = event.target.value.trim();
    keep();
  });
  element("find").addEventListener("input", () => {
    found = 0;
    listClasses();
  });
  element("stage").addEventListener("click", () => element("stage").classList.toggle("actual"));
  document.addEventListener("keydown", onKey);
  show(state.at);
}

start();
