// Probabilities as bars. The most probable class is marked by a tick, a frame and bold letters as well as its length.

import { element, percent } from "./dom.js";

/** The index of the greatest value. */
export const winnerOf = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

export class Bars {
  #rows = [];

  /** Shows bars in `list`, a <ul>. */
  constructor(list) {
    this.list = list;
  }

  /** `rows`: [{name, hue, probability (0..1, or null where unknown), note}]; rows keep their elements, so bars glide. */
  update(rows) {
    while (this.#rows.length > rows.length) this.#rows.pop().item.remove();
    while (this.#rows.length < rows.length) this.#rows.push(this.#row());
    const known = rows.filter((row) => row.probability !== null);
    const best = known.length ? Math.max(...known.map((row) => row.probability)) : null;
    rows.forEach((row, index) => this.#fill(this.#rows[index], row, index, row.probability === best && best !== null));
  }

  #row() {
    const [name, value, bar] = [
      element("span", { class: "bar-name" }),
      element("span", { class: "bar-value" }),
      element("span", { class: "bar-length" }),
    ];
    const track = element("span", { class: "bar-track", "aria-hidden": "true" }, bar);
    const item = element("li", { class: "bar", "data-testid": "bar" }, name, value, track);
    this.list.append(item);
    return { item, name, value, bar };
  }

  #fill({ item, name, value, bar }, row, index, wins) {
    item.style.setProperty("--hue", row.hue);
    item.dataset.index = index;
    item.dataset.name = row.name;
    item.dataset.winner = wins;
    item.dataset.probability = row.probability ?? "";
    name.textContent = row.name;
    value.textContent = row.probability === null ? row.note : percent(row.probability);
    bar.style.setProperty("--length", row.probability ?? 0);
  }
}
