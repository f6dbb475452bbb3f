// How a convolution computes: input × filter, summed, bias, and what follows, with the network's own numbers.
import { get, npy } from "./api.js";
import { app, hear, ours } from "./app.js";
import { DIVERGING, SEQUENTIAL, paint, scaleFor, table } from "./colour.js";
import { fill, h, latest, number } from "./dom.js";
import { t } from "./i18n.js";
import { on, state } from "./state.js";

let root = null;
let about = null;
let channel = 0;
let at = { row: 0, col: 0 };
let planes = {};
let asked = 0;

export async function howtoView(into) {
  root = into;
  const mine = ++asked;
  if (!state.picture) return;
  fill(into, h("p", { class: "soft computing" }, t("computing")));
  try {
    const found = await get("/api/convolution", { picture: state.picture, layer: state.layer });
    if (mine !== asked || !into.isConnected) return;
    const same = about?.layer === found.layer;
    about = found;
    const own = state.unit.startsWith(`${state.layer}:`) ? Number(state.unit.split(":").at(-1)) : null;
    if (own !== null && own < found.output[0]) channel = own;
    else if (!same || channel >= found.output[0]) channel = found.channels[0];
    if (!same) at = { row: Math.floor(found.output[1] / 2), col: Math.floor(found.output[2] / 2) };
    draw();
  } catch (error) { if (mine === asked && into.isConnected) fill(into, h("p", { class: "problem" }, error.message)); }
}

function draw() {
  const [, rows, columns] = about.output;
  const select = h("select", { "aria-label": t("channelWord"), onchange: (event) => { channel = Number(event.target.value); draw(); } },
    [...new Set([channel, ...about.channels])].map((one) => h("option", { value: one, selected: one === channel }, one)));
  fill(root,
    about.layer !== state.layer ? h("p", { class: "soft" }, t("feedsIt", { layer: state.layer, conv: about.layer })) : null,
    h("p", { class: "soft" }, t("convolutionIs", { layer: about.layer, inputs: about.input[0], outputs: about.output[0], kernel: `${about.kernel[2]}×${about.kernel[3]}`, stride: about.stride.join("×") }), about.groups > 1 ? ` ${t("inGroups", { n: about.groups })}` : ""),
    h("div", { class: "bar" }, h("label", {}, `${t("channelWord")} `, select), h("span", { class: "soft" }, t("howHint"))),
    h("div", { class: "how" }, h("div", { class: "how-inputs" }), h("div", { class: "how-sum", "aria-live": "polite", tabindex: 0, role: "group", "aria-label": t("howItComputes") }), h("div", { class: "how-outputs" })));
  planes = {};
  outputs(rows, columns);
  cell();
}

/** A channel as a small map; `box` marks cells of it. */
async function plane(values, rows, columns, from, signed, label, onpoint) {
  const scale = scaleFor(values, signed, from, from + rows * columns);
  const colours = await table(signed ? DIVERGING : SEQUENTIAL);
  const canvas = h("canvas", { class: "pixelated", role: "img", "aria-label": label });
  canvas.width = columns; canvas.height = rows;
  canvas.getContext("2d").putImageData(paint(values, columns, rows, scale, colours, from), 0, 0);
  const mark = h("span", { class: "cell-mark" });
  const stage = h("span", { class: "stage how-plane", style: { aspectRatio: `${columns} / ${rows}` } }, canvas, mark);
  if (onpoint) {
    stage.tabIndex = 0;
    stage.dataset.arrows = "1";
    stage.classList.add("points");
    const to = (event) => { const box = stage.getBoundingClientRect(); onpoint(Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows))), Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)))); };
    stage.addEventListener("pointermove", to);
    stage.addEventListener("pointerdown", to);
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      onpoint(Math.min(rows - 1, Math.max(0, at.row + step[0])), Math.min(columns - 1, Math.max(0, at.col + step[1])));
    });
  }
  return { stage, mark: (top, left, height, width) => Object.assign(mark.style, { display: "block", left: `${(100 * left) / columns}%`, top: `${(100 * top) / rows}%`, width: `${(100 * width) / columns}%`, height: `${(100 * height) / rows}%` }) };
}

