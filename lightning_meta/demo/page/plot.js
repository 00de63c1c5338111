// A plot of points and curves, on which points are added by a click and moved by dragging.

import { svg } from "./dom.js";

export const LIMIT = 5; // of x, on both sides; the waves that the networks know lie between -5 and 5, too
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, Y_LIMIT] = [480, 330, 34, 10, 10, 26, 6];
const REACH = 0.35; // how near a press must be to a point to take hold of it, in units of the plot

const toX = (x) => LEFT + ((x + LIMIT) / (2 * LIMIT)) * (WIDTH - LEFT - RIGHT);
const toY = (y) => TOP + ((Y_LIMIT - y) / (2 * Y_LIMIT)) * (HEIGHT - TOP - BOTTOM);
const round = (value) => Math.round(100 * value) / 100;
const bound = (value) => round(Math.min(LIMIT, Math.max(-LIMIT, value)));

export class Plot {
  #dragged = null; // the index of the point in hand

  /** Draws into `root`, an empty <svg>; `on`: {added(x, y), moved(index, x, y)}. */
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.points = [];
    root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    const ticks = [-4, -2, 0, 2, 4];
    const clip = `${root.id}-clip`;
    const area = { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
    this.content = svg("g", { "clip-path": `url(#${clip})` });
    root.append(
      svg("clipPath", { id: clip }, svg("rect", area)),
      svg("rect", { class: "area", rx: 6, ...area }),
      ...ticks.flatMap((value) => [
        svg("line", { class: "grid", x1: toX(value), x2: toX(value), y1: TOP, y2: HEIGHT - BOTTOM }),
        svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: toY(value), y2: toY(value) }),
        svg("text", { x: toX(value), y: HEIGHT - 8, "text-anchor": "middle" }, `${value}`.replace("-", "−")),
        svg("text", { x: LEFT - 7, y: toY(value) + 4, "text-anchor": "end" }, `${value}`.replace("-", "−")),
      ]),
      this.content,
    );
    root.addEventListener("pointerdown", (event) => this.#press(event));
    root.addEventListener("pointermove", (event) => {
      if (this.#dragged !== null) this.on.moved(this.#dragged, ...this.#place(event));
    });
    for (const type of ["pointerup", "pointercancel"]) root.addEventListener(type, () => (this.#dragged = null));
  }

  /** `points`: [[x, y]]; `curves`: [{kind, x: [..], y: [..]}], the kind being a class of the style sheet. */
  update(points, curves) {
    this.points = points;
    const lines = curves.map(({ kind, x, y }) => {
      const path = x.map((value, index) => `${toX(value).toFixed(1)},${toY(y[index]).toFixed(1)}`).join(" ");
      return svg("polyline", { class: `curve ${kind}`, points: path });
    });
    const dots = points.map(([x, y]) => svg("circle", { class: "point", cx: toX(x), cy: toY(y), r: 7 }));
    this.content.replaceChildren(...lines, ...dots);
  }

  #place(event) {
    const box = this.root.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * WIDTH;
    const down = ((event.clientY - box.top) / box.height) * HEIGHT;
    const x = ((across - LEFT) / (WIDTH - LEFT - RIGHT)) * 2 * LIMIT - LIMIT;
    const y = Y_LIMIT - ((down - TOP) / (HEIGHT - TOP - BOTTOM)) * 2 * Y_LIMIT;
    return [bound(x), bound(y)];
  }

  #press(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    this.root.setPointerCapture(event.pointerId);
    const [x, y] = this.#place(event);
    const held = this.points.findIndex((point) => Math.hypot(point[0] - x, point[1] - y) < REACH);
    this.#dragged = held >= 0 ? held : this.points.length;
    if (held < 0) this.on.added(x, y);
  }
}
