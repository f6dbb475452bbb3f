// The collection: a map of all pictures, drawn by Plotly in a frame of its own that may do nothing else.
import { get, job } from "./api.js";
import { app, failed, hear, ours, say } from "./app.js";
import { aboutCollection } from "./about.js";
import { near } from "./card.js";
import { choice, debounce, fill, h, number, percent, upright } from "./dom.js";
import { t, told } from "./i18n.js";
import { on, set, state } from "./state.js";
import { thumbnail } from "./strip.js";

let panel = null;
let frame = null;
let side = null;
let made = null;
let ready = false;
let asked = 0;
let work = null;
let selected = [];
let sent = 0;
let outline = ""; // the lasso as the frame knows it

export function collectionTab(node) {
  panel = node;
  made = null;
  ready = false;
  if (!app.model.survey) { offer(); return; }
  selected = [];
  outline = state.lasso;
  const methods = [["tsne", "t-SNE"], ["umap", "UMAP"], ["pca", "PCA"]].filter(([name]) => (name === "tsne" ? app.model.can.tsne : name === "umap" ? app.model.can.umap : true));
  const labelled = Boolean(app.model.survey.labelled);
  const colours = [labelled ? ["label", t("byLabel")] : null, ["prediction", t("byPrediction")], labelled ? ["error", t("byError")] : null, ["trust", t("byTrust")]].filter(Boolean);
  // without labels there is nothing to colour by but what the network says
  const colour = colours.some(([name]) => name === state.colour) ? state.colour : "prediction";
  frame = h("iframe", { class: "plot undrawn", title: t("map"), sandbox: "allow-scripts", src: "/plot/frame.html" });
  side = h("div", { class: "side" });
  const hover = h("div", { class: "hover-picture", hidden: true });
  const layers = app.model.survey.embeddings ?? [];
  const find = h("input", { type: "search", value: state.search, placeholder: t("findOnMap"), "aria-label": t("findOnMap"), oninput: (event) => slowFind(event.target.value) });
  fill(panel, h("div", { class: "bar" }, find, layers.length > 1 ? h("select", { "aria-label": t("mapLayerWord"), title: t("mapLayerWord"), onchange: (event) => set({ mapLayer: event.target.value, lasso: "" }) }, layers.map((name, i) => h("option", { value: i === layers.length - 1 && !state.mapLayer ? "" : name, selected: state.mapLayer ? state.mapLayer === name : i === layers.length - 1 }, name))) : null, choice(t("map"), methods, state.map, (value) => set({ map: value })),
    choice(t("colourBy"), colours, colour, (value) => set({ colour: value }, true)),
    h("label", { class: "switch" }, h("input", { type: "checkbox", checked: state.thumbs === "1", onchange: (event) => set({ thumbs: event.target.checked ? "1" : "" }, true) }), t("thumbnails")),
    h("span", { class: "spacer" }), h("button", { type: "button", class: "plain what", "aria-label": t("whatIsThis"), title: t("whatIsThis"), onclick: () => aboutCollection(made) }, "?")),
  h("div", { class: "map-area" }, h("div", { class: "plot-box" }, app.model.can.plot ? frame : h("p", { class: "empty" }, t("noMapHere")), hover, h("p", { class: "soft found-count", "aria-live": "polite" }), h("p", { class: "soft wait map-words" }, t("makingMap")), h("p", { class: "soft thinned" })), side));
  load();
  mistakes();
}

/** Where nothing was surveyed: say what a survey is, and make one. */
async function offer() {
  const meter = h("progress", { hidden: true, "aria-label": t("surveying") });
  const words = h("p", { class: "soft" });
  const button = h("button", { type: "button", class: "main", onclick: () => {
    if (work) { work.cancel(); return; }
    button.textContent = t("cancel");
    meter.hidden = false;
    work = job({ kind: "survey" }, { progress: (at) => {
      if (at.total) { meter.max = at.total; meter.value = at.done; }
      words.textContent = `${t("surveying")} ${t("of", { done: at.done, total: at.total ?? "?" })}${at.left > 1 ? ` · ${t("left", { s: Math.ceil(at.left) })}` : ""}`;
    } });
    work.done.then(() => say("survey-done"), (error) => { failed(error); if (panel.isConnected) offer(); }).finally(() => { work = null; });
  } }, t("makeSurvey"));
  try {
    const about = await get("/api/collection");
    if (about.there) { say("survey-done"); return; }
    fill(panel, h("div", { class: "empty" }, h("h2", {}, t("noSurvey")), h("p", {}, t("surveyNote", { n: app.pictures.length })),
      about.can_survey ? [button, meter, words] : h("p", { class: "problem" }, told(about.why_not))));
    if (work) { meter.hidden = false; button.textContent = t("cancel"); }
  } catch (error) { failed(error); }
}

