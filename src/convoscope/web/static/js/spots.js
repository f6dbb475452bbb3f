// Shortcuts by hand: cut a piece out of one picture, move it over another, and watch what the network says.
import { get } from "./api.js";
import { app, failed, hear, ours } from "./app.js";
import { choice, fill, h, keepFocus, latest, number, percent } from "./dom.js";
import { t, told } from "./i18n.js";
import { on, set, state } from "./state.js";
import { thumbnail } from "./strip.js";
import { answerSpot, card, command } from "./improve.js";
import { worker } from "./working.js";

const hand = { source: null, onto: null, x: 0, y: 0, side: 24, toX: 0, toY: 0 };
let found = null; // shortcuts.json
let given = null;
let again = null;
let root = null;
const inputs = new Map(); // picture -> its input as an image

export async function spotsPart(into, known, redraw) {
  root = into;
  given = known;
  again = redraw;
  found = known.there.shortcuts ? await get("/api/improve/shortcuts") : null;
  if (!into.isConnected) return;
  const bench = h("section", { class: "hand" });
  const list = h("section", { class: "spot-findings" });
  fill(into, bench, list);
  await start();
  if (!into.isConnected) return;
  drawBench(bench);
  drawFindings(list);
}

const labels = () => Object.keys(found?.spots ?? {});

/** The spot that is looked at: of a class where there are spots, else the middle of the chosen picture. */
async function start() {
  const label = labels().includes(state.spot) ? state.spot : found?.findings?.map((one) => one.class).find((name) => labels().includes(name)) ?? labels()[0] ?? "";
  const spot = found?.spots?.[label];
  const place = spot?.places.find((one) => one.picture.id);
  hand.label = label;
  if (place && !(state.spot === "" && hand.source)) takePlace(spot, place);
  else if (!hand.source && state.picture) {
    const size = app.model.input ?? [224, 224];
    const side = Math.round(Math.min(...size) / 4);
    Object.assign(hand, { source: state.picture, side, x: Math.round((size[1] - side) / 2), y: Math.round((size[0] - side) / 2) });
    hand.toX = hand.x; hand.toY = hand.y;
  }
  const into = spot?.into.find((one) => one.id && one.id !== hand.source)?.id;
  hand.onto = (hand.onto && hand.onto !== hand.source ? hand.onto : null) ?? into ?? app.pictures.find((one) => one.id !== hand.source)?.id ?? hand.source;
}

function takePlace(spot, place) {
  Object.assign(hand, { source: place.picture.id, side: spot.side, x: place.x, y: place.y, toX: place.x, toY: place.y });
}

async function input(id) {
  if (!inputs.has(id)) {
    const image = new Image();
    image.src = ours(`/api/pictures/${id}/input`);
    inputs.set(id, image.decode().then(() => image));
    inputs.get(id).catch(() => inputs.delete(id)); // what never came is asked for again
    if (inputs.size > 40) inputs.delete(inputs.keys().next().value);
  }
  return inputs.get(id);
}

function drawBench(bench) {
  const spot = found?.spots?.[hand.label];
  const source = h("canvas", { class: "pixels", role: "img", "aria-label": t("cutFrom") });
  const target = h("canvas", { class: "pixels", role: "img", "aria-label": t("putOnto") });
  const left = stage(source, "cut");
  const right = stage(target, "put");
  const said = h("div", { class: "said", "aria-live": "polite" });
  const sizes = app.model.input ?? [224, 224];
  const others = (spot?.into ?? []).filter((one) => one.id);
  const more = others.length ? others : app.pictures.slice(0, 12);
  fill(bench,
    h("div", { class: "bar" }, h("h2", {}, t("byHand")), h("span", { class: "spacer" }),
      labels().length ? h("label", {}, h("span", {}, `${t("classWord")} `), h("select", { "aria-label": t("classWord"), dataset: { key: "class" }, onchange: (event) => set({ spot: event.target.value }) }, labels().map((name) => h("option", { value: name, selected: name === hand.label }, name)))) : null,
      h("label", { class: "slider" }, h("span", {}, t("pieceSize")), h("input", { type: "range", min: 4, max: Math.min(...sizes), value: hand.side, dataset: { key: "side" }, oninput: (event) => { hand.side = Number(event.target.value); clamp(); paint(); } }))),
    h("p", { class: "soft" }, t("handHint")),
    h("div", { class: "hands" },
      h("figure", {}, h("figcaption", {}, t("cutFrom")), left, spot ? h("div", { class: "shots tight" }, spot.places.filter((one) => one.picture.id).map((one) => small(one.picture, hand.source === one.picture.id, () => { takePlace(spot, one); again$(); }))) : h("button", { type: "button", class: "small", onclick: () => { hand.source = state.picture; again$(); } }, t("takeChosen"))),
      h("span", { class: "arrow", "aria-hidden": "true" }, "→"),
      h("figure", {}, h("figcaption", {}, t("putOnto")), right, h("div", { class: "shots tight" }, more.slice(0, 12).map((one) => small(one, hand.onto === one.id, () => { hand.onto = one.id; again$(); })),
        h("button", { type: "button", class: "small", onclick: () => { hand.onto = state.picture; again$(); } }, t("takeChosen")))),
      said),
    labels().includes(hand.label) ? question(hand.label) : null);
  const again$ = () => keepFocus(bench, () => drawBench(bench));
  const paint = () => { draw(source, target).catch(failed); ask(said); };
  drag(left, (x, y) => { hand.x = x; hand.y = y; clamp(); paint(); }, () => [hand.x, hand.y]);
  drag(right, (x, y) => { hand.toX = x; hand.toY = y; clamp(); paint(); }, () => [hand.toX, hand.toY]);
  paint();
}

