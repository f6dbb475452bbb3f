// Values to colours, exactly as the library's draw.colour and draw.overlay do it: the same tables, the same blending.

import { get } from "./api.js";

const LEVELS = 511;
const tables = new Map();

/** Load a colour map of the library: 511 rows of red, green, blue. */
export async function table(name) {
  if (!tables.has(name)) {
    tables.set(name, get(`/api/colours/${encodeURIComponent(name)}`).then((rows) => {
      const flat = new Uint8Array(LEVELS * 3);
      rows.forEach((row, i) => flat.set(row, i * 3));
      return flat;
    }));
  }
  return tables.get(name);
}

/** Where a value lies on a scale, 0 to 1; NaN where it is not finite. */
function position(value, scale) {
  if (!Number.isFinite(value)) return NaN;
  if (scale.high === scale.low) return value < scale.low ? 0 : value > scale.high ? 1 : scale.signed ? 0.5 : 0;
  return Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low)));
}

function strength(value, scale) {
  if (!Number.isFinite(value)) return 1;
  const centre = scale.signed ? scale.centre ?? 0 : 0;
  const room = scale.high - centre;
  if (!(room > 0)) return 0;
  return Math.min(scale.signed ? Math.abs(value - centre) : Math.max(value, 0), room) / room;
}

function level(out, at, value, scale, colours, x, y) {
  const where = position(value, scale);
  if (Number.isNaN(where)) { // grey hatching: there is no value here
    const dark = ((x + y) % 8) < 4 ? 168 : 214;
    out[at] = out[at + 1] = out[at + 2] = dark;
    return;
  }
  const row = Math.round(where * (LEVELS - 1)) * 3;
  out[at] = colours[row]; out[at + 1] = colours[row + 1]; out[at + 2] = colours[row + 2];
}

/** One map without a photo, a pixel a value: for tiles. Returns ImageData. */
export function paint(values, width, height, scale, colours, offset = 0) {
  const image = new ImageData(width, height);
  const out = image.data;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = (y * width + x) * 4;
      level(out, at, values[offset + y * width + x], scale, colours, x, y);
      out[at + 3] = 255;
    }
  }
  return image;
}

/** The 2×3 affine of input pixels to the pixels of a photo that was resized by (fx, fy). */
export function scaled(matrix, fx, fy) {
  return [
    [matrix[0][0] * fx, matrix[0][1] * fx, matrix[0][2] * fx + fx / 2 - 0.5],
    [matrix[1][0] * fy, matrix[1][1] * fy, matrix[1][2] * fy + fy / 2 - 0.5],
  ];
}

// as in the library's draw.overlay: the photo is darkened (lightened) until all colours are brighter (darker) than it
export const OPACITY = 0.7;
const MUTE = 0.65, DIM = 0.58, DIM_SIGNED = -0.6;

/** The name of the colours that a scale has over a photo. */
export const over = (scale) => `${scale.cmap}@over${scale.signed ? "-signed" : ""}`;

/**
 * A map over a photo. `photo` is ImageData, `matrix` from input pixels to its pixels (no rotation), `sharp` draws map
 * pixels as squares. `mode`: "over" the photo, or "alone" in its frame.
 */
