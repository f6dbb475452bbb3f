// Suspected labels, gone through with the keyboard; what a person decides is kept, exported, and can be undone.
import { get, post } from "./api.js";
import { app, failed, hear, tell } from "./app.js";
import { fill, h, keepFocus, number, percent } from "./dom.js";
import { t, told } from "./i18n.js";
import { set, state } from "./state.js";
import { shot } from "./improve.js";
import { worker } from "./working.js";

let found = null;
let at = 0;
let root = null;
let deck = null;
let asked = 0;

export async function labelsPart(into, given, again) {
  root = into;
  const run = worker("audit", given.there.audit ? t("auditAgain") : t("auditNow"), () => ({}), again, { main: !given.there.audit });
  if (!given.there.audit) { fill(into, h("div", { class: "empty" }, h("h2", {}, t("notAudited")), h("p", {}, t("auditNote")), run)); return; }
  found = await get("/api/improve/audit");
  if (!into.isConnected) return;
  if (found.unlabelled) { fill(into, h("p", { class: "problem" }, told(found.unlabelled)), run); return; }
  const wrong = found.labels;
  at = Math.max(0, found.suspects.findIndex((one) => one.id && !decided(one)));
  deck = h("section", { class: "deck", "aria-label": t("part_labels") });
  fill(into, h("p", { class: "answer" }, t("wrongLabels", { n: wrong.count, p: percent(wrong.wrong.mean), low: percent(wrong.wrong.low), high: percent(wrong.wrong.high), of: found.pictures })),
    wrong.count === 0 && found.suspects.length ? h("p", {}, t("noneStands")) : null, h("p", { class: "soft" }, t("auditKeys")), deck,
    found.copies.length ? h("details", {}, h("summary", {}, t("copies", { n: found.copies.length })), h("div", { class: "shots" }, found.copies.map((one) => h("span", { class: "copy-pair" }, shot(one.a), shot(one.b))))) : null,
    found.outliers.length ? h("details", {}, h("summary", {}, t("outliers")), h("div", { class: "shots" }, found.outliers.map((one) => shot(one, number(one.distance, 2))))) : null,
    h("div", { class: "bar" }, run));
  draw();
}

const decided = (one) => one.decision.sure || one.decision.label !== null || one.decision.removed;

function draw() {
  if (!deck?.isConnected) return;
  keepFocus(deck, () => redraw());
}

function redraw() {
  const one = found.suspects[at];
  const done = found.suspects.filter(decided).length;
  if (!one) { fill(deck, h("p", {}, t("nothingSuspected"))); return; }
  const near = h("div", { class: "shots" });
  const select = h("select", { "aria-label": t("otherLabel"), dataset: { key: "other" }, onchange: (event) => { if (event.target.value) decide("label", event.target.value, one); } },
    h("option", { value: "" }, t("otherLabel")), found.classes.map((row) => h("option", { value: row.label }, row.label)));
  const say = one.decision.removed ? t("wasRemoved") : one.decision.sure ? t("wasRight", { label: one.label }) : one.decision.label !== null ? t("wasChanged", { label: one.decision.label }) : null;
  const choose = (key, words, action, kind = "") => h("button", { type: "button", class: kind, dataset: { key }, onclick: action }, words, " ", h("kbd", {}, key));
  fill(deck,
    h("div", { class: "suspect" },
      one.id ? h("button", { type: "button", class: "suspect-photo", "aria-label": `${t("openPicture")} ${one.name}`, onclick: () => set({ picture: one.id, tab: "decide", target: one.suggested, against: one.label === one.suggested ? "" : one.label }) }, h("img", { src: `/api/pictures/${one.id}/photo?side=512`, alt: one.name })) : h("p", { class: "problem" }, t("notServed", { name: one.name })),
      h("div", { class: "verdict" },
        h("p", { class: "soft" }, t("suspectOf", { n: at + 1, total: found.suspects.length, done }), h("progress", { max: found.suspects.length, value: done, "aria-label": t("decidedWord") })),
        h("h2", {}, one.label, one.suggested !== one.label ? [h("span", { class: "soft" }, ` ${t("orWord")} `), one.suggested, "?"] : null),
        h("p", { class: "soft" }, `${one.name} · ${t("labelScore", { s: number(one.score, 2) })} · ${t("neighboursAgree", { p: percent(one.neighbours) })}`),
        say ? h("p", { class: "decided" }, say) : null,
        h("div", { class: "decisions" }, choose("y", t("labelRight", { label: one.label }), () => decide("sure", "", one)),
          one.suggested !== one.label ? choose("n", t("labelIs", { label: one.suggested }), () => decide("label", one.suggested, one)) : null, select,
          choose("r", t("removePicture"), () => decide("remove", "", one)), choose("u", t("undo"), undo)),
        h("div", { class: "row" }, choose("←", t("back"), () => step(-1)), choose("→", t("skip"), () => step(1)), h("a", { class: "button", href: "/api/improve/audit.csv", download: "labels.csv" }, t("exportCsv"))),
        app.model.survey ? [h("h3", {}, t("neighbours")), near] : null)));
  if (app.model.survey && one.id) neighbours(near, one.id);
}

async function neighbours(into, id) {
  const mine = ++asked;
  try {
    const listed = await get("/api/collection/neighbors", { picture: id, k: 8 });
    if (mine === asked && into.isConnected) fill(into, listed.neighbors.map((one) => shot(one, one.label ?? one.prediction ?? "")));
  } catch { /* a picture that the collection does not hold has no neighbours to show */ }
}

function step(by) {
  at = Math.min(found.suspects.length - 1, Math.max(0, at + by));
  draw();
}

// one decision after the other: who presses y three times has looked at three pictures
let line = Promise.resolve();
const queued = (act) => (...given) => { line = line.then(() => act(...given)); };
const decide = queued(keep);
const undo = queued(takeBack);

/** A key is about the picture that is there when its turn comes (as is its suggestion), a button about the one it was drawn for. */
async function keep(kind, value = "", about = null) {
  const one = about ?? found.suspects[at];
  const on = () => { if (found.suspects[at] === one) step(1); }; // who has gone on meanwhile is not moved
  if (kind === "label" && !value) {
    if (!one || one.suggested === one.label) return;
    value = one.suggested;
  }
  if (!one?.id) { on(); return; }
  try {
    await post("/api/collection/marks", { kind, about: [one.id], value });
    one.decision = { label: kind === "label" ? value : null, sure: kind === "sure", removed: kind === "remove" || one.decision.removed };
    if (found.suspects[at] === one) step(1); else draw();
  } catch (error) { failed(error); }
}

async function takeBack() {
  try {
    const back = await post("/api/collection/undo", {});
    const fresh = await get("/api/improve/audit");
    found = fresh;
    const about = back.undone;
    tell(t("undone", { n: about.count }));
    const place = found.suspects.findIndex((one, i) => i >= at - 1 && !decided(one));
    if (place >= 0) at = place;
    draw();
  } catch (error) { failed(error); }
}

document.addEventListener("keydown", (event) => {
  if (state.tab !== "improve" || state.part !== "labels" || !deck?.isConnected || !found) return;
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || document.querySelector("dialog[open]")) return;
  const action = { y: () => decide("sure"), n: () => decide("label"), r: () => decide("remove"), u: undo, ArrowRight: () => step(1), ArrowLeft: () => step(-1), " ": () => step(1) }[event.key];
  if (!action || (event.key === " " && event.target.tagName === "BUTTON")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  action();
}, true);

hear("marks", () => { if (deck?.isConnected && root?.isConnected) draw(); });
