// The network's answer: class bars to choose the target and its rival, or boxes, segments and landmarks to click.
import { app, hear } from "./app.js";
import { fill, h, keepFocus, number, percent, s } from "./dom.js";
import { canvas, photoBox } from "./frames.js";
import { askedWords, offWords, t, told } from "./i18n.js";
import { set, state } from "./state.js";

let node = null;
let now = null; // the explanation on show
let change = null; // after a mask or an ablation
let asked = ""; // the question that it answers

const question = () => [state.picture, state.target, state.against].join("\n");

export function drawAnswers(into, found) {
  node = into;
  now = found;
  // what a mask or a switched-off unit changes stays until the question is another; its answer may come before the maps
  if (asked !== question()) change = null;
  draw();
}

/** Show beside the bars what a mask or a switched-off unit makes of them; null takes it away. */
export function showChange(what) {
  change = what;
  asked = question();
  draw();
}

function draw() {
  keepFocus(node, redraw);
}

function redraw() {
  const reading = app.reading;
  if (!node || !reading) return;
  const rows = [...reading.classes];
  const chosen = now?.target ?? null;
  const extra = chosen && now && !rows.some((row) => isTarget(row, rows)) && reading.kind === "classifier" && app.model.classes?.includes(chosen)
    ? { index: app.model.classes.indexOf(chosen), label: chosen, score: now.score, probability: now.probability, target: String(app.model.classes.indexOf(chosen)) } : null;
  if (extra) rows.push(extra);
  const after = matched(rows, change);
  const largest = Math.max(1e-9, ...rows.map((row) => Math.abs(row.probability ?? row.share ?? row.score ?? 0)));
  const whole = rows.some((row) => row.probability != null) ? 1 : largest;
  const head = h("div", { class: "head" }, h("h2", {}, t("prediction")),
    now ? h("p", { class: "target" }, t("target", { target: askedWords(now.target) }), " ", h("span", { class: "soft" }, `${t("score")} ${number(now.score)}${chance(now)} · ${t("passes", { f: now.plan.forwards, b: now.plan.backwards })}`)) : null,
    change ? h("p", { class: "change", "aria-live": "polite" }, changeWords()) : null);
  const list = h("ol", { class: "bars", "aria-label": t("prediction") }, rows.map((row, rank) => line(row, rank, rows, whole, after.get(row))));
  fill(node, head, list, reading.kind === "classifier" && (app.model.classes?.length ?? 0) > rows.length ? search() : null,
    reading.kind !== "classifier" && rows.length ? h("p", { class: "soft" }, t("clickHint")) : null,
    now?.doubts?.length ? h("ul", { class: "doubts" }, now.doubts.map((one) => h("li", {}, saidOf(one)))) : null);
  marks(rows);
}

/** The probability; of a contrast the difference of two, which is no probability: it may be below zero. */
function chance(found) {
  if (found.probability == null) return "";
  if (!state.against) return ` · p ${found.probability.toFixed(2)}`;
  return ` · ${t("probabilityDifference")} ${signed(found.probability, 2)}`;
}

const signed = (value, digits) => `${value > 0 ? "+" : ""}${value.toFixed(digits).replace("-", "−")}`;

/** What a mask or a switched-off unit changes, in one line: `key` is the phrase. */
export function beforeAfter(key, { before, after }) {
  const probability = before.probability != null;
  const value = (reading) => (!probability ? number(reading.score) : state.against ? signed(reading.probability, 3) : `p ${reading.probability.toFixed(3)}`);
  const target = askedWords(before.target) + (probability && state.against ? ` (${t("probabilityDifference")})` : "");
  return t(key, { target, before: value(before), after: value(after) });
}

/** Share of the union of two boxes that both cover. */
function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (wide <= 0 || high <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (wide * high) / (area(a) + area(b) - wide * high);
}

/** What became of each row: of classes by their number, of boxes by where they lie; {gone: true} where nothing did. */
export function matched(rows, what) {
  const found = new Map();
  const after = what?.after?.classes;
  if (!after) return found;
  if (!rows.some((row) => row.box)) {
    const by = new Map(after.map((row) => [row.index, row]));
    for (const row of rows) if (by.has(row.index)) found.set(row, by.get(row.index));
    return found;
  }
  const pairs = rows.flatMap((row) => after.filter((other) => other.box && other.label === row.label).map((other) => [overlap(row.box, other.box), row, other]));
  const taken = new Set();
  for (const [share, row, other] of pairs.sort((a, b) => b[0] - a[0])) {
    if (share < 0.3 || found.has(row) || taken.has(other)) continue;
    found.set(row, other);
    taken.add(other);
  }
  for (const row of rows) if (!found.has(row)) found.set(row, { gone: true });
  return found;
}

