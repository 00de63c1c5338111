// The slider over the inner steps, with a button that plays them.

import { prefersStillness } from "./dom.js";

const PLAYING_TIME = 2400; // milliseconds from the first step to the last

export class Steps {
  #count = 0;
  #timer = 0;

  /** `root` holds an input (range), a button and an output; `changed(step)` is called when the step changes. */
  constructor(root, changed) {
    this.root = root;
    this.slider = root.querySelector("input[type=range]");
    this.button = root.querySelector("button");
    this.output = root.querySelector("output");
    this.changed = changed;
    this.slider.addEventListener("input", () => {
      this.#pause();
      this.#tell();
    });
    this.button.addEventListener("click", () => (this.#timer ? this.#pause() : this.play()));
    this.setCount(0);
  }

  get step() {
    return Number(this.slider.value);
  }

  /** How many steps there are; the slider stays where it was, and at the end if it was there. */
  setCount(count) {
    const atEnd = this.step === this.#count;
    this.#count = count;
    this.slider.max = count;
    this.slider.value = atEnd ? count : Math.min(this.step, count);
    this.root.hidden = count === 0;
    this.describe();
  }

  /** What the slider says to people; `detail` is read by screen readers, too. */
  describe(detail = "") {
    const text = this.step === 0 ? "Before any gradient step" : `After ${this.step} of ${this.#count} gradient steps`;
    this.output.textContent = text;
    this.slider.setAttribute("aria-valuetext", detail ? `${text}: ${detail}` : text);
    this.slider.style.setProperty("--share", this.#count ? this.step / this.#count : 0);
  }

  play() {
    clearInterval(this.#timer);
    if (this.#count === 0) return;
    this.slider.value = 0;
    this.#tell();
    const frames = Math.min(this.#count, prefersStillness() ? 5 : 60);
    let frame = 0;
    this.#timer = setInterval(() => {
      this.slider.value = Math.round((++frame / frames) * this.#count);
      this.#tell();
      if (frame === frames) this.#pause();
    }, PLAYING_TIME / frames);
    this.#label();
  }

  #pause() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#label();
  }

  #label() {
    this.button.textContent = this.#timer ? "Stop" : "Play";
    this.button.setAttribute("aria-label", this.#timer ? "Stop playing the steps" : "Play the steps");
  }

  #tell() {
    this.describe();
    this.changed(this.step);
  }
}
