// The network from top to bottom: shape, receptive field to scale, dead units.
import { app, say } from "./app.js";
import { blocksView } from "./blocks.js";
import { fill, h, keepFocus } from "./dom.js";
import { t } from "./i18n.js";
import { on, prefer, set, state } from "./state.js";

const group = (name) => name.split(".")[0].split("#")[0];

/** The layers that matter most: what an activation leaves, the grids that are surveyed, and the last grid. */
function main(layers) {
  const chosen = layers.filter((one) => one.main || one.default);
  return chosen.length ? chosen : layers;
}

export function fieldWords(layer) {
  const rf = layer?.rf;
  if (!rf) return "–";
  if (!rf.size) return t("wholePicture");
  const [rows, columns] = rf.size;
  return rows === columns ? `${rows}` : `${columns}×${rows}`;
}

/** "One cell sees 155×155 px". */
export function cellWords(layer) {
  if (!layer?.rf) return null;
  return layer.rf.size ? t("cellSees", { size: layer.rf.size.join("×") }) : t("cellSeesAll");
}

function square(layer) {
  const side = Math.max(...(app.model.input ?? [224, 224]));
  const size = layer.rf ? Math.min(1, Math.max(...(layer.rf.size ?? [side])) / side) : 0;
  const pixels = 3 + 11 * size;
  return h("span", { class: "field", "aria-hidden": "true" }, layer.rf ? h("i", { style: { width: `${pixels}px`, height: `${pixels}px` } }) : null);
}

function row(layer, under = "") {
  const shape = layer.grid ? [h("span", { class: "channels" }, `${layer.channels} · `), `${layer.grid[0]}×${layer.grid[1]}`] : (layer.shape.slice(1).join("×") || "1");
  const rf = layer.rf?.size ? t("fieldTitle", { size: fieldWords(layer), stride: layer.rf.stride?.map((v) => (v === null ? "?" : v)).join("×") ?? "?" }) : layer.rf ? t("wholePicture") : "";
  return h("button", {
    type: "button", class: "layer", "aria-current": layer.name === state.layer ? "true" : null, dataset: { layer: layer.name, key: layer.name },
    title: `${layer.name} · ${layer.type} · ${layer.shape.slice(1).join("×")}${rf ? ` · ${rf}` : ""}${layer.default ? ` · ${t("defaultLayer")}` : ""}`,
    onclick: () => set({ layer: layer.name, tab: "layer" }),
    onpointerenter: () => say("hover-layer", layer), onpointerleave: () => say("hover-layer", null),
    onfocus: () => say("hover-layer", layer), onblur: () => say("hover-layer", null),
  }, square(layer), h("span", { class: "name" }, layer.name.slice(under.length), layer.default ? h("span", { class: "star", title: t("defaultLayer") }, " ★") : null),
  h("span", { class: "shape" }, shape),
  layer.dead ? h("span", { class: "dead", title: t(layer.dead === 1 ? "deadOne" : "deadTitle", { n: layer.dead }) }, t(layer.dead === 1 ? "deadUnit" : "deadUnits", { n: layer.dead })) : null);
}

/** The rows of a group; what all names begin with stands above them once. */
function named(members) {
  const under = `${group(members[0].name)}.`;
  const shared = members.filter((one) => one.name.startsWith(under));
  if (shared.length < 4 || members.every((one) => one.name.length <= 16)) return members.map((one) => row(one));
  return [h("p", { class: "group-name" }, under.slice(0, -1)), members.map((one) => row(one, one.name.startsWith(under) ? under : ""))];
}

export function drawLayers() {
  const left = document.getElementById("left");
  keepFocus(left, () => redraw(left));
}

function redraw(left) {
  const all = prefer.get("all-layers", "") === "1";
  const list = h("div", { class: "list" });
  const filter = h("input", { type: "search", placeholder: t("filter"), "aria-label": t("filter"), oninput: () => show() });
  const show = () => {
    if (state.blocks === "1" && !filter.value.trim()) { blocksView(list); return; }
    const wanted = filter.value.trim().toLowerCase();
    let layers = all || wanted ? app.layers : main(app.layers);
    if (!layers.some((one) => one.name === state.layer) && !wanted) {
      const own = app.layers.find((one) => one.name === state.layer);
      if (own) layers = app.layers.filter((one) => layers.includes(one) || one === own);
    }
    if (wanted) layers = layers.filter((one) => `${one.name} ${one.type}`.toLowerCase().includes(wanted));
    const groups = new Map();
    for (const layer of layers) {
      if (!groups.has(group(layer.name))) groups.set(group(layer.name), []);
      groups.get(group(layer.name)).push(layer);
    }
    fill(list, layers.length ? [...groups].map(([, members]) => h("div", { class: "group" }, named(members))) : h("p", { class: "soft" }, t("noLayer")));
    list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  };
  fill(left,
    h("details", { class: "fold", open: innerWidth > 760 },
      h("summary", {}, h("h2", {}, t("layers")), h("span", { class: "now narrow" }, state.layer)),
      h("div", { class: "row tight" }, filter,
        h("button", { type: "button", class: "small", "aria-pressed": String(all), title: all ? t("mainLayers") : t("allLayers"),
          onclick: () => { prefer.set("all-layers", all ? "" : "1"); drawLayers(); } }, all ? t("mainLayers") : `${t("allLayers")} (${app.layers.length})`),
        h("button", { type: "button", class: "small", "aria-pressed": String(state.blocks === "1"), title: t("asBlocks"), onclick: () => set({ blocks: state.blocks === "1" ? "" : "1" }, true) }, t("blocksWord"))),
      list));
  show();
}

on("layer", () => {
  if (state.blocks !== "1") drawLayers(); // the drawing marks its block itself
});
on("blocks", () => drawLayers());
