// Pictures side by side under one cursor: each frame is a photo, a map over it, and what is under the cursor.
import { app, hear, ours, say } from "./app.js";
import { Refusal, ask } from "./api.js";
import { OPACITY, bar, over, overBar, overlay, scaled, table } from "./colour.js";
import { h, number, s } from "./dom.js";
import { t, told } from "./i18n.js";

const LONGEST = 640;
const frames = new Set();
let base = null; // {id, image: ImageData, factor: [fx, fy], details}

/** Photos so much longer than wide are drawn as the network sees them: their maps would be a few pixels high. */
const EXTREME = 3;

/** What the maps lie over: the photo, or the network's input of an extreme one. `matrix`: from input to its pixels. */
export function canvas() {
  const { id, width, height, input, input_to_photo: matrix } = app.picture;
  if (Math.max(width, height) <= EXTREME * Math.min(width, height)) {
    return { width, height, matrix, whole: true, url: `/api/pictures/${id}/photo?side=${LONGEST}` };
  }
  return { width: input[1], height: input[0], matrix: [[1, 0, 0], [0, 1, 0]], whole: false, url: ours(`/api/pictures/${id}/input`) };
}

/** The chosen photo at the size it is drawn: small ones enlarged by a whole factor, large ones reduced. */
export async function photo() {
  const details = app.picture;
  if (base && base.id === details.id) return base;
  const over = canvas();
  const image = new Image();
  image.src = over.url;
  try { await image.decode(); } catch {
    // the browser says that it cannot decode what never came: ask once more, so that the reason is known
    await ask(over.url);
    throw new Refusal(t("photoLost"), 0);
  }
  const longer = Math.max(over.width, over.height);
  const grow = longer < 256 ? Math.ceil(256 / longer) : 1;
  const width = image.naturalWidth * grow;
  const height = image.naturalHeight * grow;
  const drawing = document.createElement("canvas");
  drawing.width = width; drawing.height = height;
  const context = drawing.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  base = { id: details.id, image: context.getImageData(0, 0, width, height), factor: [width / over.width, height / over.height], grown: grow > 1, over, details };
  return base;
}

/** A frame: {node, canvas, caption, ...}. `draw` puts pixels on it, `value` is what stands under the cursor. */
export class Frame {
  constructor({ title, about = null, tools = [] }) {
    this.values = null;
    this.matrix = null; // from its own network's input to the photo, where that is not the page's network
    this.canvas = h("canvas", { class: "pixels", role: "img", "aria-label": title });
    this.marks = s("svg", { class: "marks", "aria-hidden": "true", preserveAspectRatio: "none" });
    this.cross = h("div", { class: "cross", "aria-hidden": "true" }, h("i"), h("b"));
    this.stage = h("div", { class: "stage" }, this.canvas, this.marks, this.cross);
    this.under = h("output", { class: "under" });
    this.title = h("span", { class: "title" }, title);
    this.legend = h("div", { class: "legend" });
    this.says = h("p", { class: "says" });
    this.notes = h("div", { class: "notes" });
    this.node = h("figure", { class: "frame" }, h("div", { class: "head" }, this.title, h("span", { class: "spacer" }), about, tools), this.stage,
      h("figcaption", {}, this.legend, this.says, this.under, this.notes));
    this.stage.addEventListener("pointermove", (event) => point(this, event));
    this.stage.addEventListener("pointerleave", () => say("cursor", null));
    frames.add(this);
  }

  /** The plain photo. */
  async plain() {
    const photoBase = await photo();
    this.put(photoBase.image);
    this.values = null;
    this.notes.replaceChildren(photoBase.over.whole ? "" : h("p", { class: "soft" }, t("inputDrawn", { w: photoBase.details.width, h: photoBase.details.height })));
  }

