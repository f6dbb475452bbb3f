// Two networks: the chosen picture side by side under one cursor, and the pictures on which they differ.
import { get, npy } from "./api.js";
import { app, failed, hear, methodOf } from "./app.js";
import { choice, fill, h, latest, number, percent } from "./dom.js";
import { Frame, inputAt, photoBox, rectangle } from "./frames.js";
import { t, told } from "./i18n.js";
import { mapOf, paintMap, photoOf, shared, sheet } from "./minimap.js";
import { list, on, set, state } from "./state.js";
import { card, interval, shot } from "./improve.js";
import { worker } from "./working.js";

const SIDES = [["", "a"], ["/b", "b"]];
let panel = null;
let asked = 0;
const mask = { on: false, size: 0.3, centre: { x: 0.5, y: 0.5 } };

export async function flipsPart(into, given, again) {
  panel = into;
  const side = h("section", { class: "side-by-side", hidden: !given.against });
  const rest = h("section", { class: "flips" });
  fill(into, given.against ? side : h("p", { class: "soft" }, t("noRival")), rest);
  if (given.against) sideBySide(side, given.against);
  await flipsList(rest, given, again);
}

// the chosen picture

async function sideBySide(into, rival) {
  const mine = ++asked;
  const methods = list("methods").slice(0, 6).filter((name) => !methodOf(name)?.slow);
  const names = [app.model.name, rival];
  const photo = new Frame({ title: t("photo") });
  photo.node.classList.add("photo");
  const said = SIDES.map((_, i) => h("div", { class: "said" }, h("h3", {}, names[i])));
  const grid = h("div", { class: "pairs", role: "group", "aria-label": t("sideBySide") });
  const frames = methods.map((name) => SIDES.map(([api], i) => {
    const frame = new Frame({ title: `${methodOf(name)?.title ?? name}` });
    frame.node.dataset.pair = `${name} ${SIDES[i][1]}`;
    return frame;
  }));
  fill(grid, h("span", {}), said, frames.flatMap((pair, i) => [i ? h("span", { class: "method-name" }) : photo.node, pair.map((frame) => frame.node)]));
  fill(into, h("div", { class: "bar" }, h("h2", {}, t("sideBySide")), h("span", { class: "spacer" }), choice(t("photo"), [["point", t("point")], ["mask", t("mask"), t("maskTitle")]], mask.on ? "mask" : "point", (value) => { mask.on = value === "mask"; sideBySide(into, rival); }),
    mask.on ? h("label", { class: "slider" }, h("span", {}, t("maskSize")), h("input", { type: "range", min: 5, max: 80, value: mask.size * 100, oninput: (event) => { mask.size = event.target.value / 100; moved(photo, said); } })) : null),
  grid);
  if (!state.picture || app.picture?.id !== state.picture) return;
  try {
    await photo.plain();
    const found = await Promise.all(SIDES.map(([api]) => get(`${api}/api/explain`, { picture: state.picture, target: state.target, methods: methods.join(",") }).catch((error) => ({ error }))));
    if (mine !== asked || !into.isConnected) return;
    found.forEach((one, i) => (one.error ? fill(said[i], h("h3", {}, names[i]), h("p", { class: "problem" }, one.error.message)) : bars(said[i], names[i], one.prediction, one.target)));
    if (mask.on) attach(photo, said); // after the bars, which it completes
    for (let i = 0; i < methods.length; i += 1) {
      const abouts = found.map((one) => one.maps?.find((about) => about.name === methods[i]) ?? null);
      const scale = abouts.every(Boolean) ? shared(abouts) : null;
      for (let k = 0; k < 2; k += 1) {
        const about = abouts[k];
        if (!about) { fill(frames[i][k].notes, h("p", { class: "problem" }, (found[k].refused?.[methods[i]] ? told(found[k].refused[methods[i]]) : null) ?? found[k].error?.message ?? "")); continue; }
        const array = await npy(SIDES[k][0] + about.values);
        if (mine !== asked) return;
        frames[i][k].matrix = found[k].input_to_photo;
        await frames[i][k].map(about, array, scale ?? about.scale, null);
      }
    }
  } catch (error) { if (mine === asked) failed(error); }
}

function bars(into, name, rows, target, after = null) {
  const later = new Map((after ?? []).map((row) => [row.label, row]));
  fill(into, h("h3", {}, name), h("ol", { class: "mini-bars wide-bars" }, rows.slice(0, 4).map((row) => {
    const now = later.get(row.label)?.probability ?? (after ? null : undefined);
    const value = row.probability ?? row.share ?? 0;
    return h("li", { class: row.label === target ? "is-target" : "" }, h("span", { class: "label" }, row.label), h("span", { class: "track" }, h("i", { style: { width: `${100 * Math.max(0, Math.min(1, value))}%` } }), now === undefined ? null : h("b", { style: { left: `${100 * (now ?? 0)}%` } })),
      h("span", { class: "figure" }, now === undefined ? number(value, 3) : `${number(value, 2)} → ${now === null ? "–" : number(now, 2)}`));
  })));
}

function boxOf(details) {
  const [rows, columns] = details.input;
  const side = Math.max(1, Math.round(mask.size * Math.min(rows, columns)));
  const at = inputAt(mask.centre);
  const x0 = Math.min(Math.max(0, columns - side), Math.max(0, Math.round(at.x - side / 2)));
  const y0 = Math.min(Math.max(0, rows - side), Math.max(0, Math.round(at.y - side / 2)));
  return [x0, y0, Math.min(columns, x0 + side), Math.min(rows, y0 + side)];
}

