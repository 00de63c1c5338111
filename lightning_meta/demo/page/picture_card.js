// A class of picture files: its name, its pictures, and a place to drop more.

import { element, focusNear, iconButton } from "./dom.js";
import { nameInput } from "./class_card.js";
import { acceptDrops } from "./files.js";

/** A button that opens the file dialog; `took(files)` receives what was chosen. */
export function filePicker(label, testId, took) {
  const input = element("input", { type: "file", accept: "image/*", multiple: true, "data-testid": testId });
  input.addEventListener("change", () => {
    took([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  const text = element("span", {}, label);
  return { root: element("label", { class: "file-picker" }, input, text), text };
}

/** A picture with a button that takes it away. */
export function thumbnail(picture, removed) {
  const image = element("img", { src: picture.url, alt: picture.name });
  const button = iconButton("remove", `Remove ${picture.name}`, { onclick: removed });
  return element("li", { class: "picture", "data-testid": "picture" }, image, button);
}

export class PictureCard {
  /** `on`: {dropped(card, {files, folders}), changed(), removed(card), settle(name, card)}. */
  constructor(name, hueIndex, on) {
    this.name = name;
    this.hueIndex = hueIndex;
    this.hue = `var(--hue-${hueIndex})`;
    this.on = on;
    this.pictures = [];
    this.input = nameInput(name, (typed) => {
      this.name = on.settle(typed, this);
      this.refresh();
      on.changed();
      return this.name;
    });
    this.remover = iconButton("remove", "", { onclick: () => on.removed(this), "data-testid": "remove-class" });
    this.list = element("ul", { class: "pictures" });
    this.picker = filePicker("", "class-files", (files) => on.dropped(this, { files, folders: [] }));
    const head = element("div", { class: "card-head" }, element("span", { class: "swatch" }), this.input, this.remover);
    this.root = element("li", { class: "card drop", "data-testid": "picture-class" }, head, this.list, this.picker.root);
    this.root.style.setProperty("--hue", this.hue);
    acceptDrops(this.root, (what) => on.dropped(this, what));
    this.refresh();
  }

  rename(name) {
    this.name = this.input.value = name;
  }

  refresh() {
    this.remover.title = `Remove ${this.name}`;
    this.remover.setAttribute("aria-label", this.remover.title);
    this.picker.text.textContent = this.pictures.length ? "More files" : "Drop pictures here, or choose files";
    this.picker.root.querySelector("input").setAttribute("aria-label", `Pictures of ${this.name}`);
    const items = this.pictures.map((picture, index) =>
      thumbnail(picture, () => {
        this.pictures = this.pictures.filter((each) => each !== picture);
        this.refresh();
        focusNear(this.list, index, this.input);
        this.on.changed();
      }),
    );
    this.list.replaceChildren(...items);
  }
}