export function overlay(photo, values, shape, matrix, scale, colours, { mode = "over", opacity = OPACITY, sharp = false } = {}) {
  const { width, height } = photo;
  const [rows, columns] = shape;
  const result = new ImageData(width, height);
  const from = photo.data;
  const out = result.data;
  const colour = new Uint8ClampedArray(4);
  const dim = scale.signed ? DIM_SIGNED : DIM;
  const towards = dim > 0 ? 0 : 255;
  const mute = MUTE;
  const slack = 1e-9 * Math.max(rows, columns);
  for (let y = 0; y < height; y += 1) {
    const v = (y - matrix[1][2]) / matrix[1][1];
    const insideY = v >= -0.5 - slack && v <= rows - 0.5 + slack;
    const cy = Math.min(rows - 1, Math.max(0, v));
    const top = Math.floor(cy);
    const bottom = Math.min(top + 1, rows - 1);
    const nearY = Math.min(rows - 1, Math.floor(cy + 0.5));
    for (let x = 0; x < width; x += 1) {
      const at = (y * width + x) * 4;
      const red = from[at], green = from[at + 1], blue = from[at + 2];
      const grey = 0.299 * red + 0.587 * green + 0.114 * blue;
      out[at + 3] = 255;
      const u = (x - matrix[0][2]) / matrix[0][0];
      if (!insideY || u < -0.5 - slack || u > columns - 0.5 + slack) {
        out[at] = out[at + 1] = out[at + 2] = grey + 0.6 * (255 - grey);
        continue;
      }
      const cx = Math.min(columns - 1, Math.max(0, u));
      const near = values[nearY * columns + Math.min(columns - 1, Math.floor(cx + 0.5))];
      let value = near;
      if (!sharp) {
        const left = Math.floor(cx);
        const right = Math.min(left + 1, columns - 1);
        const a = cx - left, b = cy - top;
        const upper = values[top * columns + left] * (1 - a) + values[top * columns + right] * a;
        const lower = values[bottom * columns + left] * (1 - a) + values[bottom * columns + right] * a;
        const mixed = upper * (1 - b) + lower * b;
        if (Number.isFinite(mixed) && Number.isFinite(near)) value = mixed;
      }
      level(colour, 0, value, scale, colours, x, y);
      if (mode === "alone") {
        out[at] = colour[0]; out[at + 1] = colour[1]; out[at + 2] = colour[2];
        continue;
      }
      const share = strength(value, scale);
      const alpha = opacity * (1 - (1 - share) * (1 - share));
      for (let c = 0; c < 3; c += 1) {
        const own = from[at + c];
        let muted = own + mute * (grey - own);
        muted += Math.abs(dim) * (towards - muted);
        out[at + c] = muted + alpha * (colour[c] - muted);
      }
    }
  }
  return result;
}

/** A scale for values that are compared or shown alone: zero-based, or centred on zero; clipped at a percentile. */
export function scaleFor(values, signed, from = 0, to = values.length) {
  const found = [];
  const step = Math.max(1, Math.floor((to - from) / 200000));
  let low = Infinity;
  for (let i = from; i < to; i += step) {
    const value = values[i];
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    found.push(signed ? Math.abs(value) : Math.max(value, 0));
  }
  if (!found.length) return { low: 0, high: 0, signed };
  found.sort((a, b) => a - b);
  const place = 0.995 * (found.length - 1);
  const under = Math.floor(place);
  let high = found[under] + (place - under) * (found[Math.min(under + 1, found.length - 1)] - found[under]);
  if (high <= 0) high = found[found.length - 1];
  return signed ? { low: -high, high, signed } : { low: Math.min(0, low), high, signed };
}

/** The scale's colours as they look over a white photo (above) and over a black one, drawn into a canvas. */
export function overBar(canvas, scale, colours) {
  const photo = new ImageData(128, 2);
  photo.data.fill(255);
  for (let x = 0; x < 128; x += 1) photo.data.fill(0, (128 + x) * 4, (128 + x) * 4 + 3);
  const values = Float64Array.from({ length: 256 }, (_, i) => scale.low + ((scale.high - scale.low) * (i % 128)) / 127);
  canvas.width = 128; canvas.height = 2;
  canvas.getContext("2d").putImageData(overlay(photo, values, [2, 128], [[1, 0, 0], [0, 1, 0]], scale, colours, { sharp: true }), 0, 0);
}

/** The scale's colours from low to high, drawn into a canvas. */
export function bar(canvas, scale, colours) {
  canvas.width = 128; canvas.height = 1;
  const image = new ImageData(128, 1);
  const line = { ...scale };
  for (let x = 0; x < 128; x += 1) {
    level(image.data, x * 4, scale.low + ((scale.high - scale.low) * x) / 127, line, colours, x, 0);
    image.data[x * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export const DIVERGING = "RdBu_r";
export const SEQUENTIAL = "inferno";
