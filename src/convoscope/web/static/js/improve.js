// How would it be improved? Findings, two networks, shortcuts by hand, suspected labels, concepts.
import { get, post } from "./api.js";
import { app, failed, hear } from "./app.js";
import { choice, fill, h, number, percent, s } from "./dom.js";
import { t, told } from "./i18n.js";
import { on, set, state } from "./state.js";
import { thumbnail } from "./strip.js";
import { flipsPart } from "./flips.js";
import { labelsPart } from "./suspects.js";
import { partsPart } from "./concepts.js";
import { spotsPart } from "./spots.js";
import { worker } from "./working.js";

const PARTS = { findings: findingsPart, compare: flipsPart, shortcuts: spotsPart, labels: labelsPart, concepts: partsPart };
let panel = null;
let body = null;
export let known = null; // what lies here already

export async function improveTab(node) {
  panel = node;
  const part = PARTS[state.part] ? state.part : "findings";
  body = h("div", { class: `part part-${part}` });
  fill(panel, h("div", { class: "bar" }, choice(t("improve"), Object.keys(PARTS).map((name) => [name, t(`part_${name}`)]), part, (name) => set({ part: name }))), body);
  await draw(part);
}

async function draw(part) {
  const into = body;
  fill(into, h("p", { class: "soft computing" }, t("computing")));
  try {
    known = await get("/api/improve");
    if (into !== body || !into.isConnected) return;
    if (known.why_not) { fill(into, h("div", { class: "empty" }, h("h2", {}, t("nothingToExamine")), h("p", {}, told(known.why_not)))); return; }
    await PARTS[part](into, known, () => draw(part));
  } catch (error) {
    if (into.isConnected) fill(into, h("p", { class: "problem" }, error.message));
  }
}

/** A picture of a result: opens it in Decide. */
export function shot(one, words = "") {
  if (!one.id) return h("span", { class: "shot gone", title: t("notServed", { name: one.name }) }, h("small", {}, one.name));
  return h("button", { type: "button", class: "shot", title: `${one.name}${words ? ` · ${words}` : ""}`, "aria-label": `${t("openPicture")} ${one.name}`, onclick: () => set({ picture: one.id, tab: "decide", target: "", against: "" }) },
    h("img", { src: thumbnail(one.id), alt: "", loading: "lazy", width: 64, height: 64 }), words ? h("small", {}, words) : null);
}

/** A command with a button that copies it. */
export function command(text) {
  if (!text) return null;
  return h("div", { class: "command" }, h("code", {}, text), h("button", { type: "button", class: "small", onclick: async (event) => {
    try { await navigator.clipboard.writeText(text); event.target.textContent = t("copiedShort"); } catch { getSelection().selectAllChildren(event.target.previousSibling); }
  } }, t("copy")));
}

/** A size with its interval, drawn to scale between the ends given. */
export function interval({ size, low, high }, least = Math.min(0, low), most = Math.max(1, high)) {
  const at = (value) => (100 * (value - least)) / (most - least || 1);
  return h("span", { class: "interval", title: `${number(size)} [${number(low)}, ${number(high)}]` },
    s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("line", { class: "rule", x1: 0, x2: 100, y1: 5, y2: 5 }), s("line", { class: "reach", x1: at(low), x2: at(high), y1: 5, y2: 5 }), s("line", { class: "mid", x1: at(size), x2: at(size), y1: 1, y2: 9 })),
    h("span", { class: "figure" }, `${number(size)} [${number(low)}, ${number(high)}]`));
}

function facts(one) {
  const rows = Object.entries(one.facts ?? {});
  if (!rows.length) return null;
  return h("details", { class: "facts" }, h("summary", {}, t("evidence")), h("dl", {}, rows.map(([name, value]) => [h("dt", {}, told(name.replaceAll("_", " "))),
    h("dd", {}, value && typeof value === "object" ? `${number(value.mean)} [${number(value.low)}, ${number(value.high)}]` : typeof value === "number" ? number(value) : value === true ? t("yes") : value === false ? t("no") : told(value))])));
}

