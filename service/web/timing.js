// Where the time went: a bar and a list, in the order in which it happened.

import { make } from "./legend.js";

const MEANING = {
  network: "upload, download and the rest",
  decode: "bytes to pixels",
  queue: "waiting for the engine",
  infer: "the network",
  encode: "class map to PNG",
};

/** @param {Record<string, number>} milliseconds by stage, as POST /segment tells them, and the network */
export function showTiming(root, milliseconds) {
  const stages = ["network", ...Object.keys(milliseconds).filter((stage) => stage !== "network")];
  const total = stages.reduce((sum, stage) => sum + milliseconds[stage], 0);
  root.querySelector(".total").textContent = told(total);
  root.querySelector(".bar").replaceChildren(...stages.map((stage) => segment(stage, milliseconds[stage] / total)));
  root.querySelector("dl").replaceChildren(...stages.flatMap((stage) => entry(stage, milliseconds[stage])));
}

function segment(stage, share) {
  const part = make("span", { className: stage, title: stage });
  part.style.flexGrow = share;
  return part;
}

function entry(stage, ms) {
  const term = make("dt", { title: MEANING[stage] ?? "" }, make("span", { className: `swatch ${stage}` }), stage);
  return [term, make("dd", { textContent: told(ms) })];
}

function told(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}
