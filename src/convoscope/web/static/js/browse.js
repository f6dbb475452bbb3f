// The collection picture by picture: a grid of any length, filters, the matrix of confusions, tables to take along.
import { get } from "./api.js";
import { app, failed, hear, tell } from "./app.js";
import { collectionTab } from "./collection.js";
import { choice, debounce, fill, h, keepFocus, number } from "./dom.js";
import { t } from "./i18n.js";
import { on, set, state } from "./state.js";
import { thumbnail } from "./strip.js";
import { noteAll, undoLast } from "./notes.js";
import { worker } from "./working.js";

const PAGE = 120;
const FILTERS = ["search", "label", "prediction", "right", "low", "high", "suspected", "duplicate", "tag", "noted", "removed", "finding", "alike", "lasso"];
let panel = null;
let body = null;
let grid = null; // {pages, total, asked}
let chosen = new Set();

export function browseTab(node) {
  panel = node;
  if (!app.model.survey) { collectionTab(node); return; }
  const view = ["map", "grid", "confusion"].includes(state.view) ? state.view : "map";
  body = h("div", { class: `collection-view view-${view}` });
  fill(panel, h("div", { class: "bar views" }, choice(t("view"), [["map", t("map")], ["grid", t("gridWord")], ["confusion", t("confusionMatrix")]], view, (value) => set({ view: value })), h("span", { class: "spacer" }),
    h("button", { type: "button", class: "small", title: t("nextMistakeTitle"), onclick: () => nextMistake() }, t("nextMistake"))), body);
  if (view === "map") collectionTab(body);
  else if (view === "grid") drawGrid();
  else drawConfusion();
}

/** The filter as the server takes it. */
export function query(more = {}) {
  const given = { map: state.map, layer: state.mapLayer, order: state.sort, ...more };
  for (const name of FILTERS) if (state[name]) given[name === "right" ? "state" : name] = ["suspected", "duplicate", "noted", "removed"].includes(name) ? "true" : state[name];
  return given;
}

const asText = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value != null)).toString();

// filters

function filters() {
  const classes = app.model.classes ?? [];
  const text = debounce((value) => set({ search: value }, true), 200);
  const select = (key, options, word) => h("select", { "aria-label": word, dataset: { key }, onchange: (event) => set({ [key]: event.target.value }) }, h("option", { value: "" }, word), options.map(([value, name]) => h("option", { value, selected: state[key] === value }, name)));
  const tick = (key) => h("label", { class: "switch" }, h("input", { type: "checkbox", checked: state[key] === "1", dataset: { key }, onchange: (event) => set({ [key]: event.target.checked ? "1" : "" }) }), t(`only_${key}`));
  const bound = (key, word) => h("input", { type: "number", min: 0, max: 1, step: 0.05, value: state[key], placeholder: word, "aria-label": `${t("confidence")} ${word}`, dataset: { key }, onchange: (event) => set({ [key]: event.target.value }) });
  const chip = (key, words) => h("button", { type: "button", class: "chip", onclick: () => set({ [key]: "" }) }, `${words} ×`);
  return [
    h("div", { class: "bar filters" }, h("input", { type: "search", value: state.search, placeholder: t("searchPictures"), "aria-label": t("searchPictures"), dataset: { key: "search" }, oninput: (event) => text(event.target.value) }),
      select("label", classes.slice(0, 2000).map((name) => [name, name]), t("byLabel")), select("prediction", classes.slice(0, 2000).map((name) => [name, name]), t("byPrediction")),
      choice(t("rightOrWrong"), [["", t("allWord")], ["right", t("kept")], ["wrong", t("wrongWord")]], state.right, (value) => set({ right: value })),
      h("span", { class: "bounds" }, h("span", { class: "soft" }, t("confidence")), bound("low", t("fromWord")), bound("high", t("toWord"))),
      tick("suspected"), tick("duplicate"), tick("noted"), tick("removed"), select("tag", Object.keys(grid?.tags ?? {}).map((tag) => [tag, `${tag} (${grid.tags[tag]})`]), t("tagWord")),
      h("label", {}, `${t("order")} `, h("select", { "aria-label": t("order"), dataset: { key: "sort" }, onchange: (event) => set({ sort: event.target.value }) }, ["name", "label", "confidence", "unsure", "loss", "suspicion"].map((name) => h("option", { value: name, selected: state.sort === name }, t(`sort_${name}`)))))),
    h("div", { class: "bar chips" }, state.finding ? chip("finding", t("findingNumber", { n: state.finding })) : null, state.alike ? chip("alike", t("alikeTo")) : null, state.lasso ? chip("lasso", t("lassoWord")) : null,
      FILTERS.some((key) => state[key]) ? h("button", { type: "button", class: "small", onclick: () => set(Object.fromEntries(FILTERS.map((key) => [key, ""]))) }, t("clearFilters")) : null),
  ];
}

