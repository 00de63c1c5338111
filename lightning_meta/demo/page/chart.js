// Lines over the inner steps: how sure the network is of every class after each of them.

import { svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [480, 176, 48, 8, 10, 26];
const DASHES = ["", "7 4", "2 4", "10 3 2 3", "4 2", "12 5", "1 3", "6 2 2 2"];

export class StepChart {
  /** Draws into `root`, an empty <svg>. */
  constructor(root) {
    this.root = root;
    root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    root.setAttribute("aria-hidden", "true"); // the bars and the slider say the same in words
  }

  /** `lines`: [{hue, values: [a probability after each step]}]; `step` is where the slider stands. */
  update(lines, step) {
    const last = Math.max(1, (lines[0]?.values.length ?? 1) - 1);
    const x = (value) => LEFT + (value / last) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);
    const grid = [0, 0.5, 1].flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${100 * value}%`),
    ]);
    const ends = [0, last].map((value) =>
      svg("text", { x: x(value), y: HEIGHT - 6, "text-anchor": value ? "end" : "start" }, value ? `step ${value}` : "0"),
    );
    const curves = lines.map(({ hue, values }, index) => {
      const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      const line = svg("polyline", { class: "curve", points, "stroke-dasharray": DASHES[index % DASHES.length] });
      line.style.setProperty("--hue", hue);
      return line;
    });
    const cursor = svg("line", { class: "cursor", x1: x(step), x2: x(step), y1: TOP - 4, y2: HEIGHT - BOTTOM + 4 });
    const dots = lines.map(({ hue, values }) => {
      const dot = svg("circle", { class: "dot", cx: x(step), cy: y(values[step]), r: 4 });
      dot.style.setProperty("--hue", hue);
      return dot;
    });
    this.root.replaceChildren(...grid, ...ends, cursor, ...curves, ...dots);
  }
}
