// A drawing: strokes of [x, y] points in units of the canvas (0..1, y downwards), what came before, and its look.

export class Drawing {
  #past = [];

  constructor(strokes = []) {
    this.strokes = strokes;
  }

  get empty() {
    return this.strokes.length === 0;
  }

  add(stroke) {
    this.replace([...this.strokes, stroke]);
  }

  clear() {
    if (!this.empty) this.replace([]);
  }

  replace(strokes) {
    this.#past.push(this.strokes);
    this.strokes = strokes;
  }

  undo() {
    if (this.#past.length) this.strokes = this.#past.pop();
  }
}

function trace(context, stroke, side) {
  const points = stroke.map(([x, y]) => [x * side, y * side]);
  context.beginPath();
  context.moveTo(...points[0]);
  // Curves through the middles of neighbouring points are smooth, whatever the speed of the pen.
  for (let index = 1; index < points.length - 1; index++) {
    const [x, y] = points[index];
    const [nextX, nextY] = points[index + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...points.at(-1)); // a single point becomes a dot, thanks to the round cap
  context.stroke();
}

/** Paints strokes on a square canvas, as sharp as the screen is, in the text colour of the canvas. */
export function paint(canvas, strokes, width = 0.035) {
  const side = Math.round(canvas.clientWidth * window.devicePixelRatio);
  if (side === 0) return; // in a hidden tab
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = width * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) trace(context, stroke, side);
}

/** The strokes as a PNG file, dark on white. */
export function pictureOf(strokes, name, side = 105) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  context.strokeStyle = "black";
  context.lineWidth = 0.03 * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) trace(context, stroke, side);
  return new Promise((resolve) => {
    canvas.toBlob((blob) => resolve(new File([blob], name, { type: "image/png" })), "image/png");
  });
}