const cover = latest(async (said) => {
  const [x0, y0, x1, y1] = boxOf(app.picture);
  const picture = state.picture;
  const found = await Promise.all(SIDES.map(([api]) => get(`${api}/api/cover`, { picture, target: state.target, x0, y0, x1, y1 }).catch((error) => ({ error }))));
  if (picture !== state.picture) return;
  found.forEach((one, i) => {
    const name = said[i].querySelector("h3").textContent;
    if (one.error) { said[i].append(h("p", { class: "problem" }, one.error.message)); return; }
    bars(said[i], name, one.before.classes, one.before.target, one.after.classes);
    said[i].dataset.after = one.after.classes[0]?.label ?? "";
  });
});

function moved(photo, said) {
  photo.marks.querySelectorAll(".mask").forEach((one) => one.remove());
  photo.marks.append(rectangle(photoBox(boxOf(app.picture)), "mask"));
  cover(said);
}

function attach(photo, said) {
  const stage = photo.stage;
  stage.classList.add("grabs");
  stage.tabIndex = 0;
  stage.dataset.arrows = "1";
  const to = (event) => {
    const box = stage.getBoundingClientRect();
    mask.centre = { x: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)), y: Math.min(1, Math.max(0, (event.clientY - box.top) / box.height)) };
    moved(photo, said);
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); to(event); });
  stage.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    mask.centre = { x: Math.min(1, Math.max(0, mask.centre.x + step[0] * 0.03)), y: Math.min(1, Math.max(0, mask.centre.y + step[1] * 0.03)) };
    moved(photo, said);
  });
  moved(photo, said);
}

// what was won and lost

async function flipsList(into, given, again) {
  const run = given.against ? worker("diff", given.there.diff ? t("compareAgain") : t("compareAll"), () => ({}), again, { main: !given.there.diff }) : null;
  if (!given.there.diff) { fill(into, given.against ? [h("p", { class: "soft" }, t("compareNote")), run] : null); return; }
  const found = await get("/api/improve/diff");
  if (!into.isConnected) return;
  const pair = found.pairs.at(-1);
  if (!pair) { fill(into, h("p", { class: "soft" }, t("foundNothing", { tests: 0 }))); return; }
  const [a, b] = [found.models[pair.a], found.models[pair.b]];
  const parts = [h("h2", {}, `${a.name} → ${b.name}`)];
  if (a.accuracy && b.accuracy) parts.push(h("p", {}, t("wonLost", { won: pair.won_count, lost: pair.lost_count, a: percent(a.accuracy.mean), b: percent(b.accuracy.mean) })));
  if (pair.difference) parts.push(h("p", { class: "meta" }, h("span", { class: "soft" }, t("difference")), interval({ size: pair.difference.mean, low: pair.difference.low, high: pair.difference.high }, Math.min(-0.2, pair.difference.low), Math.max(0.2, pair.difference.high))));
  parts.push(pair.findings.map((one, i) => card(one, i + 1)));
  if (pair.flips.length) parts.push(h("h3", {}, t("flips")), h("div", { class: "flip-list" }, pair.flips.map((one) => flip(one, given.against))));
  const more = (title, listed, count) => (listed.length ? h("details", {}, h("summary", {}, `${title} (${count})`), h("div", { class: "shots" }, listed.map((one) => shot(one)))) : null);
  parts.push(more(t("won"), pair.won, pair.won_count), more(t("lost"), pair.lost, pair.lost_count), pair.notes.map((note) => h("p", { class: "soft" }, told(note))), h("div", { class: "bar" }, run));
  fill(into, parts);
}

function flip(one, rival) {
  const canvases = SIDES.slice(0, rival ? 2 : 1).map(([, name], i) => sheet(`${one.class}: ${one.predictions[i]}`));
  const node = h("figure", { class: `flip is-${one.kind.replace(" ", "-")}` }, h("button", { type: "button", class: "flip-maps", disabled: !one.picture.id, "aria-label": `${t("openPicture")} ${one.picture.name}`, onclick: () => set({ picture: one.picture.id }) }, canvases),
    h("figcaption", {}, h("b", {}, t(`flip_${one.kind.replace(" ", "_")}`)), ` ${one.class}: ${one.predictions[0]} ${number(one.confidences[0], 2)} → ${one.predictions[1]} ${number(one.confidences[1], 2)}`, one.correlation == null ? null : h("span", { class: "soft" }, ` · ${t("mapsCorrelate", { r: number(one.correlation, 2) })}`)));
  if (!one.picture.id) { fill(node.querySelector(".flip-maps"), h("small", {}, t("notServed", { name: one.picture.name }))); return node; }
  // maps are made when they come into view: dozens of them at once would keep clicks waiting
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    drawFlip(one, canvases, rival).catch((error) => node.append(h("p", { class: "problem" }, error.message)));
  });
  seen.observe(node);
  return node;
}

async function drawFlip(one, canvases, rival) {
  const [base, details, ...maps] = await Promise.all([photoOf(one.picture.id), get(`/api/pictures/${one.picture.id}`),
    ...SIDES.slice(0, rival ? 2 : 1).map(([api]) => mapOf(api, one.picture.id, "grad-cam", one.class))]);
  const scale = maps.length > 1 ? shared(maps.map((map) => map.about)) : undefined;
  for (let i = 0; i < maps.length; i += 1) {
    await paintMap(canvases[i], base, maps[i], details, scale);
    canvases[i].dataset.drawn = "1";
  }
}

const shown = () => state.tab === "improve" && state.part === "compare" && panel?.isConnected;
hear("reading", () => { const side = panel?.querySelector(".side-by-side"); if (shown() && side && app.model.against) sideBySide(side, app.model.against); });
on("methods target", () => { const side = panel?.querySelector(".side-by-side"); if (shown() && side && app.model.against) sideBySide(side, app.model.against); });