// the grid

function drawGrid() {
  const first = !body.querySelector(".grid-box");
  grid = { pages: new Map(), total: null, tags: grid?.tags ?? {} };
  if (first) fill(body, h("div", { class: "filter-box" }), h("p", { class: "soft count", "aria-live": "polite" }, t("computing")), h("div", { class: "actions" }), h("div", { class: "grid-box", role: "listbox", "aria-label": t("gridWord"), "aria-multiselectable": "true", tabindex: 0, dataset: { arrows: "1" }, onkeydown: keys }));
  const box = body.querySelector(".filter-box");
  keepFocus(box, () => fill(box, filters()));
  get("/api/collection/marks").then((found) => { grid.tags = found.tags; grid.undo = found.undo; if (box.isConnected) { keepFocus(box, () => fill(box, filters())); actions(); } }, () => {});
  // until the first page is here, the former list stands under the new filters: it says so
  const mine = grid;
  panel.classList.add("stale");
  if (!first) body.querySelector(".count").textContent = t("computing");
  load(0).then(() => { if (mine !== grid) return; panel.classList.remove("stale"); layout(); reveal(); });
}

async function load(number) {
  const mine = grid;
  if (mine.pages.has(number)) return mine.pages.get(number);
  const promise = get("/api/collection/pictures", query({ offset: number * PAGE, limit: PAGE }));
  mine.pages.set(number, promise);
  try {
    const found = await promise;
    if (mine !== grid) return found;
    found.pictures.forEach((one) => known.set(one.id, one));
    if (mine.total !== found.total) {
      mine.total = found.total;
      const count = body.querySelector(".count");
      if (count) count.textContent = t("shownOf", { n: (found.total ?? 0).toLocaleString(), total: (found.of ?? 0).toLocaleString() });
      actions();
      layout();
    }
    return found;
  } catch (error) {
    mine.pages.delete(number);
    const count = body.querySelector(".count");
    if (mine === grid && count) count.textContent = error.message;
    return null;
  }
}

const known = new Map();
const cell = () => Math.min(220, Math.max(72, Number.parseInt(getComputedStyle(document.documentElement).getPropertyValue("--frame"), 10) * 0.58));

function measure() {
  const box = body?.querySelector(".grid-box");
  if (!box || grid.total === null) return null;
  const side = cell();
  const columns = Math.max(1, Math.floor((box.clientWidth + 8) / (side + 8)));
  const height = side + 34;
  return { box, side, columns, height, rows: Math.ceil(grid.total / columns) };
}

// browsers limit an element's height: longer grids are scrolled to scale
const TALLEST = 8_000_000;

function layout() {
  const m = measure();
  if (!m) return;
  m.box.style.height = `${Math.min(TALLEST, Math.max(1, m.rows) * m.height)}px`;
  draw();
}

function scroller() {
  const centre = document.getElementById("centre");
  return getComputedStyle(centre).overflowY === "visible" ? null : centre;
}

function seen(box) {
  const outer = scroller()?.getBoundingClientRect() ?? { top: 0, bottom: innerHeight };
  const inner = box.getBoundingClientRect();
  return [Math.max(0, outer.top - inner.top), Math.max(0, Math.min(inner.height, outer.bottom - inner.top))];
}