const small = (one, chosen, choose) => h("button", { type: "button", class: "shot", "aria-pressed": String(chosen), title: one.name, "aria-label": one.name, dataset: { key: `shot-${one.id}` }, onclick: choose }, h("img", { src: thumbnail(one.id), alt: "", loading: "lazy", width: 48, height: 48 }));
const stage = (canvas, name) => h("div", { class: "stage grabs", tabindex: 0, role: "application", "aria-label": name === "cut" ? t("cutKeys") : t("putKeys"), dataset: { arrows: "1", stage: name, key: name } }, canvas);

function clamp() {
  const [rows, columns] = app.model.input ?? [hand.height ?? 224, hand.width ?? 224];
  hand.side = Math.min(hand.side, rows, columns);
  for (const [name, limit] of [["x", columns], ["toX", columns], ["y", rows], ["toY", rows]]) hand[name] = Math.round(Math.min(Math.max(0, hand[name]), limit - hand.side));
}

async function draw(source, target) {
  // where the two frames lie is known before their pictures are here: whoever reads it need not wait for them
  source.parentElement.dataset.at = `${hand.x},${hand.y}`;
  target.parentElement.dataset.at = `${hand.toX},${hand.toY}`;
  const [from, onto] = await Promise.all([input(hand.source), input(hand.onto)]);
  hand.width = from.naturalWidth; hand.height = from.naturalHeight;
  const paint = (canvas, image, x, y, piece) => {
    const grow = Math.max(1, Math.ceil(256 / Math.max(image.naturalWidth, image.naturalHeight)));
    canvas.width = image.naturalWidth * grow; canvas.height = image.naturalHeight * grow;
    canvas.parentElement.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (piece) pen.drawImage(from, hand.x, hand.y, hand.side, hand.side, x * grow, y * grow, hand.side * grow, hand.side * grow);
    for (const [width, colour] of [[4, "#fff"], [2, "#d1232a"]]) { pen.lineWidth = width; pen.strokeStyle = colour; pen.strokeRect(x * grow, y * grow, hand.side * grow, hand.side * grow); }
  };
  paint(source, from, hand.x, hand.y, false);
  paint(target, onto, hand.toX, hand.toY, true);
  for (const canvas of [source, target]) canvas.dataset.drawn = "1";
}

/** What stands there is of the former place until the answer for this one is here: it says so by its colour. */
function ask(said) {
  said.classList.add("is-former");
  inform(said);
}

const inform = latest(async (said) => {
  if (!hand.source || !hand.onto) return;
  const question = () => [hand.source, hand.onto, hand.x, hand.y, hand.toX, hand.toY, hand.side, hand.label].join("|");
  const asked = question();
  try {
    const answer = await get("/api/paste", { source: hand.source, onto: hand.onto, x: hand.x, y: hand.y, to_x: hand.toX, to_y: hand.toY, side: hand.side, target: hand.label || "" });
    const best = (reading) => reading.classes[0]?.label ?? "–";
    const chance = (reading) => reading.classes.find((row) => row.label === answer.target)?.probability ?? 0;
    const row = (word, reading) => h("li", {}, h("span", { class: "soft" }, word), h("b", {}, best(reading)), h("span", { class: "track" }, h("i", { style: { width: `${100 * chance(reading)}%` } })), h("span", { class: "figure" }, number(chance(reading), 3)));
    said.classList.toggle("is-former", asked !== question());
    said.dataset.flipped = String(answer.flipped);
    fill(said, h("p", { class: `flip-word ${answer.flipped ? "wrong" : ""}` }, answer.flipped ? t("flipsTo", { label: answer.target }) : best(answer.after) === answer.target ? t("wasAlready", { label: answer.target }) : t("flipsNot", { label: answer.target })),
      h("p", { class: "soft" }, t("probabilityOf", { label: answer.target })), h("ol", { class: "hand-bars" }, row(t("beforeWord"), answer.before), row(t("withPiece"), answer.after), row(t("withOther"), answer.control)),
      h("p", { class: "soft" }, answer.control_flipped ? t("controlFlips") : t("controlNot")));
  } catch (error) { said.classList.remove("is-former"); fill(said, h("p", { class: "problem" }, error.message)); }
});

