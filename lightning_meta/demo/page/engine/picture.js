// What a person gives: strokes become a picture like Omniglot's, as demo/drawing.py makes it, and files are decoded.

const SIDE = 105; // pixels of Omniglot's pictures
const BRUSH = 5; // pixels, the diameter of its brush
const EXTENT = 62.5; // pixels between the outermost points of a drawing, the larger of width and height
const LARGEST_SCALE = 4 * SIDE; // pixels for the side of a canvas: a dot stays a dot
const MAX_PIXELS = 50_000_000; // of a file, as in lightning_meta.data.files.pictures

/**
 * A picture {width, height, channels, data} of strokes or of a file.
 *
 * @param {{strokes: number[][][]} | {file: string}} given as the page hands it over; `file` is base64
 */
export async function pictureOf(given) {
  return given.strokes ? drawLikeOmniglot(given.strokes) : decode(given.file);
}

/** Strokes (points in sides of the canvas), centred, as large as Omniglot's in the mean, black (0) on white (255). */
export function drawLikeOmniglot(strokes) {
  const data = new Uint8ClampedArray(SIDE * SIDE).fill(255);
  for (const stroke of centred(strokes)) {
    stroke.forEach((point, place) => inkSegment(data, stroke[Math.max(place - 1, 0)], point));
  }
  return { width: SIDE, height: SIDE, channels: 1, data };
}

/** The points in pixels: the middle of the drawing in the middle of the picture, the larger extent `EXTENT`. */
function centred(strokes) {
  const points = strokes.flat();
  if (!points.length) throw new Error("A drawing has no strokes: draw something on it.");
  if (!points.flat().every(Number.isFinite)) throw new Error("A drawing has a point without a place.");
  const extreme = (pick, axis) => points.reduce((value, point) => pick(value, point[axis]), points[0][axis]);
  const left = extreme(Math.min, 0), top = extreme(Math.min, 1);
  const right = extreme(Math.max, 0), bottom = extreme(Math.max, 1);
  const extent = Math.max(right - left, bottom - top);
  const scale = extent ? Math.min(EXTENT / extent, LARGEST_SCALE) : 0;
  return strokes.map((stroke) => stroke.map(([x, y]) =>
    [SIDE / 2 + (x - (left + right) / 2) * scale, SIDE / 2 + (y - (top + bottom) / 2) * scale]));
}

/** Blacken the pixels whose centre the brush touches on its way. */
function inkSegment(data, [x0, y0], [x1, y1]) {
  const reach = BRUSH / 2, dx = x1 - x0, dy = y1 - y0, square = dx * dx + dy * dy;
  const within = (value) => Math.min(Math.max(Math.floor(value), 0), SIDE - 1);
  for (let row = within(Math.min(y0, y1) - reach); row <= within(Math.max(y0, y1) + reach); row++) {
    for (let column = within(Math.min(x0, x1) - reach); column <= within(Math.max(x0, x1) + reach); column++) {
      const x = column + 0.5 - x0, y = row + 0.5 - y0;
      const along = square ? Math.min(Math.max((x * dx + y * dy) / square, 0), 1) : 0;
      if ((x - along * dx) ** 2 + (y - along * dy) ** 2 <= reach * reach) data[row * SIDE + column] = 0;
    }
  }
}

/** A file of any kind that the browser shows: upright, its first frame, on white where it is transparent. */
async function decode(file) {
  const bytes = Uint8Array.from(atob(file.slice(file.indexOf(",") + 1)), (character) => character.charCodeAt(0));
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  } catch {
    throw new Error("A file is not a picture that this browser can read: take a PNG, JPEG or WebP file.");
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    throw new Error(`A picture has ${width} x ${height} pixels, expected at most ${MAX_PIXELS} in all.`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const shown = context.getImageData(0, 0, width, height).data;
  const data = new Uint8ClampedArray(3 * width * height);
  for (let place = 0; place < width * height; place++) {
    data.set(shown.subarray(4 * place, 4 * place + 3), 3 * place);
  }
  return { width, height, channels: 3, data };
}
