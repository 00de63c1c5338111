// "Edit all": every drawing of every class on a canvas of its own, in a dialog.

import { element, focusNear, iconButton } from "./dom.js";
import { Pad } from "./canvas.js";

function canvasOf(card, index, changed, render) {
  const canvas = element("canvas", { class: "paper", "data-testid": "edit-canvas" });
  const pad = new Pad(canvas, "", changed);
  const title = `drawing ${index + 1} of ${card.name}`;
  const remove = () => {
    card.removeDrawing(index);
    focusNear(render(card), index);
  };
  const tools = element(
    "div",
    { class: "tools" },
    iconButton("undo", `Undo in ${title}`, { onclick: () => pad.undo() }),
    iconButton("clear", `Clear ${title}`, { onclick: () => pad.clear() }),
    iconButton("remove", `Remove ${title}`, { onclick: remove }),
  );
  const frame = element("div", { class: "paper-frame" }, canvas, element("span", { class: "hint" }, "Draw here"));
  pad.show(card.drawings[index], `Example of ${card.name}, ${title}`);
  return element("li", {}, frame, tools);
}

/** Opens `dialog` on the drawings of `cards`; `changed` is called after every stroke. */
export function editAll(dialog, cards, changed) {
  const body = dialog.querySelector(".edit-body");

  function row(card) {
    const add = () => {
      card.addDrawing();
      render(card).children[card.active].querySelector("canvas").focus();
    };
    const adder = element("button", { type: "button", class: "add-tile", onclick: add }, "Another drawing");
    const section = element(
      "section",
      {},
      element("h3", {}, element("span", { class: "swatch" }), card.name),
      element(
        "ul",
        { class: "edit-row" },
        ...card.drawings.map((_, index) => canvasOf(card, index, changed, render)),
        element("li", {}, adder),
      ),
    );
    section.style.setProperty("--hue", card.hue);
    return section;
  }

  /** Shows all drawings, and returns the list of those of `card`. */
  function render(card) {
    body.replaceChildren(...cards.map(row));
    return body.children[cards.indexOf(card)]?.querySelector("ul");
  }

  render();
  dialog.addEventListener("close", () => cards.forEach((card) => card.refresh()), { once: true });
  dialog.showModal();
}