function drag(node, to, at) {
  const place = (event) => {
    const box = node.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * (hand.width ?? 1), ((event.clientY - box.top) / box.height) * (hand.height ?? 1)];
  };
  let grip = null;
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.setPointerCapture(event.pointerId);
    node.focus({ preventScroll: true });
    const [x, y] = place(event);
    const [left, top] = at();
    const inside = x >= left && y >= top && x < left + hand.side && y < top + hand.side;
    grip = inside ? [x - left, y - top] : [hand.side / 2, hand.side / 2];
    to(x - grip[0], y - grip[1]);
  });
  node.addEventListener("pointermove", (event) => { if (grip && event.buttons) { const [x, y] = place(event); to(x - grip[0], y - grip[1]); } });
  node.addEventListener("pointerup", () => { grip = null; });
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const pace = event.shiftKey ? 1 : Math.max(1, Math.round((hand.width ?? 96) / 48));
    const [left, top] = at();
    to(left + step[0] * pace, top + step[1] * pace);
  });
}

/** Whether the spot is a part of the thing: a person's word, which the search and the repair take. */
function question(label) {
  const now = given.answers[label];
  const say = (value) => async () => {
    const answer = await answerSpot(label, value);
    if (answer) { given.answers = answer.answers; given.commands = answer.commands; const node = root.querySelector(".is-it"); node?.replaceWith(question(label)); root.querySelector(".is-it [aria-pressed=true]")?.focus(); }
  };
  return h("div", { class: "is-it", role: "group", "aria-label": t("isItTheThing", { label }) }, h("p", {}, h("b", {}, t("isItTheThing", { label }))),
    h("div", { class: "row" }, choice(t("isItTheThing", { label }), [["yes", t("isPart")], ["no", t("notPart")], ["", t("cannotTell")]], now === true ? "yes" : now === false ? "no" : "", (value) => say(value === "yes" ? true : value === "no" ? false : null)())),
    now === undefined ? null : h("p", { class: "soft" }, now ? t("thenPart") : t("thenNot")), now === undefined ? null : command(now ? given.commands.shortcuts : given.commands.repair));
}

function drawFindings(into) {
  const run = worker("shortcuts", given.there.shortcuts ? t("searchAgain") : t("searchShortcuts"), () => ({}), again, { main: !given.there.shortcuts });
  if (!found) { fill(into, h("p", { class: "soft" }, t("shortcutsNote")), run); return; }
  const families = [...new Set(Object.values(found.classes).flatMap((one) => Object.keys(one)))];
  fill(into, h("h2", {}, found.findings.length ? t("decidesBy") : t("foundNothing", { tests: found.tests })),
    found.findings.length ? found.findings.map((one, i) => card(one, i + 1, one.class && found.spots[one.class] ? h("button", { type: "button", class: "small", onclick: () => { set({ spot: one.class }); root.scrollIntoView({ block: "start" }); } }, t("tryByHand")) : null)) : h("p", { class: "soft" }, told(found.missed)),
    Object.entries(found.answered ?? {}).map(([label, why]) => h("p", { class: "soft" }, t("noShortcut", { label }), ` ${told(why)}`)),
    h("details", {}, h("summary", {}, t("everyClass")), h("p", { class: "soft" }, t("everyClassNote")), h("div", { class: "scroll" }, h("table", {}, h("tr", {}, h("th", {}, t("classWord")), families.map((name) => h("th", {}, told(name)))),
      Object.entries(found.classes).map(([label, of]) => h("tr", {}, h("td", {}, label), families.map((name) => h("td", {}, of[name] ? `${percent(of[name].sufficiency.mean)} / ${percent(of[name].necessity.mean)} / ${percent(of[name].control.mean)}` : "–"))))))),
    (found.notes ?? []).map((note) => h("p", { class: "soft" }, told(note))), h("div", { class: "bar" }, run));
}

on("spot", () => { if (state.tab === "improve" && state.part === "shortcuts" && root?.isConnected) { hand.onto = null; spotsPart(root, given, again); } });
hear("reading", () => { if (!hand.source && state.part === "shortcuts" && root?.isConnected) spotsPart(root, given, again); });
