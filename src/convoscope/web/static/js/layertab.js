// A layer as a grid of its channels: what each makes of the picture, wants to see, or fires for most.
import { get, job, npy } from "./api.js";
import { app, failed, hear, layerOf, ours, say } from "./app.js";
import { aboutLayer } from "./about.js";
import { DIVERGING, SEQUENTIAL, bar, paint, scaleFor, table } from "./colour.js";
import { choice, fill, h, number } from "./dom.js";
import { Frame, canvas, inputAt, photoBox, rectangle } from "./frames.js";
import { howtoView } from "./howto.js";
import { cellWords } from "./layerlist.js";
import { t } from "./i18n.js";
import { on, set, state } from "./state.js";

let panel = null;
let tiles = null;
let found = null;
let values = null;
let limit = 64;
let asked = 0;
let photoFrame = null;
let work = null;
let wants = new Map(); // unit -> data URI of the picture that it wants

export function layerTab(node) {
  panel = node;
  limit = 64;
  work?.cancel();
  const layer = layerOf(state.layer);
  if (!layer) { fill(panel, h("p", { class: "empty" }, t("noLayer"))); return; }
  tiles = h("div", { class: "tiles", role: "group", "aria-label": state.layer });
  const modes = [["activation", t("activation")], ["wants", t("visualisation")], ["patch", t("patchTiles")], ["filter", t("filters")], ["how", t("howItComputes")]];
  const orders = [["strength", t("strength")], ["index", t("index")], ["selectivity", t("selectivity")], ["likeness", t("likeness")]];
  photoFrame = new Frame({ title: t("photo") });
  fill(panel,
    h("div", { class: "layer-head" },
      h("div", {}, h("h2", {}, state.layer, " ", h("button", { type: "button", class: "plain what", "aria-label": t("whatIsThis"), title: t("whatIsThis"), onclick: () => aboutLayer(layer) }, "?")),
        h("p", { class: "soft" }, [layer.type, layer.shape.slice(1).join("×"), layer.parameters ? t("parameters", { n: layer.parameters.toLocaleString() }) : null, cellWords(layer), layer.dead ? t(layer.dead === 1 ? "deadOne" : "deadTitle", { n: layer.dead }) : null].filter(Boolean).join(" · "))),
      photoFrame.node),
    h("div", { class: "bar" }, choice(t("layer"), modes, state.tiles, (value) => set({ tiles: value })), h("span", { class: "spacer" }),
      state.tiles === "activation" ? choice(t("scaleTitle"), [["own", t("ownScale")], ["shared", t("sharedScale")]], state.scale, (value) => { set({ scale: value }, true); layerTab(panel); }) : null,
      h("label", {}, h("span", {}, `${t("order")} `), h("select", { "aria-label": t("order"), onchange: (event) => set({ order: event.target.value }) },
        orders.map(([value, word]) => h("option", { value, selected: value === state.order }, word))))),
    h("div", { class: "above" }), tiles, h("div", { class: "below" }));
  show();
}

/** A picture was chosen whose answers are not here: what stands here is the former one's. */
const waiting = () => state.tiles !== "filter" && app.picture?.id !== state.picture && app.failed !== state.picture;

const below = (...parts) => fill(panel.querySelector(".below"), ...parts);