let drawn = 0;
function draw() {
  const m = measure();
  if (!m || state.view !== "grid" || !m.box.isConnected) return;
  const mine = ++drawn;
  const scale = (m.rows * m.height) / Math.min(TALLEST, Math.max(1, m.rows) * m.height);
  const [top, bottom] = seen(m.box);
  const firstRow = Math.max(0, Math.floor((top * scale) / m.height) - 1);
  const lastRow = Math.min(m.rows - 1, firstRow + Math.ceil((bottom - top) / m.height) + 2);
  const from = firstRow * m.columns;
  const to = Math.min(grid.total, (lastRow + 1) * m.columns);
  const pages = [];
  for (let page = Math.floor(from / PAGE); page <= Math.floor(Math.max(from, to - 1) / PAGE); page += 1) pages.push(load(page));
  const base = scale > 1 ? top - ((top * scale) % m.height) - m.height * (firstRow < Math.floor((top * scale) / m.height) ? 1 : 0) : firstRow * m.height;
  Promise.all(pages).then((found) => {
    if (mine !== drawn || !m.box.isConnected) return;
    const rows = new Map();
    for (const page of found) page?.pictures.forEach((one, i) => rows.set(page.offset + i, one));
    const focused = document.activeElement?.dataset?.at;
    const nodes = [];
    for (let at = from; at < to; at += 1) {
      const one = rows.get(at);
      if (one) nodes.push(tile(one, at, m, base + (Math.floor(at / m.columns) - firstRow) * m.height));
    }
    fill(m.box, grid.total ? nodes : h("p", { class: "soft" }, t("noneFound")));
    if (focused !== undefined) m.box.querySelector(`[data-at="${focused}"]`)?.focus({ preventScroll: true });
  });
}

function tile(one, at, m, y) {
  const wrong = one.wrong === true;
  const badges = [one.suspected ? "?" : null, one.duplicate ? "=" : null, one.tags.length ? "#" : null, one.note ? "✎" : null].filter(Boolean).join(" ");
  return h("button", {
    type: "button", role: "option", class: `pic ${wrong ? "is-wrong" : ""} ${one.removed ? "is-removed" : ""}`, tabindex: -1, "aria-selected": String(chosen.has(one.id) || one.id === state.picture), dataset: { id: one.id, at },
    style: { left: `${(at % m.columns) * (m.side + 8)}px`, top: `${y}px`, width: `${m.side}px` },
    title: [one.name, one.label, wrong ? `✗ ${one.prediction}` : one.prediction, number(one.probability, 2), ...one.tags, one.note].filter(Boolean).join(" · "),
    onclick: (event) => { if (event.ctrlKey || event.metaKey || event.shiftKey) choose(one.id, at, event.shiftKey); else set({ picture: one.id }); }, ondblclick: () => set({ picture: one.id, tab: "decide" }),
  }, h("img", { src: thumbnail(one.id, "stored"), alt: one.name, loading: "lazy", style: { height: `${m.side}px` } }), chosen.has(one.id) ? h("span", { class: "tick", "aria-hidden": "true" }, "✓") : null,
  h("span", { class: "words" }, h("span", {}, one.new_label ?? one.label ?? one.prediction ?? one.name), wrong ? h("span", { class: "wrong" }, ` ✗ ${one.prediction}`) : null, badges ? h("span", { class: "soft" }, ` ${badges}`) : null));
}

let lastChosen = null;
async function choose(id, at, range) {
  if (range && lastChosen !== null) {
    const [from, to] = [Math.min(lastChosen, at), Math.max(lastChosen, at)];
    for (let page = Math.floor(from / PAGE); page <= Math.floor(to / PAGE); page += 1) {
      const found = await load(page);
      found?.pictures.forEach((one, i) => { if (found.offset + i >= from && found.offset + i <= to) chosen.add(one.id); });
    }
  } else if (chosen.has(id)) chosen.delete(id); else chosen.add(id);
  lastChosen = at;
  actions();
  draw();
}

