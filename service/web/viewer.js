// Draws the class map over the image, and names the class under the pointer, the finger or the arrow keys.

import { displayName, percent } from "./legend.js";

const STEP = 1 / 40; // an arrow key moves by this share of the image's longer side

/**
 * What the viewer shows of one segmented image. map and confidence are at the image's own size.
 * @typedef {{url: string, displayable: boolean, map: {width: number, height: number, values: Uint8Array},
 *   confidence: Uint8Array | null, classes: {id: number, name: string, color: number[]}[]}} View
 */

export class Viewer {
  /** @param {(id: number | null, source: "pointer" | "touch" | "keys") => void} onPoint the class now pointed at */
  constructor(root, onPoint) {
    [this.root, this.onPoint] = [root, onPoint];
    for (const part of ["img", "canvas", ".crosshair", ".tooltip", ".progress"]) {
      this[part.replace(".", "")] = root.querySelector(part);
    }
    [this.view, this.position] = [null, null];
    root.addEventListener("pointermove", (event) => this.#onPointer(event));
    root.addEventListener("pointerdown", (event) => this.#onPointer(event));
    root.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#clearPoint());
    root.addEventListener("keydown", (event) => this.#onKey(event));
    root.addEventListener("blur", () => this.#clearPoint());
  }

  /**
   * Show an image without classes, with a progress bar, until show() is called.
   * @returns {Promise<boolean>} false where the browser cannot display the image's format
   */
  async preview(url) {
    this.#clearPoint();
    this.view = null;
    this.canvas.hidden = true;
    this.progress.hidden = false;
    this.img.src = url;
    const displayable = await this.img.decode().then(() => true, () => false);
    if (this.img.src !== url) return displayable; // another image has replaced it in the meantime
    this.img.hidden = !displayable;
    if (displayable) this.#setAspect(this.img.naturalWidth, this.img.naturalHeight);
    return displayable;
  }

  /** @param {View} view may be of another image than the preview */
  show(view) {
    this.view = view;
    if (this.img.src !== view.url) this.img.src = view.url;
    this.img.hidden = !view.displayable;
    const { width, height } = view.map;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.pixels = new ImageData(width, height); // reused by paint(): allocating a large one takes longer than filling it
    this.#setAspect(width, height);
    this.progress.hidden = true;
    this.canvas.hidden = false;
  }

  /** @param {(id: number) => boolean} isVisible */
  paint(isVisible) {
    const { map, classes } = this.view;
    const colors = colorTable(classes, isVisible);
    const pixels = new Uint32Array(this.pixels.data.buffer);
    for (let i = 0; i < map.values.length; i++) pixels[i] = colors[map.values[i]];
    this.canvas.getContext("2d").putImageData(this.pixels, 0, 0);
  }

  set opacity(share) {
    this.canvas.style.opacity = share;
  }

  /** The image with the overlay as shown, as a PNG at the image's own size. */
  async toPng() {
    const { map, displayable } = this.view;
    const out = new OffscreenCanvas(map.width, map.height);
    const context = out.getContext("2d");
    if (displayable) context.drawImage(this.img, 0, 0, out.width, out.height);
    context.globalAlpha = Number(this.canvas.style.opacity);
    context.drawImage(this.canvas, 0, 0);
    return out.convertToBlob({ type: "image/png" });
  }

  #setAspect(width, height) {
    this.root.style.setProperty("--aspect", width / height);
  }

  #onPointer(event) {
    const box = this.root.getBoundingClientRect();
    const source = event.pointerType === "touch" ? "touch" : "pointer";
    this.#pointAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, source);
  }

  #onKey(event) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (event.key === "Escape") this.#clearPoint();
    if (dx === undefined || !this.view) return;
    event.preventDefault();
    const { width, height } = this.view.map;
    const pixels = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) * STEP));
    const [x, y] = this.position ?? [0.5, 0.5];
    this.#pointAt(x + (dx * pixels) / width, y + (dy * pixels) / height, "keys");
  }

  /** x, y: from 0 to 1 of the image's width and height. */
  #pointAt(x, y, source) {
    if (!this.view) return;
    const { map, classes, confidence } = this.view;
    this.position = [x, y] = [x, y].map((share) => Math.min(Math.max(share, 0), 1 - 1e-6));
    const index = Math.floor(y * map.height) * map.width + Math.floor(x * map.width);
    const entry = classes[map.values[index]];
    const suffix = confidence ? ` ${percent(confidence[index] / 255)}` : "";
    // Above the point where there is space; a finger covers what is below it, so there much earlier.
    this.#showTooltip(x, y, entry.color, displayName(entry.name) + suffix, y > (source === "touch" ? 0.2 : 0.8));
    this.crosshair.hidden = source !== "keys";
    this.onPoint(entry.id, source);
  }

  #showTooltip(x, y, color, text, above) {
    this.tooltip.hidden = false;
    this.tooltip.querySelector(".swatch").style.backgroundColor = `rgb(${color})`;
    this.tooltip.querySelector(".name").textContent = text;
    for (const mark of [this.tooltip, this.crosshair]) {
      [mark.style.left, mark.style.top] = [`${x * 100}%`, `${y * 100}%`];
    }
    this.tooltip.classList.toggle("to-the-left", x > 0.6);
    this.tooltip.classList.toggle("above", above);
  }

  #clearPoint() {
    this.position = null;
    this.tooltip.hidden = this.crosshair.hidden = true;
    this.onPoint(null, "pointer");
  }
}

/** RGBA by class id, in the byte order of canvases, so that one 32-bit store paints a pixel. */
function colorTable(classes, isVisible) {
  const bytes = new Uint8Array(4 * 256);
  for (const { id, color } of classes) bytes.set([...color, isVisible(id) ? 255 : 0], 4 * id);
  return new Uint32Array(bytes.buffer);
}