async function show() {
  const mine = ++asked;
  const layer = layerOf(state.layer);
  if (!panel?.isConnected || !layer || !state.picture) return;
  panel.classList.toggle("stale", waiting());
  if (app.failed === state.picture && state.tiles !== "filter") { photoFrame.blank(); below(); fill(tiles, h("p", { class: "problem" }, app.why)); return; }
  if (state.tiles === "filter") { if (app.picture?.id === state.picture) photoFrame.plain().catch(failed); showFilters(layer, mine); return; }
  if (state.tiles === "how") { const node = h("div", { class: "how-root" }); fill(tiles, node); below(); if (app.picture?.id === state.picture) { photoFrame.plain().catch(failed); howtoView(node); } return; }
  if (app.picture?.id !== state.picture) return;
  photoFrame.plain().catch(failed);
  if (state.tiles === "patch" && !layer.surveyed) { noPatches(layer); return; }
  if (!layer.grid) { fill(tiles, h("p", { class: "empty" }, t("noGrid"))); return; }
  panel.classList.add("stale");
  try {
    const given = { picture: state.picture, layer: state.layer, order: state.order, limit };
    if (state.order === "likeness" && state.unit.startsWith(`${state.layer}:`)) given.like = state.unit.split(":").at(-1);
    const answer = await get("/api/activations", given);
    const array = await npy(answer.values);
    if (mine !== asked || !panel.isConnected) return;
    [found, values] = [answer, array]; // together: what is drawn and what the cursor reads are of one answer
    await draw();
  } catch (error) {
    if (mine === asked) fill(tiles, h("p", { class: "problem" }, error.message));
  } finally {
    if (mine === asked) panel.classList.remove("stale");
  }
}

/** Without a survey of this layer there are no patches: say so, and where there are some. */
function noPatches(layer) {
  const at = app.layers.indexOf(layer);
  const near = app.layers.map((one, i) => [Math.abs(i - at), one]).filter(([, one]) => one.surveyed).sort((a, b) => a[0] - b[0]).slice(0, 4).map(([, one]) => one);
  fill(tiles, h("div", { class: "empty" }, h("p", {}, app.model.survey ? t("notSurveyedLayer", { layer: layer.name }) : t("noSurvey")),
    near.length ? h("p", { class: "chips" }, near.map((one) => h("button", { type: "button", class: "chip", onclick: () => set({ layer: one.name }) }, one.name))) : null,
    app.model.survey ? null : h("button", { type: "button", onclick: () => set({ tab: "collection" }) }, t("collection"))));
  below();
}

async function draw() {
  const [, rows, columns] = values.shape;
  const signed = found.scale.signed;
  const colours = await table(signed ? DIVERGING : SEQUENTIAL);
  const nodes = found.channels.map((one, i) => {
    const unit = `${found.layer}:${one.channel}`;
    const from = i * rows * columns;
    const scale = state.scale === "shared" ? found.scale : scaleFor(values.data, signed, from, from + rows * columns);
    return tile(unit, one, i, scale, colours, rows, columns, from);
  });
  fill(tiles, nodes);
  const line = h("canvas", { class: "bar" });
  if (state.scale === "shared") bar(line, found.scale, colours);
  below(h("p", { class: "soft" }, t("channelsShown", { shown: found.channels.length, total: found.total }), ". ", t({ strength: "tileStrength", selectivity: "tileSelectivity" }[state.order] ?? "tileMax"), " ", t("tileHint"), " ", state.tiles === "activation" && state.scale !== "shared" ? ownScaleWords() : null,
    state.scale === "shared" && state.tiles === "activation" ? h("span", { class: "legend" }, " ", number(found.scale.low), line, number(found.scale.high)) : null),
  found.total > found.channels.length ? h("button", { type: "button", onclick: () => { limit = Math.min(512, limit * 2); show(); } }, t("more")) : null,
  null);
  fill(panel.querySelector(".above"), state.tiles === "wants" ? wantsBar() : null);
  if (state.tiles === "wants") keptBefore(found.layer);
}

/** The pictures that a survey or a former visit has kept. */
async function keptBefore(layer) {
  try {
    const kept = Object.entries(await get("/api/wanted", { layer })).filter(([unit]) => !wants.has(unit));
    for (const [unit, one] of kept) put(unit, one.image);
    if (kept.length && found?.layer === layer && state.tiles === "wants" && !work) fill(panel.querySelector(".above"), wantsBar());
  } catch { /* those that are not kept can be made */ }
}

