// The cards of the classes of a tab: added, removed, and named so that no two are called the same.

import { announce, byId } from "./dom.js";

const [MIN_CLASSES, MAX_CLASSES, HUES] = [2, 20, 8];

/** The next of A, B, C, ... that is not taken. */
function freeName(taken) {
  for (let index = 0; ; index++) {
    const name = index < 26 ? String.fromCharCode(65 + index) : `Class ${index + 1}`;
    if (!taken.includes(name)) return name;
  }
}

export class ClassList {
  /** `Card` is made with (name, hueIndex, on) before the item of the button `adder`; `changed` tells of removals. */
  constructor(adder, Card, on, count, changed) {
    this.adder = byId(adder);
    this.Card = Card;
    this.on = { ...on, settle: (name, card) => this.settleName(name, card), removed: (card) => this.#remove(card) };
    this.changed = changed;
    this.cards = [];
    this.adder.addEventListener("click", () => this.add().input.select());
    for (let index = 0; index < count; index++) this.add();
  }

  /** A new card, or null if there are as many as can be. */
  add() {
    if (this.cards.length >= MAX_CLASSES) return null;
    const used = this.cards.map((card) => card.hueIndex);
    const free = [...Array(HUES).keys()].find((index) => !used.includes(index));
    const card = new this.Card(freeName(this.cards.map(({ name }) => name)), free ?? this.cards.length % HUES, this.on);
    this.cards.push(card);
    this.adder.parentElement.before(card.root);
    card.refresh();
    this.#count();
    return card;
  }

  /** The name that `card` gets when `name` is wanted: never empty, never that of another card. */
  settleName(name, card) {
    const taken = this.cards.filter((each) => each !== card).map((each) => each.name);
    if (!name) return freeName(taken);
    let unique = name;
    for (let number = 2; taken.includes(unique); number++) unique = `${name} ${number}`;
    return unique;
  }

  #remove(card) {
    const index = this.cards.indexOf(card);
    this.cards.splice(index, 1);
    card.root.remove();
    this.#count();
    (this.cards[index] ?? this.cards.at(-1)).input.focus();
    announce(`${card.name} removed`);
    this.changed();
  }

  #count() {
    for (const card of this.cards) card.remover.disabled = this.cards.length <= MIN_CLASSES;
    this.adder.disabled = this.cards.length >= MAX_CLASSES;
  }
}
