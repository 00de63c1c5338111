// A canvas to draw on: with a mouse, a finger or a pen, or with the arrow keys.

import { announce, prefersStillness } from "./dom.js";
import { Drawing, paint } from "./drawing.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SMALLEST_MOVE = 0.004; // of the canvas; anything less is the trembling of a pointer
const clamp = (value) => Math.min(1, Math.max(0, value));
const round = (value) => Math.round(value * 1e4) / 1e4;

export class Pad {
  #stroke = null; // what is being drawn now
  #pen = { x: 0.5, y: 0.5, shown: false, arrows: new Set() };
  #animation = 0;

  /** Makes `canvas` draw; `changed` is called after every stroke, undo and clear. */
  constructor(canvas, label, changed) {
    this.canvas = canvas;
    this.changed = changed;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-describedby", "pen-help");
    this.show(new Drawing(), label);
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#follow(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, () => this.#finish());
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("keyup", (event) => this.#pen.arrows.delete(event.key));
    canvas.addEventListener("focus", () => this.#takeUp());
    canvas.addEventListener("blur", () => this.#putAway());
    new ResizeObserver(() => this.repaint()).observe(canvas);
    window.addEventListener("themechange", () => this.repaint());
  }

  /** Puts another drawing on the canvas. */
  show(drawing, label) {
    this.#finish();
    this.drawing = drawing;
    this.canvas.setAttribute("aria-label", label);
    this.repaint();
  }

  undo() {
    this.#stop();
    this.drawing.undo();
    this.#update();
  }

  clear() {
    this.#stop();
    this.drawing.clear();
    this.#update();
  }

  /** Draws strokes as a hand would, one after the other. */
  play(strokes) {
    this.#stop();
    this.drawing.clear();
    if (prefersStillness()) {
      this.drawing.replace(strokes);
      this.#update();
      return;
    }
    const points = strokes.reduce((sum, stroke) => sum + stroke.length, 0);
    const began = performance.now();
    const drawing = this.drawing;
    const frame = (now) => {
      if (this.drawing !== drawing) return;
      let left = Math.ceil(((now - began) / 900) * points);
      const drawn = [];
      for (const stroke of strokes) {
        if (left > 0) drawn.push(stroke.slice(0, left));
        left -= stroke.length;
      }
      if (left < 0) {
        this.repaint(drawn);
        this.#animation = requestAnimationFrame(frame);
      } else {
        drawing.replace(strokes);
        this.#update();
      }
    };
    this.#animation = requestAnimationFrame(frame);
  }

  repaint(strokes = this.drawing.strokes) {
    const drawn = this.#stroke ? [...strokes, this.#stroke] : strokes;
    paint(this.canvas, drawn);
    this.canvas.toggleAttribute("data-empty", drawn.length === 0);
    this.canvas.dataset.strokes = this.drawing.strokes.length;
    if (this.#pen.shown) this.#paintPen();
  }

  #update() {
    this.repaint();
    this.changed();
  }

  #stop() {
    cancelAnimationFrame(this.#animation);
    this.#stroke = null;
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  }

  #extend([x, y]) {
    const last = this.#stroke.at(-1);
    if (last && Math.hypot(last[0] - x, last[1] - y) < SMALLEST_MOVE) return;
    this.#stroke.push([round(x), round(y)]);
  }

  #start(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.#stop();
    this.#pen.shown = false;
    this.#stroke = [];
    this.#extend(this.#place(event));
    this.repaint();
  }

  #follow(event) {
    if (!this.#stroke || !event.isPrimary || !this.canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#extend(this.#place(each));
    this.repaint();
  }

  #finish() {
    if (!this.#stroke) return;
    this.drawing.add(this.#stroke);
    this.#stroke = null;
    this.#update();
  }

  #key(event) {
    if (event.key in ARROWS) this.#movePen(event);
    else if (event.key === " " || event.key === "Enter") this.#togglePen();
    else if (event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey))) this.undo();
    else if (event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
  }

  #movePen(event) {
    const pen = this.#pen;
    pen.shown = true;
    pen.arrows.add(event.key); // two arrows at once make a diagonal
    const step = event.shiftKey ? 0.01 : 0.04;
    for (const arrow of pen.arrows) {
      pen.x = clamp(pen.x + step * ARROWS[arrow][0]);
      pen.y = clamp(pen.y + step * ARROWS[arrow][1]);
    }
    if (this.#stroke) this.#extend([pen.x, pen.y]);
    this.repaint();
  }

  #togglePen() {
    this.#pen.shown = true;
    announce(this.#stroke ? "Pen up" : "Pen down");
    if (this.#stroke) {
      this.#finish();
    } else {
      cancelAnimationFrame(this.#animation);
      this.#stroke = [];
      this.#extend([this.#pen.x, this.#pen.y]);
    }
    this.repaint();
  }

  #takeUp() {
    this.#pen.shown = this.canvas.matches(":focus-visible"); // not after a click
    this.repaint();
  }

  #putAway() {
    this.#pen.shown = false;
    this.#pen.arrows.clear();
    this.#finish();
    this.repaint();
  }

  #paintPen() {
    const context = this.canvas.getContext("2d");
    const side = this.canvas.width;
    const [x, y, radius] = [this.#pen.x * side, this.#pen.y * side, 0.045 * side];
    context.strokeStyle = context.fillStyle = getComputedStyle(this.canvas).outlineColor;
    context.lineWidth = 0.012 * side;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (this.#stroke) context.fill();
    else context.stroke();
  }
}
