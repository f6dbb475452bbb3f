// What a hand can do to the photo: point, cover a part and watch the score, draw a region.
import { get } from "./api.js";
import { app, failed, hear, say } from "./app.js";
import { mapsShown, showShares } from "./decide.js";
import { choice, fill, h, latest, percent, s } from "./dom.js";
import { canvas, inputAt, photoBox, rectangle } from "./frames.js";
import { t } from "./i18n.js";
import { list, on, set, state } from "./state.js";

const NAMES = ["point", "mask", "region"];

export class Tools {
  constructor() {
    this.tool = "point";
    this.size = 0.25;
    this.fill = "mean";
    this.centre = { x: 0.5, y: 0.5 };
    this.region = [];
    this.frame = null;
    this.node = h("div", { class: "tools-bar" });
    this.ask = latest(() => this.cover());
    hear("next-tool", () => this.choose(NAMES[(NAMES.indexOf(this.tool) + 1) % 3]));
    hear("escape", () => { if (this.tool !== "point") this.choose("point"); });
    on("mask region", () => this.fromAddress());
    on("off", () => { if (this.tool === "mask") this.moved(); });
    this.fromAddress();
  }

  bar() {
    const parts = [choice(t("photo"), NAMES.map((name) => [name, t(name), t(`${name}Title`)]), this.tool, (name) => this.choose(name))];
    if (this.tool === "mask") {
      parts.push(h("label", { class: "slider" }, h("span", {}, t("maskSize")), h("input", { type: "range", min: 3, max: 80, value: this.size * 100,
        oninput: (event) => { this.size = event.target.value / 100; this.moved(); }, onchange: () => this.toAddress() })),
      h("select", { "aria-label": t("maskFill"), onchange: (event) => { this.fill = event.target.value; this.moved(); this.toAddress(); } },
        [["mean", t("mean")], ["blur", t("blur")], ["0.5", t("grey")]].map(([value, word]) => h("option", { value, selected: value === this.fill }, word))),
      h("span", { class: "soft hint" }, t("maskDrag")));
    }
    if (this.tool === "region") {
      parts.push(h("span", { class: "soft hint" }, t("drawRegion")),
        this.region.length ? h("button", { type: "button", class: "small", onclick: () => { this.region = []; this.draw(); this.shares(); this.toAddress(); this.bar(); } }, t("clearRegion")) : null, this.area ? h("span", { class: "soft" }, t("areaShare", { p: percent(this.area) })) : null);
    }
    return fill(this.node, parts);
  }

  choose(name) {
    this.tool = name;
    if (name !== "region") { this.region = []; this.area = null; }
    app.masking = name === "mask";
    this.bar();
    this.draw();
    if (name === "mask") this.moved(); else { say("change", null); say("uncovered"); }
    this.shares();
    this.toAddress();
  }

  /** What the address holds: the mask as centre, size and fill, the region as its corners, in shares of the photo. */
  toAddress() {
    const short = (value) => String(Math.round(value * 1000) / 1000);
    const every = Math.max(1, Math.ceil(this.region.length / 60));
    this.writing = true;
    set({
      mask: this.tool === "mask" ? [short(this.centre.x), short(this.centre.y), short(this.size), this.fill].join(",") : "",
      region: this.region.length > 2 ? this.region.filter((_, i) => i % every === 0).map((p) => `${short(p.x)},${short(p.y)}`).join(";") : "",
    }, true);
    this.writing = false;
  }

  fromAddress() {
    if (this.writing) return;
    const share = (text) => Math.min(1, Math.max(0, Number(text) || 0));
    const [x, y, size, fillWith] = state.mask.split(",");
    const region = state.region.split(";").map((corner) => corner.split(",")).filter((corner) => corner.length === 2).map(([a, b]) => ({ x: share(a), y: share(b) }));
    if (state.mask) {
      Object.assign(this, { tool: "mask", centre: { x: share(x), y: share(y) }, size: Math.min(0.8, Math.max(0.03, share(size) || 0.25)), fill: ["mean", "blur", "0.5"].includes(fillWith) ? fillWith : "mean", region: [] });
    } else if (region.length > 2) {
      Object.assign(this, { tool: "region", region });
    } else if (this.tool === "mask" || (this.tool === "region" && this.region.length > 2)) {
      Object.assign(this, { tool: "point", region: [], area: null });
      say("change", null);
      say("uncovered");
    }
    app.masking = this.tool === "mask";
    this.bar();
    if (this.frame?.node.isConnected) { this.draw(); if (this.tool === "mask") this.ask(); this.shares(); }
  }

  /** The photo's frame: hears the pointer and the arrow keys. */
  attach(frame) {
    if (this.frame !== frame) {
      this.frame = frame;
      const stage = frame.stage;
      stage.addEventListener("pointerdown", (event) => this.down(event));
      stage.addEventListener("pointermove", (event) => this.move(event));
      stage.addEventListener("pointerup", () => this.up());
      stage.addEventListener("pointercancel", () => this.up());
      stage.addEventListener("keydown", (event) => this.keys(event));
    }
    this.draw();
    if (this.tool === "mask") this.moved();
  }