async function load() {
  const mine = ++asked;
  const words = panel.querySelector(".map-words");
  try {
    work = job({ kind: "embedding", method: state.map, layer: state.mapLayer || null }, { progress: (at) => { if (words) words.textContent = `${t("makingMap")} ${at.total > 1 ? t("of", { done: at.done, total: at.total }) : ""}`; } });
    await work.done;
    const found = await get("/api/collection/map", { method: state.map, picture: state.picture, layer: state.mapLayer });
    if (mine !== asked || !panel.isConnected) return;
    made = found;
    place = new Map(made.ids.map((id, i) => [id, i]));
    lookFor();
    lines();
    words.textContent = [t("mapFigures", { p: percent(keptShare()), t: number(made.metrics.trustworthiness) }), app.model.survey.labelled ? null : t("noLabels"), t("mapHint"), ...made.notes.map(told)].filter(Boolean).join(" ");
    drawSide();
    send();
  } catch (error) {
    if (mine === asked && words) words.textContent = error.message;
    failed(error);
  } finally { work = null; }
}

const keptShare = () => made.trust.reduce((sum, one) => sum + one, 0) / Math.max(1, made.trust.length);

const named = (name) => (name === null ? null : upright(name));

/** Give the frame what it draws: columns of numbers, names and colours; no addresses, no pictures but thumbnails. */
async function send() {
  if (!ready || !made || !frame?.contentWindow) return;
  const mine = ++sent;
  frame.dataset.drawn = "false";
  const style = getComputedStyle(document.documentElement);
  const tokens = Object.fromEntries(["page", "ink", "soft", "line", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  const here = place.get(state.picture) ?? -1;
  const message = {
    kind: "draw", turn: mine, names: names(), hits, near: nearIds.map((id) => place.get(id)).filter((i) => i !== undefined), groups: groups(), lasso: state.lasso ? state.lasso.split(";").map((corner) => corner.split(",").map(Number)) : null, narrow: innerWidth < 700, x: made.x, y: made.y, ids: made.ids, style: tokens, colour: colourNow(),
    label: made.label.map(named), prediction: made.prediction.map(named), wrong: made.wrong, trust: made.trust, here, placed: here < 0 && made.placed?.x != null ? made.placed : null,
    words: { right: t("kept"), wrong: t("wrongWord"), here: t("here"), none: "–", trust: t("byTrust") },
    thumbs: state.thumbs === "1" ? await thumbs() : null,
  };
  if (mine === sent) frame.contentWindow.postMessage(message, "*"); // thumbnails take a while: the latest is drawn
}

const colourNow = () => (app.model.survey.labelled || !["label", "error"].includes(state.colour) ? state.colour : "prediction");

// told apart by colour-blind eyes where they are few (Okabe and Ito), by lightness beyond; each class its own
const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7f00", "#7b4fa3", "#7f7f7f", "#a0522d",
  "#005f73", "#ca6702", "#6a994e", "#9b2226", "#7aa6dc", "#b5838d", "#588157", "#e07a5f", "#3d405b", "#81b29a"];
const REST = "#9aa2ac";

/** The groups of the map with their colours, the largest first; what is over twenty stands together in grey. */
function groups() {
  const by = colourNow();
  if (by === "trust") return [];
  if (by === "error") {
    const count = (value) => made.wrong.filter((one) => one === value).length;
    return [{ key: "true", name: t("wrongWord"), n: count(true), colour: "#d55e00" }, { key: "false", name: t("kept"), n: count(false), colour: "#56b4e9" },
      { key: "null", name: "–", n: count(null), colour: REST }].filter((one) => one.n);
  }
  const counts = new Map();
  for (const name of made[by]) counts.set(name ?? "–", (counts.get(name ?? "–") ?? 0) + 1);
  const order = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const own = order.slice(0, HUES.length).map(([name]) => name).sort();
  const found = own.map((name, i) => ({ key: name, name: upright(name), n: counts.get(name), colour: name === "–" ? REST : HUES[i] }));
  const rest = order.slice(HUES.length);
  if (rest.length) found.push({ key: null, rest: rest.map(([name]) => name), name: t("rarer", { n: rest.length }), n: rest.reduce((sum, one) => sum + one[1], 0), colour: REST });
  return found;
}

/** The legend beside the map, never over its points. */
function legend() {
  const all = groups();
  if (!all.length) return null;
  return h("ul", { class: "map-legend", "aria-label": t("colourBy") }, all.map((one) => h("li", {}, h("i", { style: { background: one.colour } }), h("span", {}, one.name), h("small", {}, one.n))));
}

/** Up to 400 thumbnails as data URIs, cut from the sheets. */
async function thumbs() {
  const order = [...made.ids].sort();
  const every = Math.max(1, Math.ceil(made.ids.length / 400));
  const shown = order.filter((_, i) => i % every === 0);
  const sheets = new Map();
  const found = {};
  for (const id of shown) {
    const place = order.indexOf(id);
    const number = Math.floor(place / 400);
    if (!sheets.has(number)) {
      const image = new Image();
      image.src = ours(`/api/collection/atlas/${number}`);
      await image.decode();
      sheets.set(number, image);
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 48;
    const at = place % 400;
    canvas.getContext("2d").drawImage(sheets.get(number), (at % 20) * 48, Math.floor(at / 20) * 48, 48, 48, 0, 0, 48, 48);
    found[id] = canvas.toDataURL("image/jpeg", 0.8);
  }
  return found;
}

window.addEventListener("message", (event) => {
  if (!frame || event.source !== frame.contentWindow || typeof event.data !== "object") return;
  const { kind, ids, at, shown, turn } = event.data;
  if (kind === "ready") { ready = true; send(); }
  if (kind === "drawn") {
    frame.classList.remove("undrawn");
    frame.dataset.drawn = String(turn === sent); // the latest that was asked for
    const some = Number.isInteger(shown) && made && shown < made.ids.length;
    panel.querySelector(".thinned").textContent = some ? t("thinned", { shown, total: made.ids.length }) : "";
  }
  if (kind === "hover") hover(Array.isArray(ids) ? ids[0] : null, at);
  if (kind === "choose" && place.has(ids?.[0])) set({ picture: ids[0] });
  if (kind === "select") {
    selected = (ids ?? []).filter((id) => place.has(id));
    // what was drawn comes with what it holds, so that the way to the grid is there at once
    if (at !== undefined) {
      outline = Array.isArray(at) ? at.slice(0, 48).map(([x, y]) => `${Number(x).toFixed(2)},${Number(y).toFixed(2)}`).join(";") : "";
      set({ lasso: outline }, true);
    }
    drawSide();
  }
});

function hover(id, at) {
  const box = panel?.querySelector(".hover-picture");
  if (!box) return;
  const i = place.get(id) ?? -1;
  box.hidden = i < 0;
  if (i < 0) return;
  const wrong = made.wrong[i];
  fill(box, h("img", { src: thumbnail(id, "stored"), alt: "" }), h("span", {}, made.label[i] ?? made.prediction[i] ?? ""), wrong ? h("span", { class: "wrong" }, `✗ ${made.prediction[i]}`) : null);
  box.style.left = `${Math.min((at?.x ?? 0) + 12, box.parentElement.clientWidth - 110)}px`;
  box.style.top = `${Math.max(0, (at?.y ?? 0) - 40)}px`;
}

let place = new Map(); // id -> its place in the columns
let hits = null; // places of the points that are looked for
let nearIds = []; // the true neighbours of the chosen picture

const slowFind = debounce((value) => { set({ search: value }, true); lookFor(); }, 150);

/** Which points the words are about: name, label, prediction, tags and notes, as in the grid. */
async function lookFor() {
  const words = panel?.querySelector(".found-count");
  if (!state.search.trim()) {
    if (words) words.textContent = "";
    if (hits) { hits = null; send(); }
    return;
  }
  try {
    const search = state.search;
    const found = await get("/api/collection/ids", { search });
    if (search !== state.search) return;
    hits = found.ids.map((id) => place.get(id)).filter((i) => i !== undefined);
    if (words) words.textContent = t("foundCount", { n: hits.length });
    send();
  } catch (error) { failed(error); }
}

/** Lines from the chosen picture to its true neighbours in the layer's own space: what the plane tears apart. */
async function lines() {
  const picture = state.picture;
  nearIds = [];
  if (place.has(picture)) {
    try {
      const found = await get("/api/collection/near", { picture, k: 10, layer: state.mapLayer || made.layer });
      if (picture !== state.picture) return;
      nearIds = found.ids.filter((id) => id !== picture);
    } catch { /* without neighbours there are no lines */ }
  }
  send();
}

/** The name of each larger group where most of it lies. */
function names() {
  const by = colourNow() === "label" && app.model.survey.labelled ? "label" : "prediction";
  const members = new Map();
  made[by].forEach((name, i) => { if (name !== null) { if (!members.has(name)) members.set(name, []); members.get(name).push(i); } });
  const middle = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return [...members].filter(([, which]) => which.length >= 3).sort((a, b) => b[1].length - a[1].length).slice(0, 30)
    .map(([name, which]) => ({ text: upright(name), x: middle(which.map((i) => made.x[i])), y: middle(which.map((i) => made.y[i])) }));
}

let errors = null;

async function mistakes() {
  // without labels nobody knows what is wrong: the question is not put
  if (!app.model.survey.labelled) { errors = { note: t("noLabels") }; drawSide(); return; }
  try {
    errors = await get("/api/collection/mistakes");
  } catch (error) { errors = { note: error.message }; }
  drawSide();
}

function drawSide() {
  if (!side?.isConnected) return;
  const parts = [];
  if (selected.length) {
    const rows = selected.map((id) => { const i = place.get(id); return { id, name: "", label: made.label[i], prediction: made.prediction[i] }; });
    const counts = new Map();
    for (const row of rows) counts.set(row.label ?? row.prediction ?? "–", (counts.get(row.label ?? row.prediction ?? "–") ?? 0) + 1);
    parts.push(h("section", { class: "selected" }, h("h3", {}, t("selected", { n: selected.length })), h("p", { class: "soft" }, [...counts].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([name, n]) => `${name} ${n}`).join(" · ")),
      h("div", { class: "near" }, rows.slice(0, 24).map(near)), state.lasso ? h("button", { type: "button", class: "small", onclick: () => set({ view: "grid" }) }, t("inGrid")) : null));
  }
  if (errors?.note) parts.push(h("p", { class: "soft" }, app.model.survey.labelled ? told(errors.note) : t("noLabels")));
  else if (errors && !errors.wrong) parts.push(h("p", { class: "soft" }, t("noMistakes", { n: errors.pictures })));
  else if (errors) {
    parts.push(h("section", {}, h("h3", {}, t("mistakes"), h("span", { class: "soft" }, ` ${errors.wrong} / ${errors.pictures}`)),
      h("p", { class: "soft" }, t("confident")), h("div", { class: "near" }, errors.confident.slice(0, 9).map((one) => near({ ...one, similarity: one.probability })))),
    h("section", {}, h("h3", {}, t("confusions")), h("ol", { class: "confusions" }, errors.confusions.slice(0, 8).map((one) => h("li", {},
      h("span", {}, t("takenFor", one)), h("b", {}, ` ${one.count}`), h("div", { class: "near small-near" }, one.examples.slice(0, 4).map((example) => near({ ...example, label: null, prediction: null }))))))));
  }
  if (made) parts.unshift(legend());
  if (made) parts.push(asList());
  fill(side, parts);
}

/** The map for those who cannot see or point at it: every picture as a link, by label. */
function asList() {
  const groups = new Map();
  made.ids.forEach((id, i) => {
    const name = made.label[i] ?? made.prediction[i] ?? "–";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push({ id, i });
  });
  return h("details", { class: "as-list" }, h("summary", {}, t("asList")), [...groups].sort().map(([name, members]) => h("details", {}, h("summary", {}, `${name} (${members.length})`),
    h("div", { class: "near" }, members.slice(0, 60).map(({ id, i }) => near({ id, name, label: made.label[i], prediction: made.prediction[i] }))))));
}

// Back, forward, another map: what another address says is drawn anew; what the frame itself said is there already
on("lasso", () => { if (state.lasso !== outline && state.tab === "collection" && state.view === "map" && panel?.isConnected) collectionTab(panel); });
on("map mapLayer", () => { if (state.tab === "collection" && panel?.isConnected) collectionTab(panel); });
on("colour thumbs", () => {
  if (state.tab !== "collection") return;
  for (const one of panel.querySelectorAll(".choice button")) {
    if (["label", "prediction", "error", "trust"].includes(one.dataset.value)) one.setAttribute("aria-pressed", String(one.dataset.value === colourNow()));
  }
  drawSide();
  send();
});
hear("reading", async () => {
  if (state.tab === "collection" && made && panel?.isConnected) lines();
  if (state.tab !== "collection" || !made || !panel?.isConnected) return;
  if (!place.has(state.picture) && made.placed?.of !== state.picture) {
    const picture = state.picture;
    try {
      const { placed } = await get("/api/collection/map", { method: state.map, picture });
      if (picture !== state.picture || !made) return;
      made.placed = { ...placed, of: picture };
    } catch { if (made) made.placed = null; }
  }
  send();
});