/** Whether a channel answers less than a twentieth of the layer's strongest: its own scale makes it look strong. */
const weak = (one) => state.tiles === "activation" && state.scale !== "shared" && Math.abs(one.max) < 0.05 * Math.max(Math.abs(found.scale.high), Math.abs(found.scale.low));

/** Where each tile has its own scale, a weak channel looks like a strong one: say how far apart they are. */
function ownScaleWords() {
  const peaks = found.channels.map((one) => Math.abs(one.max)).filter((value) => value > 0).sort((a, b) => a - b);
  if (peaks.length < 2) return null;
  return h("span", { class: "own-scales" }, t("ownScales", { low: number(peaks[0], 2), high: number(peaks.at(-1), 2) }));
}

/** The number under a tile: the one that the order goes by; the largest response where the order has none. */
function figure(one) {
  if (state.order === "strength") return number(one.strength);
  if (state.order === "selectivity") return one.selectivity === null || one.selectivity === undefined ? "–" : number(one.selectivity, 2);
  return number(one.max);
}

function tile(unit, one, i, scale, colours, rows, columns, from) {
  const drawing = h("canvas", { class: "pixelated" });
  drawing.width = columns; drawing.height = rows;
  drawing.getContext("2d").putImageData(paint(values.data, columns, rows, scale, colours, from), 0, 0);
  let picture = drawing;
  if (state.tiles === "wants") {
    // until it is made, the channel's activation stands there, faintly
    drawing.classList.add("faint");
    picture = [drawing, h("img", { alt: "", src: wants.get(unit) ?? null, class: wants.has(unit) ? "" : "missing" })];
  } else if (state.tiles === "patch") {
    picture = one.dead || one.never ? h("span", { class: "nothing" }, t("neverFires")) : h("img", { alt: "", loading: "lazy", src: ours(`/api/top-patch?unit=${encodeURIComponent(unit)}`), onerror: (event) => event.target.classList.add("missing") });
  }
  const cell = h("span", { class: "cell-mark", "aria-hidden": "true" });
  const node = h("button", {
    type: "button", class: `tile ${one.dead ? "is-dead" : ""} ${weak(one) ? "is-weak" : ""}`, "aria-pressed": String(unit === state.unit), dataset: { unit, at: i },
    title: `${unit} · ${number(one.max)}${weak(one) ? ` · ${t("weakChannel")}` : ""}${one.class ? ` · ${one.class} (${number(one.selectivity, 2)})` : ""}${one.dead ? ` · ${t("dead")}` : ""}`,
    onclick: () => set({ unit }),
  }, h("span", { class: "stage", style: { aspectRatio: `${columns} / ${rows}` } }, picture, cell), h("span", { class: "caption" }, h("b", {}, one.channel), h("span", {}, figure(one))));
  const stage = node.firstChild;
  stage.addEventListener("pointermove", (event) => {
    const box = stage.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    point(Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column)));
  });
  stage.addEventListener("pointerleave", () => say("cursor", null));
  return node;
}

/** The cursor stands on a cell: its centre in the photo, its receptive field, and each channel's value there. */
function point(row, column) {
  if (found.centres) {
    const { matrix: m, width, height } = canvas();
    say("cursor", {
      x: (m[0][0] * found.centres.x[column] + m[0][2] + 0.5) / width,
      y: (m[1][1] * found.centres.y[row] + m[1][2] + 0.5) / height,
    });
  }
}

let scheduled = null;
hear("cursor", (place) => {
  if (state.tab !== "layer" || !tiles?.isConnected || !found || !values) return;
  cancelAnimationFrame(scheduled);
  scheduled = requestAnimationFrame(() => mark(place));
});