  /** Nothing: the photo cannot be shown. */
  blank() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.marks.replaceChildren();
    this.values = null;
  }

  /** A map over the photo. */
  async map(about, array, scale, opacity) {
    const alone = about.pixels && opacity === null;
    const named = { cmap: about.scale.cmap, ...scale };
    const [photoBase, colours] = await Promise.all([photo(), table(alone ? named.cmap : over(named))]);
    const matrix = scaled(this.own(), ...photoBase.factor);
    this.put(overlay(photoBase.image, array.data, array.shape, matrix, scale, colours,
      { mode: alone ? "alone" : "over", opacity: opacity ?? OPACITY, sharp: photoBase.grown }));
    this.values = array;
    this.about = about;
    const line = h("canvas", { class: "bar", "aria-hidden": "true" });
    if (alone) bar(line, scale, colours); else overBar(line, scale, colours);
    const middle = scale.signed && scale.centre ? h("span", { class: "middle" }, number(scale.centre)) : null;
    this.legend.replaceChildren(h("span", {}, number(scale.low)), ...(middle ? [h("span", { class: "barred" }, line, middle)] : [line]), h("span", {}, number(scale.high)));
    this.legend.title = scaleWords(about.scale);
    this.says.textContent = about.scale.note ? told(about.scale.note) : "";
  }

  /** From its own network's input to what the maps lie over. */
  own() {
    const over = canvas();
    if (!this.matrix) return over.matrix;
    if (over.whole) return this.matrix;
    const [a, b] = [app.picture.input_to_photo, this.matrix];
    return [0, 1].map((axis) => { const row = [0, 0, (b[axis][2] - a[axis][2]) / a[axis][axis]]; row[axis] = b[axis][axis] / a[axis][axis]; return row; });
  }

  put(image) {
    if (this.canvas.width !== image.width || this.canvas.height !== image.height) {
      this.canvas.width = image.width;
      this.canvas.height = image.height;
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.stage.style.aspectRatio = `${image.width} / ${image.height}`;
    const over = canvas();
    this.marks.setAttribute("viewBox", `0 0 ${over.width} ${over.height}`);
  }

  /** Show the cursor at a place of the photo (0..1), and the value there. */
  cursor(place) {
    this.cross.classList.toggle("on", Boolean(place));
    if (!place) { this.under.textContent = ""; return; }
    const { width, height } = this.stage.getBoundingClientRect();
    this.cross.firstChild.style.transform = `translateX(${place.x * width}px)`;
    this.cross.lastChild.style.transform = `translateY(${place.y * height}px)`;
    if (!this.values) { this.under.textContent = ""; return; }
    const value = at(this.values, place, this.own());
    this.under.textContent = value === undefined ? t("outside") : `${number(value)} ${told(this.about.unit ?? "")}`;
  }

  remove() { frames.delete(this); }
}

/** A scale in words: its ends and unit, its centre, where it is clipped, and what it hides. */
function scaleWords(scale) {
  return [`${number(scale.low)} – ${number(scale.high)} ${told(scale.unit ?? "")}`.trim(), scale.signed ? t("centred", { value: number(scale.centre ?? 0) }) : null,
    scale.percentile ? t("clipped", { p: scale.percentile }) : null, scale.note ? told(scale.note) : null].filter(Boolean).join(", ");
}

/** Input pixel (x, y) under a place of the photo (0..1). */
export function inputAt(place, matrix = null) {
  const { width, height } = canvas();
  const m = matrix ?? canvas().matrix;
  return { x: (place.x * width - 0.5 - m[0][2]) / m[0][0], y: (place.y * height - 0.5 - m[1][2]) / m[1][1] };
}

/** Photo pixel edges of a box of input pixels. */
export function photoBox([x0, y0, x1, y1]) {
  const m = canvas().matrix;
  const edge = (axis, value) => m[axis][axis] * (value - 0.5) + m[axis][2] + 0.5;
  return [edge(0, x0), edge(1, y0), edge(0, x1), edge(1, y1)];
}

function at(array, place, matrix = null) {
  const { x, y } = inputAt(place, matrix);
  const column = Math.round(x);
  const row = Math.round(y);
  const [rows, columns] = array.shape.slice(-2);
  if (column < 0 || row < 0 || column >= columns || row >= rows) return undefined;
  return array.data[row * columns + column];
}

function point(frame, event) {
  const box = frame.stage.getBoundingClientRect();
  const place = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  if (place.x < 0 || place.y < 0 || place.x > 1 || place.y > 1) return;
  say("cursor", place);
}

let waiting = null;
let scheduled = false;
hear("cursor", (place) => {
  waiting = place;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const frame of frames) {
      if (frame.node.isConnected) frame.cursor(waiting);
      else frames.delete(frame);
    }
  });
});

/** A rectangle in photo pixels for a frame's marks. */
export function rectangle([x0, y0, x1, y1], kind) {
  return s("rect", { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0), class: kind, "vector-effect": "non-scaling-stroke" });
}

// a layer that is pointed at draws its receptive field, to scale, in the middle of the photo (or at the cursor)
let hovered = null;
let last = { x: 0.5, y: 0.5 };
hear("cursor", (place) => { if (place) last = place; });
hear("hover-layer", (layer) => {
  hovered = layer;
  for (const frame of frames) {
    frame.marks.querySelectorAll(".hover-field").forEach((node) => node.remove());
    if (!hovered?.rf || !app.picture) continue;
    const [height, width] = hovered.rf.size ?? app.picture.input;
    const centre = inputAt(last);
    const snap = (value, axis) => {
      const stride = hovered.rf.stride?.[axis];
      const offset = hovered.rf.offset?.[axis];
      return stride && offset !== null && offset !== undefined ? offset + stride * Math.max(0, Math.round((value - offset) / stride)) : value;
    };
    const x = hovered.rf.size ? snap(centre.x, 1) : (app.picture.input[1] - 1) / 2;
    const y = hovered.rf.size ? snap(centre.y, 0) : (app.picture.input[0] - 1) / 2;
    frame.marks.append(rectangle(photoBox([x - width / 2 + 0.5, y - height / 2 + 0.5, x + width / 2 + 0.5, y + height / 2 + 0.5]), "hover-field"));
  }
});
