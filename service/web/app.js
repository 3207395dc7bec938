// The page: takes a picture by any road, asks the server, shows what it said.

import { fetchClasses, Problem, segment } from "./api.js";
import { Legend, percent, readable } from "./legend.js";
import { idsOf } from "./mask_png.js";
import { Stage } from "./stage.js";
import { showTiming } from "./timing.js";

const find = (selector) => document.querySelector(selector);
const [welcome, problem, result, status, opacity] = ["#welcome", "#problem", "#result", "#status", "#opacity"].map(find);

const legend = new Legend(find("#legend"), find("#absent"), () => stage.paint((id) => legend.visible(id)));
const stage = new Stage(find("#stage"), (id, by) => {
  legend.point(id);
  if (id !== null && by === "keys") status.textContent = readable(known[id].name);
});

let model = { name: null, version: null }; // the one that answers
let known = []; // every class of it, by id
let chosenOpacity = opacity.value; // a picture that can't be shown has another, for as long as it is there
let current = null; // {name, picture, url, abort, mask}: the picture that is shown or asked about

/** Segment a picture and show it. The one before, if it is still on its way, is given up. */
async function run(picture, name) {
  current?.abort.abort();
  if (current) URL.revokeObjectURL(current.url);
  const mine = (current = { name, picture, url: URL.createObjectURL(picture), abort: new AbortController() });
  show(result);
  result.setAttribute("aria-busy", "true");
  status.textContent = `Segmenting ${name} …`;
  try {
    const [shown, answer] = await Promise.all([stage.open(mine.url), segment(picture, mine.abort.signal)]);
    await learn(answer);
    mine.mask = Uint8Array.from(atob(answer.mask), (character) => character.charCodeAt(0));
    const map = await idsOf(mine.mask);
    if (mine === current) present(answer, map, shown);
  } catch (error) {
    if (mine === current && error.name !== "AbortError") explain(error);
  }
}

/** The model's name and classes; asked for anew when another model has answered than the one that we know. */
async function learn(answer) {
  if (answer && answer.model === model.name && answer.version === model.version) return;
  const told = await fetchClasses();
  model = { name: told.model, version: told.version };
  known = told.classes;
  find("#model").textContent = `${model.name} ${model.version} · ${known.length} classes`;
}

function present(answer, map, shown) {
  stage.lay(map, known);
  legend.show(answer.classes, known);
  setOpacity(shown ? chosenOpacity : 100);
  stage.paint((id) => legend.visible(id));
  showTiming(find("#timing"), answer.timing_ms);
  result.removeAttribute("aria-busy");
  if (document.activeElement === document.body) find("#stage").focus({ preventScroll: true }); // the button is gone
  const top = [...answer.classes].sort((a, b) => b.fraction - a.fraction).slice(0, 3);
  status.textContent = `Done. Most of it is ${top.map((c) => `${readable(c.name)}, ${percent(c.fraction)}`).join("; ")}.`;
}

function explain(error) {
  const told = error instanceof Problem ? error : new Problem({ title: "The page failed", detail: String(error) });
  problem.querySelector("h2").textContent = told.title;
  problem.querySelector(".detail").textContent = told.detail.charAt(0).toUpperCase() + told.detail.slice(1);
  problem.querySelector(".reference").textContent = told.requestId ? `Request ${told.requestId}` : "";
  stage.stopWaiting();
  show(problem);
  const again = problem.querySelector("[data-retry]");
  again.hidden = told.isThePictures;
  holdBack(again, told.retryAfterS ?? 0);
}

/** A full server says when it is worth coming back. */
function holdBack(button, seconds) {
  button.disabled = seconds > 0;
  button.textContent = seconds > 0 ? `Try again in ${Math.ceil(seconds)} s` : "Try again";
  if (seconds > 0) setTimeout(() => holdBack(button, seconds - 1), 1000 * Math.min(1, seconds));
}

function show(section) {
  for (const other of [welcome, problem, result]) other.hidden = other !== section;
}

function setOpacity(percentage) {
  opacity.value = percentage;
  opacity.nextElementSibling.textContent = `${percentage} %`;
  stage.opacity = percentage / 100;
}

async function runDemo() {
  const scene = await fetch("page/scene.jpg").catch(() => null);
  if (scene?.ok) await run(await scene.blob(), "scene.jpg");
  else explain(new Problem({ title: "The demo scene did not load", detail: "The server may be restarting. Try again." }));
}

function runFirst(files) {
  if (files.length) run(files[0], files[0].name || "pasted.png");
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = current.name.replace(/\.\w+$/, "") + suffix;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it after the click
}

function takePictures() {
  const file = find("#file");
  file.addEventListener("change", () => {
    runFirst(file.files);
    file.value = ""; // the same file again is a change, too
  });
  document.addEventListener("paste", (event) => runFirst(event.clipboardData.files));
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => file.click());
  for (const button of document.querySelectorAll("[data-demo]")) button.addEventListener("click", runDemo);
  find("[data-retry]").addEventListener("click", () => (current ? run(current.picture, current.name) : runDemo()));
}

/** The whole window takes a drop: missing a target must not navigate away. */
function takeDrops() {
  const veil = find("#veil");
  let depth = 0; // enter and leave come for every element on the way
  const move = (by) => (veil.hidden = (depth = by ? depth + by : 0) <= 0);
  document.addEventListener("dragenter", () => move(1));
  document.addEventListener("dragleave", () => move(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    move(0);
    runFirst(event.dataTransfer.files);
  });
}

takePictures();
takeDrops();
opacity.addEventListener("input", () => setOpacity((chosenOpacity = opacity.value)));
find("#all").addEventListener("click", () => legend.setAll(true));
find("#none").addEventListener("click", () => legend.setAll(false));
find("#save-mask").addEventListener("click", () => save(new Blob([current.mask], { type: "image/png" }), "-mask.png"));
find("#save-overlay").addEventListener("click", async () => save(await stage.toPng(), "-overlay.png"));
learn().catch(() => {}); // asked again with the first picture