function changeWords() {
  const { facts } = change;
  const words = beforeAfter(facts.box ? "covered" : "ablated", change);
  return facts.box && facts.units?.length ? `${words} (${offWords(facts.units.length)})` : words;
}

function isTarget(row, rows) {
  if (state.target === "") return row === rows[0];
  return state.target === row.target || state.target === row.label;
}

function line(row, rank, rows, whole, later) {
  const value = row.probability ?? row.share ?? row.score;
  const shown = row.probability != null ? short(row.probability) : row.share != null ? percent(row.share) : number(row.score);
  const target = isTarget(row, rows);
  const rival = state.against !== "" && (state.against === row.target || state.against === row.label);
  const name = `${row.label}`;
  return h("li", { class: `${target ? "is-target" : ""} ${rival ? "is-rival" : ""}` },
    h("button", { type: "button", class: "bar-row", dataset: { key: `class ${row.target}` }, "aria-pressed": String(target), title: `${t("explain")}: ${name} · ${t("score")} ${number(row.score)}`,
      onclick: () => set({ target: rank === 0 && !row.box ? "" : row.target, against: rival ? "" : state.against }) },
    h("span", { class: "label" }, name), h("span", { class: "track" },
      h("i", { style: { width: `${Math.max(0.3, (100 * Math.abs(value ?? 0)) / whole)}%` } }),
      laterShare(later) != null ? h("b", { style: { left: `${100 * laterShare(later)}%` } }) : null),
    h("span", { class: "figure" }, shown, later?.gone ? h("em", {}, ` → ${t("gone")}`) : laterShare(later) != null ? h("em", {}, ` → ${later.probability != null ? short(later.probability) : percent(later.share)}`) : null)),
    app.reading.kind === "classifier" ? h("button", { type: "button", class: "rival", dataset: { key: `rival ${row.target}` }, "aria-pressed": String(rival), disabled: target, title: t("ratherTitle"),
      "aria-label": `${t("rather")} ${name}`, onclick: () => set({ against: rival ? "" : row.target }) }, t("rather")) : null);
}

/** A doubt on one map begins with the method's name. */
function saidOf(doubt) {
  const [, name, rest] = /^([a-z+-]+(?:@\S+)?): (.*)$/s.exec(doubt) ?? [];
  return name ? `${name}: ${told(rest)}` : told(doubt);
}

// small ones with one digit more: 0.00 would say nothing
const short = (probability) => probability.toFixed(probability >= 0.0995 ? 2 : 3);
const laterShare = (later) => later?.probability ?? later?.share ?? null;

function search() {
  const names = h("datalist", { id: "classes" }, (app.model.classes ?? []).map((name) => h("option", { value: name })));
  return h("label", { class: "search" }, h("span", { class: "hidden" }, t("searchClass")), h("input", { type: "search", list: "classes", placeholder: t("searchClass"), onchange: (event) => {
    const at = app.model.classes.indexOf(event.target.value);
    if (at >= 0) set({ target: String(at) });
  } }), names);
}

/** Boxes and landmarks on the photo, to be clicked. */
function marks(rows) {
  const frame = document.querySelector(".frame.photo .marks");
  if (!frame) return;
  frame.querySelectorAll(".found").forEach((one) => one.remove());
  for (const row of rows) {
    if (!row.box && !row.point) continue;
    const chosen = isTarget(row, rows);
    const choose = () => set({ target: row.target });
    const attributes = { class: `found ${chosen ? "chosen" : ""}`, "vector-effect": "non-scaling-stroke" };
    let mark;
    if (row.box) {
      const [x0, y0, x1, y1] = photoBox(row.box);
      mark = s("rect", { ...attributes, x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
    } else {
      const { matrix: m, width, height } = canvas();
      mark = s("circle", { ...attributes, cx: m[0][0] * row.point[0] + m[0][2] + 0.5, cy: m[1][1] * row.point[1] + m[1][2] + 0.5, r: Math.max(width, height) / 50 });
    }
    mark.append(s("title", {}, `${row.label} ${number(row.probability ?? row.score)}`));
    mark.addEventListener("click", choose);
    frame.append(mark);
  }
}

hear("change", (what) => { if (node?.isConnected) showChange(what); });
