// The card on the right: of a unit, or of the picture.
import { get, job } from "./api.js";
import { app, failed, hear, layerOf, ours, say } from "./app.js";
import { aboutUnit } from "./about.js";
import { beforeAfter } from "./answers.js";
import { conceptsOfUnit } from "./concepts.js";
import { notesOf } from "./notes.js";
import { unitSheet } from "./unitsheet.js";
import { fill, h, number, percent, s } from "./dom.js";
import { photoBox, rectangle } from "./frames.js";
import { offWords, t, told } from "./i18n.js";
import { list, on, set, state } from "./state.js";
import { thumbnail } from "./strip.js";

let right = null;
let asked = 0;
let which = "unit";
const wanted = new Map(); // unit -> {picture, caption}

export function drawCard() {
  right = document.getElementById("right");
  const unit = state.unit && which === "unit";
  const head = h("div", { class: "card-tabs" },
    h("button", { type: "button", "aria-pressed": String(unit), disabled: !state.unit, onclick: () => { which = "unit"; drawCard(); } }, t("unit")),
    h("button", { type: "button", "aria-pressed": String(!unit), onclick: () => { which = "picture"; drawCard(); } }, t("picture")),
    list("off").length ? h("button", { type: "button", class: "off", onclick: () => set({ off: "" }) }, `${offWords(list("off").length)} ×`) : null);
  const body = h("div", { class: "card-body" });
  fill(right, head, body);
  if (unit) unitCard(body); else pictureCard(body);
}

// the unit

async function unitCard(body) {
  const mine = ++asked;
  const unit = state.unit;
  fill(body, h("h2", {}, unit), h("p", { class: "soft computing" }, t("computing")));
  try {
    const card = await get("/api/unit", { unit, picture: state.picture });
    if (mine !== asked) return;
    const survey = card.survey;
    const off = list("off").includes(unit);
    const patches = h("div", { class: "patches" });
    const ablation = h("p", { class: "change", "aria-live": "polite" });
    fill(body,
      h("h2", {}, unit, " ", h("button", { type: "button", class: "plain what", "aria-label": t("whatIsThis"), title: t("whatIsThis"), onclick: () => aboutUnit(card) }, "?"), " ", h("button", { type: "button", class: "small", onclick: () => unitSheet(unit) }, t("largeCard"))),
      h("p", { class: "soft" }, [card.kind, card.field?.size ? t("cellSees", { size: card.field.size.join("×") }) : card.field ? t("wholePicture") : null,
        survey ? t("activeIn", { p: percent(survey.active), n: survey.pictures }) : null].filter(Boolean).join(" · ")),
      survey?.dead ? h("p", { class: "warning" }, t("deadOne")) : null,
      card.response ? h("p", {}, `${t("onPicture")}: `, h("b", {}, t("unitMax", { value: number(card.response.max) })), h("span", { class: "soft" }, ` · ${t("unitMean", { value: number(card.response.mean) })} · ${t("strongest", { row: card.response.row + 1, col: card.response.col + 1 })}`)) : null,
      patches,
      wantsBlock(unit, card.wanted),
      survey ? histogram(survey, card.response?.max) : h("p", { class: "soft" }, app.model.survey ? t("notSurveyedUnit") : t("noSurvey")),
      survey?.classes?.length ? h("section", {}, h("h3", {}, t("favours"), survey.selectivity != null ? h("span", { class: "soft" }, ` · ${t("selectivityIs", { s: survey.selectivity.toFixed(2) })}`) : null), classBars(survey.classes)) : null,
      survey?.alike?.length ? h("section", {}, h("h3", {}, t("nearestUnits")), h("p", { class: "chips" }, survey.alike.map((one) => h("button", { type: "button", class: "chip", onclick: () => set({ unit: `${card.layer}:${one.channel}` }) },
        `${one.channel}`, h("small", {}, ` ${one.correlation.toFixed(2)}`))))) : null,
      h("section", { class: "ablate" }, h("label", { class: "switch" }, h("input", { type: "checkbox", checked: off, onchange: (event) => {
        const rest = list("off").filter((one) => one !== unit);
        set({ off: (event.target.checked ? [...rest, unit] : rest).join(",") });
      } }), t("switchOff")), ablation,
      h("button", { type: "button", class: "small", onclick: () => set({ target: unit, against: "", tab: "decide" }) }, t("explainUnit"))));
    body.append(notesOf(unit));
    markBest(card);
    conceptsOfUnit(unit).then((parts) => { if (mine === asked) patches.after(...parts); }, () => {});
    ablate(ablation);
    if (survey) showPatches(patches, card.survey.unit_there ?? unit, mine);
  } catch (error) {
    if (mine === asked) fill(body, h("h2", {}, unit), h("p", { class: "problem" }, error.message));
  }
}

