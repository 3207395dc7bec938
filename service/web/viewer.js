// The picture with the class map over it, and the class under the pointer, the finger or the arrow keys.

import { readable } from "./legend.js";

const STEP = 1 / 40; // of the picture's longer side an arrow key moves by

export class Stage {
  /** @param {(id: number | null, by: "pointer" | "finger" | "keys") => void} onProbe what lies under the pointer now */
  constructor(root, onProbe) {
    [this.root, this.onProbe] = [root, onProbe];
    for (const part of ["img", "canvas", ".cross", ".tip", ".busy"]) {
      this[part.replace(".", "")] = root.querySelector(part);
    }
    [this.map, this.at] = [null, null];
    root.addEventListener("pointermove", (event) => this.#point(event));
    root.addEventListener("pointerdown", (event) => this.#point(event));
    root.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#leave());
    root.addEventListener("keydown", (event) => this.#press(event));
    root.addEventListener("blur", () => this.#leave());
  }

  /** Show a picture without classes, while they are made. False where the browser can't read its format. */
  async open(url) {
    this.#leave();
    this.map = null;
    this.canvas.hidden = true;
    this.busy.hidden = false;
    this.img.src = url;
    const readable = await this.img.decode().then(() => true, () => false);
    this.img.hidden = !readable;
    if (readable) this.#fit(this.img.naturalWidth, this.img.naturalHeight);
    return readable;
  }

  /** @param {{width: number, height: number, ids: Uint8Array}} map at the picture's own size */
  lay(map, classes) {
    [this.map, this.classes] = [map, classes];
    [this.canvas.width, this.canvas.height] = [map.width, map.height];
    this.painted = new ImageData(map.width, map.height); // made once: a large picture's takes longer than its pixels
    this.#fit(map.width, map.height);
    this.busy.hidden = true;
    this.canvas.hidden = false;
  }

  stopWaiting() {
    this.busy.hidden = true;
  }

  /** @param {(id: number) => boolean} visible */
  paint(visible) {
    const { ids } = this.map;
    const colours = tableOf(this.classes, visible);
    const pixels = new Uint32Array(this.painted.data.buffer);
    for (let i = 0; i < ids.length; i++) pixels[i] = colours[ids[i]];
    this.canvas.getContext("2d").putImageData(this.painted, 0, 0);
  }

  set opacity(share) {
    this.canvas.style.opacity = share;
  }

  /** What is seen, as a PNG at the picture's own size. */
  async toPng() {
    const out = new OffscreenCanvas(this.map.width, this.map.height);
    const context = out.getContext("2d");
    if (!this.img.hidden) context.drawImage(this.img, 0, 0, out.width, out.height);
    context.globalAlpha = Number(this.canvas.style.opacity);
    context.drawImage(this.canvas, 0, 0);
    return out.convertToBlob({ type: "image/png" });
  }

  #fit(width, height) {
    this.root.style.setProperty("--aspect", width / height);
  }

  #point(event) {
    const box = this.root.getBoundingClientRect();
    const by = event.pointerType === "touch" ? "finger" : "pointer";
    this.#probe((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, by);
  }

  #press(event) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (event.key === "Escape") this.#leave();
    if (dx === undefined || !this.map) return;
    event.preventDefault();
    const { width, height } = this.map;
    const pixels = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) * STEP));
    const [x, y] = this.at ?? [0.5, 0.5];
    this.#probe(x + (dx * pixels) / width, y + (dy * pixels) / height, "keys");
  }

  /** x, y: 0..1 of the picture. */
  #probe(x, y, by) {
    if (!this.map) return;
    const { width, height, ids } = this.map;
    this.at = [x, y] = [x, y].map((share) => Math.min(Math.max(share, 0), 1 - 1e-6));
    const id = ids[Math.floor(y * height) * width + Math.floor(x * width)];
    this.#tell(x, y, this.classes[id], by === "finger" ? 0.2 : 0.8);
    this.cross.hidden = by !== "keys";
    this.onProbe(id, by);
  }

  /** lowest: from which y on the name stands above its point; under a finger nobody would see it. */
  #tell(x, y, entry, lowest) {
    this.tip.hidden = false;
    this.tip.querySelector(".swatch").style.backgroundColor = `rgb(${entry.color})`;
    this.tip.querySelector(".name").textContent = readable(entry.name);
    for (const mark of [this.tip, this.cross]) {
      [mark.style.left, mark.style.top] = [`${x * 100}%`, `${y * 100}%`];
    }
    this.tip.classList.toggle("to-the-left", x > 0.6);
    this.tip.classList.toggle("above", y > lowest);
  }

  #leave() {
    this.at = null;
    this.tip.hidden = this.cross.hidden = true;
    this.onProbe(null, "pointer");
  }
}

/** Pixels as canvases hold them, by class id: RGBA in memory order, so that one store paints a pixel. */
function tableOf(classes, visible) {
  const bytes = new Uint8Array(4 * 256);
  for (const { id, color } of classes) bytes.set([...color, visible(id) ? 255 : 0], 4 * id);
  return new Uint32Array(bytes.buffer);
}
