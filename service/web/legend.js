// The classes of an image with color, name and share of the pixels. Each can be shown, hidden, or shown alone.

export class Legend {
  /** @param {() => void} onChange called when the set of visible classes has changed */
  constructor(list, absent, onChange) {
    [this.list, this.absent, this.onChange] = [list, absent, onChange];
    [this.hidden, this.rows] = [new Set(), new Map()];
  }

  /**
   * @param {{id: number, name: string, color: number[], fraction: number, confidence?: number}[]} present
   * @param {{id: number, name: string, color: number[]}[]} all every class of the model
   */
  show(present, all) {
    this.hidden.clear();
    const byShare = [...present].sort((a, b) => b.fraction - a.fraction);
    this.rows = new Map(byShare.map((entry) => [entry.id, this.#createRow(entry)]));
    this.list.replaceChildren(...this.rows.values());
    const missing = all.filter(({ id }) => !this.rows.has(id));
    this.absent.hidden = missing.length === 0;
    this.absent.querySelector("summary").textContent = `${missing.length} not in this image`;
    this.absent.querySelector("ul").replaceChildren(...missing.map(createAbsentRow));
  }

  isVisible(id) {
    return !this.hidden.has(id);
  }

  setAll(visible) {
    this.hidden = new Set(visible ? [] : this.rows.keys());
    this.#update();
  }

  /** Highlight the row of the class under the pointer; null highlights none. */
  highlight(id) {
    for (const [other, row] of this.rows) row.classList.toggle("highlighted", other === id);
  }

  #toggle(id) {
    if (!this.hidden.delete(id)) this.hidden.add(id);
    this.#update();
  }

  /** Show this class only; show all again when it is the only one already. */
  #toggleOnly(id) {
    const others = [...this.rows.keys()].filter((other) => other !== id);
    this.hidden = new Set(this.#isOnly(id) ? [] : others);
    this.#update();
  }

  #isOnly(id) {
    return this.isVisible(id) && this.hidden.size === this.rows.size - 1 && this.hidden.size > 0;
  }

  #update() {
    for (const [id, row] of this.rows) {
      row.querySelector("input").checked = this.isVisible(id);
      row.querySelector("button").setAttribute("aria-pressed", this.#isOnly(id));
    }
    this.onChange();
  }

  #createRow({ id, name, color, fraction, confidence }) {
    const box = createElement("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => this.#toggle(id));
    const text = createElement("span", { className: "name", textContent: displayName(name) });
    if (confidence !== undefined) {
      text.append(createElement("small", { textContent: `confidence ${Math.round(confidence * 100)} %` }));
    }
    const share = createElement("span", { className: "share", textContent: percent(fraction) });
    const label = createElement("label", {}, box, createSwatch(color), text, share);
    const only = createElement("button", { type: "button", className: "link", textContent: "only" });
    only.setAttribute("aria-label", `Only ${displayName(name)}`);
    only.setAttribute("aria-pressed", "false");
    only.addEventListener("click", () => this.#toggleOnly(id));
    const bar = createElement("span", { className: "fill" });
    [bar.style.width, bar.style.backgroundColor] = [`${fraction * 100}%`, `rgb(${color})`];
    return createElement("li", {}, label, only, bar);
  }
}

/** 0.3127 -> "31.3 %"; a share above zero never shows as "0.0 %". */
export function percent(fraction) {
  return fraction > 0 && fraction < 0.0005 ? "< 0.1 %" : `${(fraction * 100).toFixed(1)} %`;
}

/** "sign_symbol" -> "sign symbol". */
export function displayName(name) {
  return name.replaceAll("_", " ");
}

export function createElement(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function createAbsentRow({ name, color }) {
  return createElement("li", {}, createSwatch(color), displayName(name));
}

function createSwatch(color) {
  const square = createElement("span", { className: "swatch" });
  square.style.backgroundColor = `rgb(${color})`;
  return square;
}
