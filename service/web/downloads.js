// Download buttons: what the server sent, the drawn overlay, and polygons, which need a request of their own.

import { segment } from "./api.js";

/**
 * @param {() => {image: Blob, name: string, options: object, body: object, pngs: object}} current the result shown
 * @param {import("./viewer.js").Viewer} viewer
 * @param {(error: Error, retry: () => void) => void} onError
 */
export function listenForDownloads(current, viewer, onError) {
  const files = {
    mask: async ({ pngs }) => [png(pngs.mask), "-mask.png"],
    overlay: async () => [await viewer.toPng(), "-overlay.png"],
    confidence: async ({ pngs }) => [png(pngs.confidence), "-confidence.png"],
    json: async ({ body }) => [json(body), ".json"],
    polygons: async ({ image, options }) => {
      const { body } = await segment(image, { ...options, masks: "polygons" });
      return [json(body), "-polygons.json"];
    },
  };
  for (const [name, create] of Object.entries(files)) {
    const button = document.querySelector(`#save-${name}`);
    const start = () => download(button, current(), create).catch((error) => onError(error, start));
    button.addEventListener("click", start);
  }
}

async function download(button, result, create) {
  button.disabled = true;
  try {
    const [blob, suffix] = await create(result);
    save(blob, result.name.replace(/\.\w+$/, "") + suffix);
  } finally {
    button.disabled = false;
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  [link.href, link.download] = [URL.createObjectURL(blob), name];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it only after the click
}

function json(body) {
  return new Blob([JSON.stringify(body)], { type: "application/json" });
}

function png(bytes) {
  return new Blob([bytes], { type: "image/png" });
}