export function card(one, place, more = null) {
  const label = one.class;
  return h("article", { class: "finding", dataset: { finding: place } },
    h("h3", {}, h("span", { class: "place" }, `${place}`), " ", told(one.sentence)),
    h("p", { class: "meta" }, h("span", { class: "kind" }, t(`kind_${one.kind}`)), label ? h("span", { class: "class-name" }, label) : null, interval(one)),
    one.pictures.length ? h("div", { class: "shots" }, one.pictures.slice(0, 12).map((picture) => shot(picture)),
      one.count > 12 && app.model.survey ? h("button", { type: "button", class: "small", onclick: () => set({ tab: "collection", view: "grid", finding: place, label: "", prediction: "", right: "" }) }, t("allOf", { n: one.count })) : null) : null,
    one.doubt ? h("p", { class: "soft" }, told(one.doubt)) : null, facts(one), more, one.next ? h("div", { class: "next-step" }, h("span", { class: "soft" }, t("nextStep")), one.next.startsWith("convoscope ") ? command(one.next) : h("p", {}, told(one.next))) : null);
}

/** A stage's name as its findings are called: slices, slice; unknown ones as they are. */
function stageWord(name) {
  const key = `kind_${name.replace(/^(slice|shortcut)s$/, "$1")}`;
  const word = t(key);
  return word === key ? told(name) : word;
}

async function findingsPart(into, given, again) {
  const run = (main) => worker("diagnose", given.there.diagnosis ? t("examineAgain") : t("examine"), () => ({}), again, { main });
  if (!given.there.diagnosis) {
    fill(into, h("div", { class: "empty" }, h("h2", {}, t("notExamined")), h("p", {}, t("examineNote")), run(true), h("p", { class: "soft" }, t("orCommand")), command(given.commands.diagnose)));
    return;
  }
  const found = await get("/api/improve/diagnosis");
  if (!into.isConnected) return;
  const right = found.right;
  fill(into, h("div", { class: "lead" }, h("p", { class: "answer" }, found.findings.length ? t("foundSome", { n: found.findings.length + found.further.length, tests: found.tests }) : t("foundNothing", { tests: found.tests })),
    right ? h("p", { class: "soft" }, t("rightOf", { p: percent(right.mean), low: percent(right.low), high: percent(right.high), n: found.pictures })) : null,
    found.stopped ? h("p", { class: "warning" }, t("inputFirst")) : null, found.interrupted?.length ? h("p", { class: "warning" }, t("stoppedBefore", { names: found.interrupted.map(stageWord).join(", ") })) : null),
  h("div", { class: "findings" }, found.findings.map((one, i) => card(one, i + 1, leads(one)))),
  found.further.length ? h("details", { class: "further" }, h("summary", {}, t("further", { n: found.further.length })), found.further.map((one, i) => card(one, found.findings.length + i + 1, leads(one)))) : null,
  h("section", { class: "missed" }, h("h3", {}, t("couldMiss")), h("p", { class: "soft" }, told(found.missed))),
  found.stages?.length ? h("details", { class: "stages" }, h("summary", {}, t("whatWasAsked")), h("table", {}, h("tr", {}, h("th", {}, t("stage")), h("th", {}, t("tests")), h("th", {}, t("findingsWord")), h("th", {})),
    found.stages.map((one) => h("tr", {}, h("td", {}, stageWord(one.name)), h("td", {}, one.tests), h("td", {}, one.found), h("td", { class: "soft" }, told(one.refused ?? "")))))) : null,
  h("div", { class: "bar" }, run(false)));
  const wanted = into.querySelector(`[data-finding="${CSS.escape(state.finding)}"]`);
  wanted?.scrollIntoView({ block: "nearest" });
}

/** Where a finding can be looked at by hand. */
function leads(one) {
  if (one.kind === "shortcut" && one.class) return h("button", { type: "button", class: "small", onclick: () => set({ part: "shortcuts", spot: one.class }) }, t("tryByHand"));
  if (one.kind === "data") return h("button", { type: "button", class: "small", onclick: () => set({ part: "labels" }) }, t("goThrough"));
  return null;
}

export async function answerSpot(label, isPart) {
  try { return await post("/api/improve/answer", { label, is_part: isPart }); } catch (error) { failed(error); return null; }
}

on("part", () => { if (state.tab === "improve" && panel?.isConnected) improveTab(panel); });
hear("improve-redraw", () => { if (state.tab === "improve" && panel?.isConnected) improveTab(panel); });