async function outputs(rows, columns) {
  const mine = ++asked;
  const into = root.querySelector(".how-outputs");
  const ask = (what) => npy(ours(`/api/convolution/${what}.npy?picture=${state.picture}&layer=${encodeURIComponent(state.layer)}&channels=${channel}`));
  try {
    const arrays = await Promise.all([ask("output"), ...about.steps.map((_, i) => ask(`step${i}`))]);
    if (mine !== asked || !into.isConnected) return;
    const nodes = [];
    planes.after = [];
    for (let i = 0; i < arrays.length; i += 1) {
      const [, height, width] = arrays[i].shape;
      const signed = arrays[i].data.some((value) => value < 0);
      const same = height === rows && width === columns;
      const one = await plane(arrays[i].data, height, width, 0, signed, i ? about.steps[i - 1].name : about.layer, same ? point : null);
      planes.after.push(one);
      nodes.push(h("figure", {}, h("figcaption", {}, h("b", {}, i ? t(`op_${about.steps[i - 1].kind}`) : t("afterSum")), h("span", { class: "soft" }, ` ${i ? about.steps[i - 1].name : about.layer}`)), one.stage, h("output", { class: "under" })));
    }
    fill(into, nodes);
    cell();
  } catch (error) { if (mine === asked && into.isConnected) fill(into, h("p", { class: "problem" }, error.message)); }
}

function point(row, col) {
  if (row === at.row && col === at.col) return;
  at = { row, col };
  cell();
}

const cell = latest(async () => {
  if (!root?.isConnected || !about) return;
  const given = { picture: state.picture, layer: state.layer, channel, row: at.row, col: at.col, most: about.input[0] <= 3 ? 3 : 4 };
  try {
    const found = await get("/api/convolution/cell", given);
    const same = () => root.isConnected && found.row === at.row && found.col === at.col && found.channel === channel && given.picture === state.picture && given.layer === state.layer;
    if (!same()) return;
    await inputs(found);
    if (!same()) return;
    sum(found);
    marks(found);
  } catch (error) { const into = root.querySelector(".how-sum"); if (into) fill(into, h("p", { class: "problem" }, error.message)); }
});

let inputKey = "";
async function inputs(found) {
  const into = root.querySelector(".how-inputs");
  const channels = found.inputs.map((one) => one.channel);
  const key = `${state.picture} ${about.layer} ${channels}`;
  if (key !== inputKey || !into.children.length) {
    const array = await npy(ours(`/api/convolution/input.npy?picture=${state.picture}&layer=${encodeURIComponent(state.layer)}&channels=${channels.join(",")}`));
    const [, rows, columns] = array.shape;
    planes.input = [];
    const nodes = [];
    for (let i = 0; i < channels.length; i += 1) {
      const one = await plane(array.data, rows, columns, i * rows * columns, array.data.subarray(i * rows * columns, (i + 1) * rows * columns).some((value) => value < 0), `${t("inputChannel")} ${channels[i]}`, null);
      planes.input.push(one);
      nodes.push(h("figure", {}, h("figcaption", {}, h("span", { class: "soft" }, `${t("inputChannel")} ${channels[i]}`)), one.stage));
    }
    inputKey = key;
    fill(into, nodes);
  }
  const top = found.rows[0], left = found.cols[0];
  for (const one of planes.input ?? []) one.mark(Math.max(0, top), Math.max(0, left), found.rows.at(-1) - Math.max(0, top) + 1, found.cols.at(-1) - Math.max(0, left) + 1);
}

/** All numbers of a grid to the same place after the point, two digits of the largest: columns can be read at a glance. */
function even(most) {
  const places = 1 - Math.floor(Math.log10(most || 1));
  if (places < 0 || places > 4) return (value) => number(value, 2);
  return (value) => { const text = value.toFixed(places); return Number(text) === 0 ? "0" : text.replace("-", "−"); };
}