  place(event) {
    const box = this.frame.stage.getBoundingClientRect();
    return { x: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), y: Math.min(1, Math.max(0, (event.clientY - box.top) / box.height)) };
  }

  down(event) {
    if (this.tool === "point") return;
    event.preventDefault();
    this.frame.stage.setPointerCapture(event.pointerId);
    this.dragging = true;
    this.held = event.pointerId;
    if (this.tool === "mask") { this.centre = this.place(event); this.moved(); } else this.region = [this.place(event)];
  }

  move(event) {
    if (!this.dragging) return;
    if (this.tool === "mask") { this.centre = this.place(event); this.moved(); } else { this.region.push(this.place(event)); this.draw(); }
  }

  up() {
    if (!this.dragging) return;
    this.dragging = false;
    if (this.tool === "region") { if (this.region.length < 3) this.region = []; this.shares(); this.bar(); this.draw(); }
    this.toAddress();
  }

  keys(event) {
    if (this.tool !== "mask") return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const pace = event.shiftKey ? 0.1 : 0.02;
    this.centre = { x: Math.min(1, Math.max(0, this.centre.x + step[0] * pace)), y: Math.min(1, Math.max(0, this.centre.y + step[1] * pace)) };
    this.moved();
    this.toAddress();
  }

  /** The mask in input pixels, whole ones. */
  box() {
    const [rows, columns] = app.picture.input;
    const side = Math.max(1, Math.round(this.size * Math.min(rows, columns)));
    const at = inputAt(this.centre);
    const x0 = Math.min(Math.max(0, columns - side), Math.max(0, Math.round(at.x - side / 2)));
    const y0 = Math.min(Math.max(0, rows - side), Math.max(0, Math.round(at.y - side / 2)));
    return [x0, y0, Math.min(columns, x0 + side), Math.min(rows, y0 + side)];
  }

  moved() {
    this.draw();
    if (app.picture && this.tool === "mask") this.ask();
  }

  async cover() {
    const [x0, y0, x1, y1] = this.box();
    const { picture, target, against } = state;
    try {
      const found = await get("/api/cover", { picture, target, against, x0, y0, x1, y1, fill: this.fill, off: list("off") });
      if (this.tool === "mask" && picture === state.picture && target === state.target && against === state.against) say("change", found);
    } catch (error) { failed(error); }
  }

  draw() {
    if (!this.frame?.node.isConnected || !app.picture) return;
    const { marks, stage } = this.frame;
    stage.classList.toggle("grabs", this.tool !== "point");
    stage.tabIndex = this.tool === "mask" ? 0 : -1;
    if (this.tool === "mask") stage.dataset.arrows = "1"; else delete stage.dataset.arrows;
    marks.querySelectorAll(".mask, .region").forEach((node) => node.remove());
    if (this.tool === "mask") {
      const shown = rectangle(photoBox(this.box()), `mask fill-${this.fill === "0.5" ? "grey" : this.fill}`);
      if (this.fill === "mean") shown.setAttribute("fill", meanColour());
      marks.append(shown);
    }
    if (this.region.length > 1) {
      const { width, height } = canvas();
      marks.append(s("path", { class: "region", "vector-effect": "non-scaling-stroke", d: `M${this.region.map((p) => `${p.x * width},${p.y * height}`).join("L")}Z` }));
    }
  }

  /** The shares of the maps' evidence inside the region. */
  shares() {
    if (this.region.length < 3 || !app.picture) { this.area = null; showShares(null); return; }
    const [rows, columns] = app.picture.input;
    const points = this.region.map((place) => inputAt(place));
    const inside = new Uint8Array(rows * columns);
    let count = 0;
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1) {
        if (within(points, x, y)) { inside[y * columns + x] = 1; count += 1; }
      }
    }
    this.area = count / (rows * columns);
    if (this.tool === "region") this.bar();
    if (mapsShown().size) showShares(count ? inside : null);
  }
}

/** The colour that the mask fills in: the mean of the pictures that the network was trained with. */
function meanColour() {
  const mean = app.model.preprocessing?.mean;
  if (!Array.isArray(mean) || ![1, 3].includes(mean.length)) return "#888";
  const [r, g, b] = (mean.length === 1 ? [mean[0], mean[0], mean[0]] : mean).map((value) => Math.round(255 * Math.min(1, Math.max(0, value))));
  return `rgb(${r},${g},${b})`;
}

/** Whether a point lies in a polygon (even-odd rule). */
export function within(points, x, y) {
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
    const a = points[i], b = points[j];
    if (a.y > y !== b.y > y && x < ((b.x - a.x) * (y - a.y)) / (b.y - a.y) + a.x) inside = !inside;
  }
  return inside;
}