function mark(place) {
  const [, rows, columns] = values.shape;
  photoFrame.marks.querySelectorAll(".cell-field").forEach((one) => one.remove());
  let row = -1, column = -1;
  if (place && found.centres) {
    const { x, y } = inputAt(place);
    const nearest = (centres, value) => centres.reduce((best, centre, i) => (Math.abs(centre - value) < Math.abs(centres[best] - value) ? i : best), 0);
    row = nearest(found.centres.y, y);
    column = nearest(found.centres.x, x);
    const size = found.geometry?.size;
    if (size) {
      const cx = found.centres.x[column], cy = found.centres.y[row];
      photoFrame.marks.append(rectangle(photoBox([cx - size[1] / 2 + 0.5, cy - size[0] / 2 + 0.5, cx + size[1] / 2 + 0.5, cy + size[0] / 2 + 0.5]), "cell-field"));
    }
  }
  for (const node of tiles.children) {
    const i = Number(node.dataset.at);
    const cell = node.querySelector(".cell-mark");
    const words = node.querySelector(".caption span");
    if (!cell) continue;
    if (row < 0) { cell.style.display = "none"; words.textContent = figure(found.channels[i]); continue; }
    Object.assign(cell.style, { display: "block", left: `${(100 * column) / columns}%`, top: `${(100 * row) / rows}%`, width: `${100 / columns}%`, height: `${100 / rows}%` });
    words.textContent = number(values.data[i * rows * columns + row * columns + column]);
  }
}

function wantsBar() {
  const units = found.channels.map((one) => `${found.layer}:${one.channel}`).filter((unit) => !wants.has(unit)).slice(0, 16);
  if (!units.length) return null;
  const meter = h("progress", { hidden: true });
  const words = h("span", { class: "soft" }, t("visualizeNote"));
  const button = h("button", { type: "button", onclick: () => {
    if (work) { work.cancel(); return; }
    button.textContent = t("cancel");
    meter.hidden = false;
    work = job({ kind: "visualize", targets: units, steps: 96 }, {
      progress: (at) => { meter.max = at.total ?? 1; meter.value = at.done; },
      frame: (frame) => { for (const [i, uri] of Object.entries(frame.pictures)) put(units[i], uri); },
    });
    work.done.then((result) => result.visualizations.forEach((one, i) => put(units[i], one.picture)), failed).finally(() => { work = null; if (panel.isConnected) show(); });
  } }, t("visualizeTiles"));
  return h("div", { class: "work" }, button, meter, words);
}

function put(unit, uri) {
  wants.set(unit, uri);
  const image = tiles?.querySelector(`[data-unit="${CSS.escape(unit)}"] img`);
  if (image) { image.src = uri; image.classList.remove("missing"); }
}

async function showFilters(layer, mine) {
  // filters are the same for every picture: what is shown stays while it is asked for again
  if (tiles.querySelector(".filters")?.dataset.layer !== layer.name) fill(tiles);
  try {
    const filters = await get("/api/filters", { layer: layer.name });
    if (mine !== asked || !panel.isConnected) return; // another layer was chosen meanwhile
    fill(tiles, filters.there && filters.feeds ? h("p", { class: "soft wide" }, t("feedingFilters", { layer: layer.name, conv: filters.layer })) : null,
      filters.there ? h("img", { class: "filters", "data-layer": layer.name, alt: `${t("filters")}: ${filters.layer}, ${filters.shape.join("×")}`, src: ours(`/api/filters.png?layer=${encodeURIComponent(layer.name)}`) })
        : h("p", { class: "empty" }, t("notConvolution")));
    below();
  } catch (error) { if (mine === asked) fill(tiles, h("p", { class: "problem" }, error.message)); }
}

on("picture", () => { if (state.tab === "layer" && panel?.isConnected) panel.classList.toggle("stale", waiting()); });
on("tiles order", () => { if (state.tab === "layer" && panel?.isConnected) layerTab(panel); });
on("unit", () => {
  if (state.tab !== "layer" || !tiles?.isConnected) return;
  for (const node of tiles.children) node.setAttribute?.("aria-pressed", String(node.dataset.unit === state.unit));
});
hear("reading", () => { if (state.tab === "layer" && panel?.isConnected) show(); });