/** A grid of numbers, coloured by their sign; the tip of a cell tells its whole number. */
function numbers(values, most, kind) {
  const words = even(most);
  return h("table", { class: `numbers ${kind}` }, values.map((row) => h("tr", {}, row.map((value) => {
    const share = value === null || !most ? 0 : Math.min(1, Math.abs(value) / most);
    return h("td", { class: value === null ? "edge" : "", style: share ? { background: `color-mix(in srgb, ${value < 0 ? "#2a6fb0" : "#c2402a"} ${Math.round(8 + 42 * share)}%, transparent)` } : {}, title: value === null ? t("beyondEdge") : String(value) }, value === null ? "0" : words(value));
  }))));
}

function sum(found) {
  const into = root.querySelector(".how-sum");
  const most = (key) => Math.max(0, ...found.inputs.flatMap((one) => one[key].flat().map((value) => Math.abs(value ?? 0))));
  const [patches, weights, products] = [most("patch"), most("weights"), most("products")];
  const small = found.inputs[0].weights.length <= 5;
  const lines = [h("div", { class: "how-total" }, h("span", {}, t("sumOfAll")), h("b", {}, number(found.sum, 4)))];
  if (found.others.count) lines.unshift(h("div", { class: "how-total soft" }, h("span", {}, t("otherChannels", { n: found.others.count })), h("b", {}, number(found.others.sum, 3))));
  if (found.bias !== null) lines.push(h("div", { class: "how-total" }, h("span", {}, `+ ${t("biasWord")}`), h("b", {}, number(found.bias, 4))));
  lines.push(h("div", { class: "how-total value", dataset: { value: found.value, residual: found.residual } }, h("span", {}, t("valueOf", { row: found.row, col: found.col })), h("b", {}, number(found.value, 4))));
  for (const one of found.steps) lines.push(h("div", { class: "how-total" }, h("span", {}, t(`op_${one.kind}`), h("small", { class: "soft" }, ` ${stepWords(one)}`)), h("b", {}, number(one.value, 4))));
  fill(into, h("div", { class: "how-head soft" }, h("span", {}, t("patchWord")), h("span", {}, "×"), h("span", {}, t("weightsWord")), h("span", {}, "="), h("span", {}, t("productsWord")), h("span", {}, t("sumWord"))),
    found.inputs.map((one) => h("div", { class: `how-row ${small ? "" : "is-large"}`, dataset: { channel: one.channel } }, numbers(one.patch, patches, "n-patch"), h("span", { "aria-hidden": "true" }, "×"), numbers(one.weights, weights, "n-weights"), h("span", { "aria-hidden": "true" }, "="), numbers(one.products, products, "n-products"), h("b", { class: "row-sum" }, number(one.sum, 3)))), lines);
}

function stepWords(one) {
  if (one.kind === "batch_norm") return `(v − ${number(one.facts.mean, 3)}) ÷ √(${number(one.facts.var, 3)} + ε) × ${number(one.facts.weight, 3)} + ${number(one.facts.bias, 3)}`;
  if (one.kind === "relu") return "max(0, v)";
  if (one.window) return `${one.kind.startsWith("max") ? "max" : t("meanWord")}(${one.window.flat().map((value) => number(value, 3)).join(", ")})`;
  return "";
}

function marks(found) {
  planes.after?.[0]?.mark(found.row, found.col, 1, 1);
  const values = root.querySelectorAll(".how-outputs .under");
  if (values[0]) values[0].textContent = number(found.value, 4);
  found.steps.forEach((one, i) => { planes.after?.[i + 1]?.mark(one.row, one.col, 1, 1); if (values[i + 1]) values[i + 1].textContent = number(one.value, 4); });
}

const shown = () => state.tab === "layer" && state.tiles === "how" && root?.isConnected;
hear("reading", () => { if (shown() && app.picture) howtoView(root); });
on("unit", () => { if (shown()) howtoView(root); });
