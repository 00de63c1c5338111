// The card of a class: its name, its drawings, and a canvas with one of them.

import { element, iconButton } from "./dom.js";
import { Drawing, paint } from "./drawing.js";
import { Pad } from "./canvas.js";

/** An input for a class's name. An empty or taken name is replaced by `settle(name)` when the field is left. */
export function nameInput(name, settle) {
  const attributes = { class: "class-name", maxlength: 24, autocomplete: "off", spellcheck: "false" };
  const input = element("input", { ...attributes, "aria-label": "Name of the class", "data-testid": "class-name" });
  input.value = name;
  input.addEventListener("change", () => (input.value = settle(input.value.trim())));
  input.addEventListener("keydown", (event) => event.key === "Enter" && input.blur());
  return input;
}

export class ClassCard {
  /** `on`: {changed(), removed(card), settle(name, card)}, called when drawings or names change. */
  constructor(name, hueIndex, on) {
    this.name = name;
    this.hueIndex = hueIndex;
    this.hue = `var(--hue-${hueIndex})`;
    this.on = on;
    this.drawings = [new Drawing()];
    this.active = 0;
    this.character = null; // the sample that the drawings are of, if they are
    this.root = this.#build();
    this.refresh();
  }

  /** The drawings that have strokes. */
  get drawn() {
    return this.drawings.filter((drawing) => !drawing.empty);
  }

  #build() {
    const settle = (name) => {
      this.name = this.on.settle(name, this);
      this.refresh();
      this.on.changed();
      return this.name;
    };
    this.input = nameInput(this.name, settle);
    this.remover = iconButton("remove", "", { onclick: () => this.on.removed(this), "data-testid": "remove-class" });
    this.canvas = element("canvas", { class: "paper", "data-testid": "class-canvas" });
    this.pad = new Pad(this.canvas, "", () => {
      if (this.drawn.length === 0) this.character = null;
      this.#paintThumbnails();
      this.on.changed();
    });
    this.thumbnails = element("div", { class: "thumbnails" });
    const tools = element(
      "div",
      { class: "tools" },
      iconButton("undo", "Undo", { onclick: () => this.pad.undo(), "data-testid": "undo" }),
      iconButton("clear", "Clear", { onclick: () => this.pad.clear(), "data-testid": "clear" }),
      iconButton("add", "Another drawing", { onclick: () => this.addDrawing(), "data-testid": "add-drawing" }),
    );
    const head = element("div", { class: "card-head" }, element("span", { class: "swatch" }), this.input, this.remover);
    const paper = element("div", { class: "paper-frame" }, this.canvas, element("span", { class: "hint" }, "Draw here"));
    const root = element("li", { class: "card", "data-testid": "class-card" }, head, paper, this.thumbnails, tools);
    root.style.setProperty("--hue", this.hue);
    return root;
  }

  rename(name) {
    this.name = this.input.value = name;
  }

  addDrawing(strokes = []) {
    this.drawings.push(new Drawing(strokes));
    this.active = this.drawings.length - 1;
    this.refresh();
    this.on.changed();
  }

  removeDrawing(index) {
    this.drawings.splice(index, 1);
    if (this.drawings.length === 0) this.drawings.push(new Drawing());
    this.active = Math.min(this.active, this.drawings.length - 1);
    this.refresh();
    this.on.changed();
  }

  /** Starts again from the given drawings (lists of strokes). */
  replaceDrawings(drawings) {
    this.drawings = drawings.map((strokes) => new Drawing(strokes));
    this.character = null;
    this.active = 0;
    this.refresh();
  }

  /** Brings the card up to date with its name and its drawings. */
  refresh() {
    const count = this.drawings.length;
    const which = count > 1 ? `, drawing ${this.active + 1} of ${count}` : "";
    this.pad.show(this.drawings[this.active], `Example of ${this.name}${which}`);
    this.remover.title = `Remove ${this.name}`;
    this.remover.setAttribute("aria-label", this.remover.title);
    for (const [key, text] of [["undo", "Undo in"], ["clear", "Clear"], ["add-drawing", "Another drawing of"]]) {
      const button = this.root.querySelector(`[data-testid=${key}]`);
      button.setAttribute("aria-label", `${text} ${this.name}`);
    }
    this.thumbnails.hidden = count < 2;
    this.thumbnails.replaceChildren(
      ...this.drawings.map((_, index) => {
        const choose = () => {
          this.active = index;
          this.refresh();
          this.thumbnails.children[index].focus();
        };
        const label = `Drawing ${index + 1} of ${this.name}`;
        const attributes = { type: "button", "aria-label": label, "aria-pressed": index === this.active, onclick: choose };
        return element("button", { ...attributes, "data-testid": "thumbnail" }, element("canvas"));
      }),
    );
    this.#paintThumbnails();
  }

  #paintThumbnails() {
    this.drawings.forEach((drawing, index) => {
      const canvas = this.thumbnails.children[index]?.firstChild;
      if (canvas) paint(canvas, drawing.strokes, 0.07);
    });
  }
}
