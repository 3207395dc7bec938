// The page: an image is chosen, sent to the server, and its classes are shown. A failed request leaves the result before
// it in place.

import { fetchClasses, Problem, segment } from "./api.js";
import { listenForDownloads } from "./downloads.js";
import { listenForImages } from "./image_input.js";
import { displayName, Legend, percent } from "./legend.js";
import { readPng } from "./png_reader.js";
import { ProblemCard } from "./problem_card.js";
import { showTiming } from "./timing.js";
import { Viewer } from "./viewer.js";

const find = (selector) => document.querySelector(selector);
const [welcome, result, status, opacity] = ["#welcome", "#result", "#status", "#opacity"].map(find);
const switches = { tile: find("#tile"), confidence: find("#confidence") }; // by query parameter of POST /segment

const problemCard = new ProblemCard(find("#problem"));
const legend = new Legend(find("#legend"), find("#absent"), paint);
const viewer = new Viewer(find("#viewer"), (id, source) => {
  legend.highlight(id);
  if (id !== null && source === "keys") status.textContent = displayName(model.classes[id].name);
});

let model = { name: null, version: null, classes: [] }; // of the latest response
let chosenOpacity = opacity.value; // kept while an image that the browser cannot display is shown at 100 %
let pending = null; // {image, name, options, url, abort}: the request under way
let current = null; // the result shown: the same, with {body, elapsedMs, pngs, view}

/** Segment an image and show it. A request under way is aborted. */
async function run(image, name) {
  pending?.abort.abort();
  release(pending);
  const url = image === current?.image ? current.url : URL.createObjectURL(image);
  const request = (pending = { image, name, url, options: chosenOptions(), abort: new AbortController() });
  problemCard.hide();
  welcome.hidden = true;
  result.hidden = false;
  result.setAttribute("aria-busy", "true");
  status.textContent = `Segmenting ${name} …`;
  try {
    const finished = await complete(request);
    if (pending === request) present(finished);
  } catch (error) {
    if (pending === request) fail(error, request);
  }
}

/** Send a request and decode its response. */
async function complete(request) {
  const { image, url, options, abort } = request;
  const [displayable, response] = await Promise.all([viewer.preview(url), segment(image, options, abort.signal)]);
  const { body } = response;
  const pngs = { mask: fromBase64(body.mask), confidence: body.confidence && fromBase64(body.confidence) };
  const confidence = pngs.confidence ? (await readPng(pngs.confidence)).values : null;
  const view = { url, displayable, map: await readPng(pngs.mask), confidence, classes: await classesFor(body) };
  return { ...request, ...response, pngs, view };
}

/** The classes of the model that sent `body`. They are fetched again after the server has changed its model. */
async function classesFor(body) {
  if (body.model !== model.name || body.version !== model.version) await loadModel();
  return model.classes;
}

async function loadModel() {
  const { model: name, version, classes } = await fetchClasses();
  model = { name, version, classes };
  find("#model").textContent = `${name} ${version} · ${classes.length} classes`;
}

function present(finished) {
  const previous = current;
  [current, pending] = [finished, null];
  if (previous?.url !== current.url) release(previous);
  const { body, elapsedMs } = current;
  legend.show(body.classes, current.view.classes);
  showTiming(find("#timing"), body.timing_ms, elapsedMs, body.tiles);
  find("#save-confidence").hidden = !current.view.confidence;
  showView();
  if (document.activeElement === document.body) find("#viewer").focus({ preventScroll: true }); // its button was hidden
  const largest = [...body.classes].sort((a, b) => b.fraction - a.fraction).slice(0, 3);
  const shares = largest.map((entry) => `${displayName(entry.name)}, ${percent(entry.fraction)}`);
  status.textContent = `Done. Largest classes: ${shares.join("; ")}.`;
}

/** Report an error, and show the result from before the failed request again. */
function fail(error, request) {
  pending = null;
  release(request);
  if (current) {
    for (const [name, box] of Object.entries(switches)) box.checked = name in current.options;
    showView();
  }
  result.hidden = !current;
  welcome.hidden = Boolean(current);
  status.textContent = "";
  problemCard.show(error, () => (request ? run(request.image, request.name) : runDemo()), Boolean(current));
}

/** Draw the current result, whatever the viewer showed before. */
function showView() {
  const { view, name } = current;
  viewer.show(view);
  const note = find("#unsupported");
  note.hidden = view.displayable;
  note.textContent = `This browser cannot display ${name}, so only the class map is shown. All downloads work.`;
  setOpacity(view.displayable ? chosenOpacity : 100);
  paint();
  result.removeAttribute("aria-busy");
}

function paint() {
  viewer.paint((id) => legend.isVisible(id));
}

function setOpacity(percentage) {
  opacity.value = percentage;
  opacity.nextElementSibling.textContent = `${percentage} %`;
  viewer.opacity = percentage / 100;
}

/** {tile: true, confidence: true}, of these the ones that are switched on. */
function chosenOptions() {
  return Object.fromEntries(Object.entries(switches).filter(([, box]) => box.checked).map(([name]) => [name, true]));
}

/** Free an image's memory, unless the current result still shows it. */
function release(request) {
  if (request && request.url !== current?.url) URL.revokeObjectURL(request.url);
}

async function runDemo() {
  const response = await fetch("page/scene.jpg").catch(() => null);
  if (response?.ok) await run(await response.blob(), "scene.jpg");
  else fail(new Problem({ title: "The demo image did not load", detail: "The server may be restarting. Try again." }), null);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

listenForImages((file) => run(file, file.name || "pasted.png"));
listenForDownloads(() => current, viewer, (error, retry) => problemCard.show(error, retry, true));
for (const button of document.querySelectorAll("[data-demo]")) button.addEventListener("click", runDemo);
for (const box of Object.values(switches)) {
  box.addEventListener("change", () => {
    const { image, name } = pending ?? current;
    run(image, name);
  });
}
opacity.addEventListener("input", () => setOpacity((chosenOpacity = opacity.value)));
find("#show-all").addEventListener("click", () => legend.setAll(true));
find("#show-none").addEventListener("click", () => legend.setAll(false));
loadModel().catch(() => {}); // fetched again with the first response
