// Drawings to start from. Every character is a few strokes of "x,y" points in hundredths of the canvas; "~" makes a
// stroke a smooth curve. `variant` draws one as another hand would, so that no two examples are alike.

export const SAMPLES = [
  {
    name: "Runes",
    characters: {
      Fork: ["50,88 50,14", "50,50 24,20", "50,50 76,20"],
      Gate: ["24,86 24,16", "76,86 76,16", "24,30 76,62"],
      Arrow: ["50,90 50,12", "26,38 50,12 74,38"],
      Flag: ["34,90 34,12 74,28 34,46", "34,46 70,84"],
      Ladder: ["30,88 38,12", "62,88 70,12", "35,36 66,36", "32,64 64,64"],
      Hourglass: ["24,14 76,14 24,86 76,86 24,14"],
    },
  },
  {
    name: "Loops",
    characters: {
      Snail: ["~50,52 58,46 60,56 48,64 36,54 42,36 62,32 76,50 70,74 46,84 22,76"],
      Ribbon: ["~20,82 44,54 66,26 50,12 34,26 56,54 80,82"],
      Hook: ["~30,20 32,60 44,82 64,78 70,58", "~56,64 70,56 84,66"],
      Waves: ["~14,36 28,22 42,36 56,50 70,36 86,24", "~14,68 28,54 42,68 56,82 70,68 86,56"],
      Drop: ["~50,12 34,42 26,64 38,84 62,84 74,64 66,42 50,12", "~42,66 50,74 58,66"],
      Eight: ["~50,48 30,32 50,14 70,32 50,48 26,68 50,88 74,68 50,48"],
    },
  },
  {
    name: "Little pictures",
    characters: {
      House: ["22,46 50,16 78,46", "28,42 28,84 72,84 72,42", "44,84 44,62 58,62 58,84"],
      Fish: ["~16,50 36,30 60,34 86,66", "~16,50 36,70 60,66 86,34", "86,34 86,66"],
      Face: ["~50,12 18,30 16,66 50,88 84,66 82,30 50,12", "36,36 36,46", "64,36 64,46", "~34,62 50,74 66,62"],
      Tree: ["50,90 50,52", "~50,56 26,54 24,32 44,14 66,18 78,38 68,56 50,56"],
      Boat: ["16,66 30,84 70,84 84,66 16,66", "50,66 50,12 76,54 50,54"],
      Umbrella: ["~14,52 26,22 50,14 74,22 86,52", "14,52 86,52", "~50,14 50,50 50,80 42,88 34,80"],
    },
  },
];

/** A generator of numbers between -1 and 1 that gives the same ones for the same seed. */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    // mulberry32 by Tommy Ettinger, public domain
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

function spline(points, pieces = 10) {
  const curve = [points[0]];
  for (let index = 0; index < points.length - 1; index++) {
    const [a, b, c, d] = [-1, 0, 1, 2].map((k) => points[Math.min(points.length - 1, Math.max(0, index + k))]);
    for (let piece = 1; piece <= pieces; piece++) {
      const t = piece / pieces;
      curve.push(
        [0, 1].map(
          // Catmull and Rom, 1974: through the points, with the slope of their neighbours
          (k) =>
            b[k] +
            0.5 * t * (c[k] - a[k] + t * (2 * a[k] - 5 * b[k] + 4 * c[k] - d[k] + t * (3 * (b[k] - c[k]) + d[k] - a[k]))),
        ),
      );
    }
  }
  return curve;
}

function polyline(points, pieces = 8) {
  const line = [points[0]];
  for (let index = 1; index < points.length; index++) {
    const [from, to] = [points[index - 1], points[index]];
    for (let piece = 1; piece <= pieces; piece++) {
      line.push([0, 1].map((k) => from[k] + ((to[k] - from[k]) * piece) / pieces));
    }
    if (index < points.length - 1) line.push(points[index], points[index]); // keeps the corner a corner
  }
  return line;
}

/** Strokes of a character in the hand number `seed`: turned, sheared, stretched and a little shaky. */
export function variant(character, seed) {
  const random = randomNumbers(seed * 7919 + 17);
  const [turn, shear, width, height] = [0.12 * random(), 0.12 * random(), 1 + 0.1 * random(), 1 + 0.1 * random()];
  const [right, down] = [0.03 * random(), 0.03 * random()];
  const [cosine, sine] = [Math.cos(turn), Math.sin(turn)];
  const move = ([x, y]) => {
    const [u, v] = [width * (x - 0.5) + shear * (y - 0.5), height * (y - 0.5)];
    const moved = [0.5 + cosine * u - sine * v + right, 0.5 + sine * u + cosine * v + down];
    return moved.map((value) => Math.round(1e4 * Math.min(0.97, Math.max(0.03, value))) / 1e4);
  };
  return character.map((text) => {
    const points = text
      .replace("~", "")
      .split(" ")
      .map((pair) => pair.split(",").map((value) => Number(value) / 100 + 0.018 * random()));
    return (text.startsWith("~") ? spline(points) : polyline(points)).map(move);
  });
}