function markBest(card) {
  for (const marks of document.querySelectorAll(".frame .marks")) {
    marks.querySelectorAll(".best-field").forEach((one) => one.remove());
    if (card.response?.box && app.picture && !card.response.whole) marks.append(rectangle(photoBox(card.response.box), "best-field"));
  }
}

async function showPatches(into, unit, mine) {
  fill(into, h("p", { class: "soft computing" }, t("computing")));
  try {
    // the pieces at once; what in them counts, and whether the network says the same today, when it is computed
    for (const quick of ["true", ""]) {
      const found = await get("/api/patches", quick ? { unit, quick } : { unit });
      if (mine !== asked) return;
      drawPatches(into, found);
    }
  } catch (error) {
    if (mine === asked) fill(into, h("p", { class: "soft" }, error.message));
  }
}

function drawPatches(into, found) {
  const rows = [["top", t("top")], ["typical", t("typical")], ["lowest", t("lowest")]];
  fill(into, rows.map(([kind, word]) => {
    const items = found.patches.filter((one) => one.kind === kind).slice(0, 6);
    if (!items.length) return null;
    return h("section", {}, h("h3", {}, word), h("div", { class: "patch-row" }, items.map((one) => patch(one))),
      kind === "top" && items.some((one) => one.guided_image) ? h("div", { class: "patch-row guided", title: t("guidedRow") }, items.map((one) => one.guided_image ? h("img", { src: one.guided_image, alt: "", loading: "lazy" }) : h("span"))) : null);
  }), found.notes.map((note) => h("p", { class: "soft" }, told(note))));
}

function patch(one) {
  const words = t("patchTitle", { label: one.label ?? one.prediction ?? "", value: number(one.value) });
  return h("button", { type: "button", class: "patch", title: one.error ?? words, "aria-label": words, onclick: () => set({ picture: one.id }) },
    one.image ? h("img", { src: one.image, alt: "", loading: "lazy" }) : h("span", { class: "missing" }));
}

function wantsBlock(unit, kept = null) {
  // made here, or kept by a survey or a former visit
  const known = wanted.get(unit) ?? (kept ? { picture: kept.image, caption: kept.caption } : null);
  const image = h("img", { alt: `${t("wants")}: ${unit}`, hidden: !known, src: known?.picture ?? null });
  const show = (uri) => { image.src = uri; image.hidden = false; };
  const words = h("span", { class: "soft" }, known?.caption ?? "");
  const meter = h("progress", { hidden: true, "aria-label": t("computing") });
  let work = null;
  const button = h("button", { type: "button", class: "small", onclick: () => {
    if (work) { work.cancel(); return; }
    button.textContent = t("cancel");
    meter.hidden = false;
    work = job({ kind: "visualize", target: unit, steps: 128 }, {
      progress: (at) => { meter.max = at.total ?? 1; meter.value = at.done; words.textContent = at.left > 1 ? t("left", { s: Math.ceil(at.left) }) : ""; },
      frame: (frame) => { const uri = Object.values(frame.pictures)[0]; if (uri) show(uri); },
    });
    work.done.then((result) => {
      const one = result.visualizations[0];
      wanted.set(unit, one);
      show(one.picture);
      words.textContent = one.caption;
    }, failed).finally(() => { work = null; meter.hidden = true; button.textContent = t("makeWants"); });
  } }, t("makeWants"));
  return h("section", { class: "wants" }, h("h3", {}, t("wants")), h("div", { class: "row" }, image, h("div", {}, button, meter, words)));
}

function histogram(survey, now) {
  const { edges, counts } = survey.histogram;
  if (!counts.length) return null;
  const most = Math.max(...counts);
  const width = 100 / counts.length;
  const place = now == null ? null : position(edges, now);
  return h("section", {}, h("h3", {}, t("histogram")), s("svg", { class: "histogram", viewBox: "0 0 100 36", preserveAspectRatio: "none", role: "img", "aria-label": t("histogramTitle", { n: survey.pictures }) },
    s("title", {}, t("histogramTitle", { n: survey.pictures })),
    counts.map((count, i) => s("rect", { x: i * width + width * 0.06, y: 36 - (34 * count) / most, width: width * 0.88, height: (34 * count) / most })),
    place === null ? null : s("line", { x1: place, x2: place, y1: 0, y2: 36, "vector-effect": "non-scaling-stroke" })),
  h("p", { class: "axis soft" }, h("span", {}, number(edges[0], 2)), h("span", {}, number(edges.at(-1), 2))));
}

/** Where a value lies among logarithmic bins, in percent. */
function position(edges, value) {
  const last = edges.length - 1;
  if (value <= edges[0]) return 0;
  if (value >= edges[last]) return 100;
  let i = 0;
  while (edges[i + 1] < value) i += 1;
  return (100 * (i + (value - edges[i]) / (edges[i + 1] - edges[i]))) / last;
}