async function keys(event) {
  const m = measure();
  if (!m) return;
  const here = document.activeElement?.dataset?.at;
  let at = here === undefined ? -1 : Number(here);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -m.columns, ArrowDown: m.columns, PageDown: m.columns * 5, PageUp: -m.columns * 5 }[event.key];
  if (step !== undefined) at = at < 0 ? Math.floor((seen(m.box)[0] / m.height)) * m.columns : Math.min(grid.total - 1, Math.max(0, at + step));
  else if (event.key === "Home") at = 0;
  else if (event.key === "End") at = grid.total - 1;
  else if (event.key === "x" && at >= 0) { const one = known.get(document.activeElement.dataset.id); if (one) choose(one.id, at, event.shiftKey); event.preventDefault(); return; } else return;
  event.preventDefault();
  event.stopPropagation();
  await goTo(at);
}

/** Scroll to a place of the list and put the focus there. */
async function goTo(at, focus = true) {
  const m = measure();
  if (!m || at < 0) return;
  await load(Math.floor(at / PAGE));
  const scale = (m.rows * m.height) / Math.min(TALLEST, Math.max(1, m.rows) * m.height);
  const y = (Math.floor(at / m.columns) * m.height) / scale;
  const outer = scroller();
  const [top, bottom] = seen(m.box);
  if (y < top || y + m.height > bottom) {
    const offset = m.box.getBoundingClientRect().top - (outer?.getBoundingClientRect().top ?? 0) + (outer?.scrollTop ?? scrollY);
    (outer ?? window).scrollTo({ top: offset + y - 60 });
  }
  draw();
  await new Promise((resolve) => setTimeout(resolve, 60));
  if (focus) m.box.querySelector(`[data-at="${at}"]`)?.focus({ preventScroll: true });
}

/** The chosen picture's place, where the list holds it. */
async function reveal() {
  if (!state.picture || !grid?.total) return;
  try {
    const found = await get("/api/collection/next", { ...query(), picture: state.picture, step: 0 });
    if (found.picture?.id === state.picture && found.place > PAGE / 4) goTo(found.place, false);
  } catch { /* it is not of the list */ }
}

// what is done with them

function actions() {
  const node = body?.querySelector(".actions");
  if (!node) return;
  const some = [...chosen];
  const about = () => (some.length ? [some, ""] : [[], asText(query())]);
  const input = h("input", { list: "grid-tags", maxlength: 60, placeholder: t("addTag"), "aria-label": t("addTag"), dataset: { key: "tag-input" } });
  const tag = async () => { if (!input.value.trim()) { input.focus(); return; } const [ids, text] = about(); const n = some.length || (grid.total ?? 0); if (await noteAll("tag", ids, input.value, text)) tell(t("taggedAll", { n: n.toLocaleString(), tag: input.value })); };
  const ids = async () => (some.length ? some : (await get("/api/collection/pictures", query({ limit: 64 }))).pictures.map((one) => one.id)).slice(0, 64);
  keepFocus(node, () => fill(node, h("div", { class: "bar" }, h("b", {}, some.length ? t("selected", { n: some.length }) : t("allFound", { n: (grid.total ?? 0).toLocaleString() })), some.length ? h("button", { type: "button", class: "small", onclick: () => { chosen = new Set(); actions(); draw(); } }, t("clearChosen")) : null,
    input, h("datalist", { id: "grid-tags" }, Object.keys(grid.tags ?? {}).map((name) => h("option", { value: name }))), h("button", { type: "button", class: "small", onclick: tag }, t("tagThem")),
    some.length ? h("button", { type: "button", class: "small", onclick: async () => { if (await noteAll("remove", some)) { chosen = new Set(); tell(t("removedSome", { n: some.length })); } } }, t("removePicture")) : null,
    h("button", { type: "button", class: "small", disabled: !grid.undo, dataset: { key: "undo" }, onclick: undoLast }, t("undo")), h("span", { class: "spacer" }),
    some.length ? null : h("a", { class: "button", href: `/api/collection/pictures.csv?${asText(query())}`, download: "pictures.csv" }, t("exportCsv")),
    exporter("sheets", t("explainThese"), ids), exporter("report", t("reportThese"), ids))));
}

