// Shows how long each stage took: a bar and a list, in order of time.

import { createElement } from "./legend.js";

const DESCRIPTIONS = {
  transfer: "upload, download and everything else outside the server’s stages",
  decode: "image file to pixels",
  queue: "waiting for the engine",
  infer: "running the model",
  encode: "class map to PNG",
};

/**
 * @param {Record<string, number>} stagesMs milliseconds by stage: timing_ms of POST /segment
 * @param {number} elapsedMs from the request's start to the end of its response
 * @param {number} [tiles] into how many tiles the image was cut, if it was
 */
export function showTiming(root, stagesMs, elapsedMs, tiles) {
  const measuredMs = Object.values(stagesMs).reduce((sum, ms) => sum + ms, 0);
  const stages = Object.entries({ transfer: Math.max(0, elapsedMs - measuredMs), ...stagesMs });
  const totalMs = stages.reduce((sum, [, ms]) => sum + ms, 0);
  root.querySelector(".total").textContent = formatMs(totalMs) + (tiles ? ` · ${tiles} ${tiles === 1 ? "tile" : "tiles"}` : "");
  root.querySelector(".bar").replaceChildren(...stages.map(([stage, ms]) => barPart(stage, ms / totalMs)));
  root.querySelector("dl").replaceChildren(...stages.flatMap(([stage, ms]) => listEntry(stage, ms)));
}

function barPart(stage, share) {
  const part = createElement("span", { className: stage, title: stage });
  part.style.flexGrow = share;
  return part;
}

function listEntry(stage, ms) {
  const swatch = createElement("span", { className: `swatch ${stage}` });
  const term = createElement("dt", { title: DESCRIPTIONS[stage] ?? "" }, swatch, stage);
  return [term, createElement("dd", { textContent: formatMs(ms) })];
}

function formatMs(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
