// The network drawn as blocks with its branches; a block opens its layer.
import { get } from "./api.js";
import { app, say } from "./app.js";
import { h, s } from "./dom.js";
import { t } from "./i18n.js";
import { on, set, state } from "./state.js";

let blocks = null;
let drawing = null;

const ROW = 34, LANE = 92, WIDE = 76, TALL = 22;

export async function blocksView(into) {
  const wait = h("p", { class: "soft computing" }, t("computing"));
  into.replaceChildren(wait);
  try {
    blocks = blocks ?? await get("/api/blocks");
  } catch (error) {
    if (wait.isConnected) into.replaceChildren(h("p", { class: "problem" }, error.message));
    return;
  }
  if (!wait.isConnected) return; // a list was asked for meanwhile
  const lanes = 1 + Math.max(0, ...blocks.map((one) => one.lane));
  const rows = 1 + Math.max(0, ...blocks.map((one) => one.depth));
  const most = Math.max(...blocks.map((one) => one.shape[0] ?? 1));
  const place = (one) => ({ x: 8 + one.lane * LANE, y: 6 + one.depth * ROW });
  // a block is as wide as its channels are many, to the root
  const width = (one) => Math.max(22, WIDE * Math.sqrt((one.shape[0] ?? 1) / most));
  const centre = (one) => place(one).x + WIDE / 2;
  const edges = blocks.flatMap((one) => one.inputs.map((from) => {
    const a = blocks[from];
    const [x0, y0, x1, y1] = [centre(a), place(a).y + TALL, centre(one), place(one).y];
    const skips = one.depth - a.depth > 1 && a.lane === one.lane;
    // a way past other blocks bends round them
    const bend = skips ? WIDE / 2 + 6 : 0;
    return s("path", { class: "edge", d: skips ? `M${x0},${y0} C${x0 + bend * 1.6},${y0 + 10} ${x1 + bend * 1.6},${y1 - 10} ${x1},${y1}` : `M${x0},${y0} C${x0},${(y0 + y1) / 2} ${x1},${(y0 + y1) / 2} ${x1},${y1}` });
  }));
  const nodes = blocks.map((one) => {
    const { x, y } = place(one);
    const w = width(one);
    const words = `${one.name} · ${t(`block_${one.kind}`)} · ${one.shape.join("×")}`;
    const node = s("g", { class: `block is-${one.kind}`, tabindex: 0, role: "button", "aria-label": words, transform: `translate(${x + (WIDE - w) / 2},${y})` },
      s("title", {}, `${words}\n${one.layers.join("\n")}`), one.kind === "join" ? s("circle", { cx: w / 2, cy: TALL / 2, r: 8 }) : s("rect", { width: w, height: TALL, rx: 3 }),
      s("text", { x: w / 2, y: TALL / 2 + 4, "text-anchor": "middle" }, one.kind === "join" ? "+" : one.kind === "pool" ? t("poolShort") : one.shape[0] ?? ""));
    node.dataset.layers = one.layers.join(" ");
    const open = () => set({ layer: one.layers.find((name) => app.layers.some((layer) => layer.name === name && layer.surveyed)) ?? one.name, tab: "layer" });
    node.addEventListener("click", open);
    node.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
    node.addEventListener("pointerenter", () => say("hover-layer", app.layers.find((layer) => layer.name === one.name)));
    node.addEventListener("pointerleave", () => say("hover-layer", null));
    return node;
  });
  drawing = s("svg", { class: "blocks", viewBox: `0 0 ${8 + lanes * LANE} ${12 + rows * ROW}`, width: 8 + lanes * LANE, height: 12 + rows * ROW, role: "group", "aria-label": t("asBlocks") }, edges, nodes);
  into.replaceChildren(h("p", { class: "soft" }, t("blocksHint")), h("div", { class: "blocks-box" }, drawing));
  // a little too wide is drawn a little smaller; many branches are scrolled
  if (8 + lanes * LANE < 1.5 * into.clientWidth) Object.assign(drawing.style, { maxWidth: "100%", height: "auto" });
  mark();
}

function mark() {
  if (!drawing?.isConnected) return;
  for (const node of drawing.querySelectorAll(".block")) {
    const now = node.dataset.layers.split(" ").includes(state.layer);
    node.classList.toggle("is-now", now);
    if (now) node.scrollIntoView({ block: "nearest" });
  }
}

on("layer", mark);