/** A job that makes a file: started with the ids that are chosen then, fetched when it is done. */
function exporter(kind, words, ids) {
  let listed = [];
  const node = worker(kind, words, () => ({ pictures: listed, methods: kind === "sheets" ? ["grad-cam"] : [] }), (result, job) => {
    if (!result?.file) return;
    h("a", { href: `/api/jobs/${job.id}/files/${result.file}`, download: result.file }).click();
    tell(t("fileMade", { name: result.file, n: result.pictures }));
  });
  node.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button || button.dataset.ready || button.closest(".work")) return;
    event.stopPropagation();
    event.preventDefault();
    try { listed = await ids(); } catch (error) { failed(error); return; }
    button.dataset.ready = "1";
    button.click();
  }, true);
  return node;
}

// the matrix

let confusions = 0;
async function drawConfusion() {
  const mine = ++confusions;
  fill(body, h("div", { class: "filter-box" }, filters()), h("p", { class: "soft computing" }, t("computing")));
  try {
    const found = await get("/api/collection/confusion", query({ order: "name" }));
    if (mine !== confusions || !body.isConnected || state.view !== "confusion") return;
    const most = Math.max(1, ...found.counts.flatMap((row, i) => row.filter((_, k) => k !== i)));
    const words = h("p", { class: "soft" }, t("confusionHint", { n: found.pictures.toLocaleString() }), found.classes > found.labels.length ? ` ${t("mostConfused", { n: found.labels.length, of: found.classes })}` : "");
    const cells = (row, i) => row.map((count, k) => {
      const share = i === k ? 0 : count / most;
      return h("td", { class: i === k ? "is-diagonal" : count ? "is-off" : "" }, count ? h("button", { type: "button", style: { background: share ? `color-mix(in srgb, var(--bad) ${Math.round(18 + 62 * share)}%, transparent)` : "" }, title: i === k ? `${found.labels[i]}: ${count}` : t("takenFor", { label: found.labels[i], prediction: found.labels[k] }),
        "aria-label": `${found.labels[i]} → ${found.labels[k]}: ${count}`, onclick: () => set({ view: "grid", label: found.labels[i], prediction: found.labels[k] }) }, count) : null);
    });
    fill(body, h("div", { class: "filter-box" }, filters()), found.labels.length ? [words, h("div", { class: "scroll" }, h("table", { class: "confusion" }, h("tr", {}, h("td", { class: "corner soft" }, t("labelThenPrediction")), found.labels.map((name) => h("th", { scope: "col" }, h("span", {}, name)))),
      found.counts.map((row, i) => h("tr", {}, h("th", { scope: "row" }, found.labels[i]), cells(row, i)))))] : h("p", { class: "empty" }, t("noneFound")));
  } catch (error) { if (mine === confusions && body.isConnected && state.view === "confusion") fill(body, h("p", { class: "problem" }, error.message)); }
}

/** The next picture that the network gets wrong, of those that are looked for. */
export async function nextMistake(step = 1) {
  if (!app.model.survey) return;
  try {
    const found = await get("/api/collection/next", { ...query({ order: state.sort === "name" ? "confidence" : state.sort, step }), state: "wrong", picture: state.picture });
    if (!found.picture) { tell(t("noMistakesHere")); return; }
    set({ picture: found.picture.id });
    tell(t("mistakeOf", { n: found.place + 1, total: found.total, label: found.picture.label ?? "", prediction: found.picture.prediction ?? "" }));
  } catch (error) { failed(error); }
}

const here = () => state.tab === "collection" && panel?.isConnected && app.model?.survey;
on("view", () => { if (here()) browseTab(panel); });
on(`${FILTERS.join(" ")} sort`, () => {
  chosen = new Set();
  if (!here()) return;
  if (state.view === "grid") drawGrid(); else if (state.view === "confusion") drawConfusion();
});
on("picture", () => { if (here() && state.view === "grid") for (const one of body.querySelectorAll(".pic")) one.setAttribute("aria-selected", String(chosen.has(one.dataset.id) || one.dataset.id === state.picture)); });
hear("marks", () => { if (here() && state.view === "grid") drawGrid(); });
document.addEventListener("scroll", () => { if (here() && state.view === "grid") requestAnimationFrame(draw); }, true);
addEventListener("resize", () => { if (here() && state.view === "grid") requestAnimationFrame(layout); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "n" || !here() || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  nextMistake();
});
