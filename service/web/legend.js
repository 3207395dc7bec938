// The classes of the picture: name, colour, share; shown or hidden, one by one or one alone.

export class Legend {
  /** @param {() => void} onChange what is visible has changed */
  constructor(list, absent, onChange) {
    [this.list, this.absent, this.onChange] = [list, absent, onChange];
    [this.hidden, this.rows] = [new Set(), new Map()];
  }

  /**
   * @param {{id: number, name: string, color: number[], fraction: number}[]} present
   * @param {{id: number, name: string, color: number[]}[]} known every class of the model
   */
  show(present, known) {
    this.hidden.clear();
    const byShare = [...present].sort((a, b) => b.fraction - a.fraction);
    this.rows = new Map(byShare.map((entry) => [entry.id, this.#row(entry)]));
    this.list.replaceChildren(...this.rows.values());
    const missing = known.filter(({ id }) => !this.rows.has(id));
    this.absent.hidden = missing.length === 0;
    this.absent.querySelector("summary").textContent = `${missing.length} not in this picture`;
    this.absent.querySelector("ul").replaceChildren(...missing.map(absentRow));
  }

  visible(id) {
    return !this.hidden.has(id);
  }

  setAll(visible) {
    this.hidden = new Set(visible ? [] : this.rows.keys());
    this.#update();
  }

  /** Light up the row of the class under the pointer; null: of none. */
  point(id) {
    for (const [other, row] of this.rows) row.classList.toggle("pointed", other === id);
  }

  #toggle(id) {
    if (!this.hidden.delete(id)) this.hidden.add(id);
    this.#update();
  }

  /** This class alone; all again when it is alone already. */
  #solo(id) {
    const others = [...this.rows.keys()].filter((other) => other !== id);
    this.hidden = new Set(this.#isAlone(id) ? [] : others);
    this.#update();
  }

  #isAlone(id) {
    return this.visible(id) && this.hidden.size === this.rows.size - 1 && this.hidden.size > 0;
  }

  #update() {
    for (const [id, row] of this.rows) {
      row.querySelector("input").checked = this.visible(id);
      row.querySelector("button").setAttribute("aria-pressed", this.#isAlone(id));
    }
    this.onChange();
  }

  #row({ id, name, color, fraction }) {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => this.#toggle(id));
    const share = make("span", { className: "share", textContent: percent(fraction) });
    const label = make("label", {}, box, swatch(color), make("span", { className: "name", textContent: readable(name) }), share);
    const solo = make("button", { type: "button", className: "link", textContent: "only" });
    solo.setAttribute("aria-label", `Only ${readable(name)}`);
    solo.setAttribute("aria-pressed", "false");
    solo.addEventListener("click", () => this.#solo(id));
    const bar = make("span", { className: "fill" });
    [bar.style.width, bar.style.backgroundColor] = [`${fraction * 100}%`, `rgb(${color})`];
    return make("li", {}, label, solo, bar);
  }
}

/** 0.3127 -> "31.3 %"; never "0 %" for what is there. */
export function percent(fraction) {
  return fraction < 0.0005 ? "< 0.1 %" : `${(fraction * 100).toFixed(1)} %`;
}

/** "sign_symbol" -> "sign symbol": names as people write them. */
export function readable(name) {
  return name.replaceAll("_", " ");
}

export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function absentRow({ name, color }) {
  return make("li", {}, swatch(color), readable(name));
}

function swatch(color) {
  const square = make("span", { className: "swatch" });
  square.style.backgroundColor = `rgb(${color})`;
  return square;
}