function classBars(classes) {
  const most = Math.max(...classes.map((one) => Math.abs(one.mean)), 1e-9);
  return h("ol", { class: "mini-bars" }, classes.map((one) => h("li", {}, h("span", { class: "label" }, one.label), h("span", { class: "track" }, h("i", { style: { width: `${(100 * Math.max(0, one.mean)) / most}%` } })), h("span", { class: "figure" }, number(one.mean, 2)))));
}

const asking = () => [state.picture, state.target, state.against, state.off].join("\n");

/** What the switched-off units change: beside the bars, and in a sentence here. */
async function ablate(into) {
  const off = list("off");
  const question = asking();
  if (!off.length || !state.picture) { if (!app.masking) say("change", null); if (into) into.textContent = ""; return; }
  try {
    const found = await get("/api/ablate", { picture: state.picture, units: off, target: state.target, against: state.against });
    if (question !== asking()) return; // an answer to what is no longer asked
    if (into) into.textContent = beforeAfter("ablated", found);
    if (!app.masking) say("change", found);
  } catch (error) { failed(error); }
}

// the picture

async function pictureCard(body) {
  const mine = ++asked;
  const picture = app.picture;
  // until the chosen picture's details are here, the former one's would stand under its thumbnail
  if (app.failed && app.failed === state.picture) { fill(body, h("p", { class: "problem" }, app.why)); return; }
  if (!picture || picture.id !== state.picture) { fill(body, h("p", { class: state.picture ? "soft computing" : "soft" }, state.picture ? t("computing") : t("noPictures"))); return; }
  const neighbours = h("section");
  const best = app.reading?.classes?.[0];
  fill(body, h("h2", { class: "wrap" }, picture.name),
    h("p", { class: "soft" }, [t("size", { w: picture.width, h: picture.height }), picture.label ? `${t("label")}: ${picture.label}` : null].filter(Boolean).join(" · ")),
    best ? h("p", {}, h("b", {}, best.label), ` ${best.probability != null ? best.probability.toFixed(2) : number(best.score)}`,
      picture.label && app.model.classes?.includes(picture.label) ? h("span", { class: picture.label === best.label ? "right" : "wrong" }, picture.label === best.label ? ` ✓ ${t("kept")}` : ` ✗ ${t("wrongWord")}`) : null) : null,
    h("section", {}, h("h3", {}, t("sees")), h("img", { class: "input pixelated", alt: t("sees"), src: ours(`/api/pictures/${picture.id}/input`) }), h("p", { class: "soft" }, `${picture.input[1]}×${picture.input[0]}`)),
    neighbours, notesOf(picture.id));
  if (!app.model.survey) return;
  fill(neighbours, h("h3", {}, t("neighbours")), h("p", { class: "soft computing" }, t("computing")));
  try {
    const found = await get("/api/collection/neighbors", { picture: picture.id, k: 9 });
    if (mine !== asked) return;
    fill(neighbours, h("h3", { title: t("neighboursTitle") }, t("neighbours")), h("div", { class: "near" }, found.neighbors.map((one) => near(one))),
      h("p", { class: "soft" }, t("similarityAt", { layer: found.layer, metric: t(found.metric === "cosine" ? "cosine" : "distance") })), h("button", { type: "button", class: "small", onclick: () => set({ tab: "collection", view: "map" }) }, t("whereOnMap")), " ", h("button", { type: "button", class: "small", onclick: () => set({ tab: "collection", view: "grid", alike: picture.id }) }, t("neighbourhood")));
  } catch (error) { if (mine === asked) fill(neighbours, h("h3", {}, t("neighbours")), h("p", { class: "soft" }, error.message)); }
}

export function near(one) {
  const words = [one.label ?? one.prediction, one.similarity != null ? one.similarity.toFixed(2) : null].filter(Boolean).join(" ");
  const wrong = one.label && one.prediction && one.label !== one.prediction;
  return h("button", { type: "button", class: `near-one ${wrong ? "is-wrong" : ""}`, title: `${one.name}${wrong ? ` · ${t("takenFor", one)}` : ""}`, onclick: () => set({ picture: one.id }) },
    h("img", { src: thumbnail(one.id, "stored"), alt: one.name, loading: "lazy", width: 64, height: 64 }), h("span", {}, words));
}

on("unit", () => {
  which = state.unit ? "unit" : "picture";
  drawCard();
  // on a narrow screen the card lies below everything: go there
  if (state.unit && innerWidth <= 860) right.scrollIntoView({ block: "start" });
});
on("off", () => { drawCard(); if (!(which === "unit" && state.unit)) ablate(null); });
// a mask was taken away, or the question is a new one: what the switched-off units change stands there again
hear("uncovered", () => { if (list("off").length) ablate(null); });
on("target against", () => { if (list("off").length) ablate(null); });
on("picture", () => { if (which === "picture" || !state.unit) drawCard(); });
hear("reading", () => { if (document.getElementById("right")) { drawCard(); if (!(which === "unit" && state.unit) && list("off").length) ablate(null); } });
export { layerOf };
