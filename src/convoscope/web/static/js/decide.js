// Why does the network decide so? The photo, all chosen maps under one cursor, and the classes to choose from.
import { get, job, npy } from "./api.js";
import { app, failed, hear, methodOf, say } from "./app.js";
import { aboutMethod, openTrust } from "./about.js";
import { drawAnswers, showChange } from "./answers.js";
import { scaleFor } from "./colour.js";
import { choice, debounce, fill, h, latest, percent } from "./dom.js";
import { Frame } from "./frames.js";
import { offWords, t, told } from "./i18n.js";
import { list, on, set, state } from "./state.js";
import { Tools } from "./tools.js";

let panel = null;
let grid = null;
let barNode = null;
let answers = null;
let tools = null;
let photoFrame = null;
let shown = new Map(); // name -> {frame, about, array}
let works = [];
let asked = 0;
let trust = {};

export function decideTab(node) {
  panel = node;
  stopWorks();
  grid = h("div", { class: "grid", id: "maps" });
  answers = h("section", { class: "answers", "aria-label": t("prediction") });
  shown = new Map();
  barNode = h("div", { class: "bar" });
  tools = tools ?? new Tools();
  drawBar();
  photoFrame = new Frame({ title: t("photo") });
  photoFrame.node.classList.add("photo");
  fill(panel, h("div", { class: "bar first" }, tools.bar()), h("div", { class: "question" }, photoFrame.node, answers), barNode, grid);
  if (!state.picture) { fill(grid, h("p", { class: "empty" }, t("noPictures"))); return; }
  refresh();
}

function drawBar() {
  const scale = choice(t("scaleTitle"), [["own", t("ownScale"), t("scaleTitle")], ["shared", t("sharedScale"), t("scaleTitle")]], state.scale,
    (value) => { set({ scale: value }, true); drawBar(); redraw(); });
  const usualAgain = h("button", { type: "button", class: "plain", title: t("opacityReset"), "aria-label": t("opacityReset"), hidden: state.opacity === "",
    onclick: () => { set({ opacity: "" }, true); drawBar(); redraw(); } }, "×");
  const opacity = h("span", { class: "slider" }, h("label", { class: "slider" }, h("span", {}, t("opacity")),
    h("input", { type: "range", min: 0, max: 100, step: 5, value: state.opacity || 70, oninput: (event) => { set({ opacity: event.target.value }, true); usualAgain.hidden = false; slowRedraw(); } })), usualAgain);
  const judge = h("button", { type: "button", class: "judge", onclick: judgeAll }, t("trust"));
  const off = list("off").length;
  fill(barNode, h("h2", {}, t("maps")), off ? h("span", { class: "off-note" }, t("mapsIntact", { off: offWords(off) })) : null, h("span", { class: "spacer" }), scale, opacity, judge, adder());
}

function adder() {
  const names = list("methods");
  return h("select", { "aria-label": t("addMethod"), class: "adder", onchange: (event) => {
    if (event.target.value) set({ methods: [...list("methods"), event.target.value].join(",") });
    event.target.value = "";
  } }, h("option", { value: "" }, `+ ${t("addMethod")}`),
  app.methods.filter((one) => !names.includes(one.name)).map((one) => h("option", { value: one.name, title: told(one.shows) }, one.title + (one.slow ? " …" : ""))));
}

const asking = () => ["picture", "target", "against", "methods", "set"].map((key) => state[key]).join("|");

/** What stands here answers a former question, and of another picture the photo and the bars, too: seen at once. */
function unsettled() {
  const comes = app.failed !== state.picture;
  panel.classList.toggle("stale", comes);
  if (app.picture?.id !== state.picture) panel.classList.toggle("changing", comes);
}

/** Draw what is known at once, mark what is stale, and ask for the rest. */
const refresh = latest(async () => {
  if (!panel?.isConnected || !state.picture) return;
  const mine = ++asked;
  const question = asking();
  const names = list("methods");
  stopWorks();
  trust = {};
  unsettled();
  if (app.failed === state.picture) { // nothing of the former picture stands there as if it were this one's
    shown = new Map();
    photoFrame.blank();
    fill(answers);
    fill(grid, h("p", { class: "problem" }, app.why));
    return;
  }
  layout(names);
  if (app.picture?.id !== state.picture) return; // the details are on their way: "reading" comes back here
  panel.classList.add("stale");
  try {
    await photoFrame.plain();
    tools.attach(photoFrame);
    drawAnswers(answers, null);
    panel.classList.remove("changing");
    if (!app.masking) say("uncovered");
    const found = await get("/api/explain", { picture: state.picture, target: state.target, against: state.against, methods: names.join(","), set: list("set") });
    if (mine !== asked || !panel.isConnected || question !== asking()) return;
    drawAnswers(answers, found);
    const arrays = await Promise.all(found.maps.map((about) => npy(about.values)));
    if (mine !== asked || question !== asking()) return;
    found.maps.forEach((about, i) => { const one = shown.get(about.name); if (one) { one.about = about; one.array = arrays[i]; } });
    for (const [name, why] of Object.entries(found.refused)) refuse(name, why);
    for (const name of found.slow) slow(name, mine);
    await redraw();
    tools.shares();
  } catch (error) {
    if (mine !== asked) return;
    if (!shown.size || error.status !== undefined) {
      for (const one of shown.values()) if (!one.array) fill(one.frame.notes, h("p", { class: "problem" }, error.message));
    }
    failed(error);
  } finally {
    if (question === asking()) panel.classList.remove("stale", "changing"); // else it runs again at once
  }
});

/** The frames of the methods, in order; those that are there already stay, so that nothing jumps. */
function layout(names) {
  const before = shown;
  shown = new Map();
  for (const name of names) {
    const old = before.get(name);
    if (old) { shown.set(name, { ...old, about: null, old: old.about ?? old.old, array: null }); badge(name); continue; }
    const method = methodOf(name);
    const close = h("button", { type: "button", class: "plain", title: t("removeMethod", { name }), "aria-label": t("removeMethod", { name }),
      onclick: () => set({ methods: list("methods").filter((one) => one !== name).join(",") || "grad-cam" }) }, "×");
    const about = h("button", { type: "button", class: "plain what", title: t("whatIsThis"), "aria-label": `${t("whatIsThis")} ${method?.title ?? name}`,
      onclick: () => aboutMethod(name, shown.get(name)?.about) }, "?");
    const frame = new Frame({ title: method ? method.title + (name.includes("@") ? ` @ ${name.split("@")[1]}` : "") : name, about: method ? about : null, tools: [close] });
    frame.node.dataset.method = name;
    shown.set(name, { frame, about: null, array: null });
  }
  fill(grid, [...shown.values()].map((one) => one.frame.node));
  grid.style.setProperty("--maps", shown.size);
  const old = panel.querySelector(".adder");
  if (old) old.replaceWith(adder());
}

function scaleOf(one) {
  if (state.scale !== "shared") return one.about.scale;
  const alike = [...shown.values()].filter((other) => other.about && other.about.unit === one.about.unit && other.about.scale.signed === one.about.scale.signed && !other.about.scale.centre);
  if (alike.length < 2 || one.about.scale.centre) return one.about.scale;
  const high = Math.max(...alike.map((other) => other.about.scale.high));
  return { ...one.about.scale, high, low: one.about.scale.signed ? -high : Math.min(...alike.map((other) => other.about.scale.low)) };
}

async function redraw() {
  const opacity = state.opacity === "" ? null : Number(state.opacity) / 100;
  for (const [name, one] of shown) {
    if (!one.array || !one.about) continue;
    await one.frame.map(one.about, one.array, scaleOf(one), opacity);
    one.frame.node.classList.remove("waiting", "refused");
    badge(name);
  }
}
const slowRedraw = debounce(redraw, 30);

function badge(name) {
  const one = shown.get(name);
  if (!one) return;
  const verdict = trust[name];
  const doubts = one.about?.doubts?.length ?? 0;
  // of a target that the network thinks next to impossible, nothing was lost or won that could count as proof
  const weak = verdict?.judged_on === "score" && verdict.better_than_random;
  const word = !verdict ? t("trustShort") : weak ? t("weakTarget") : verdict.better_than_random ? t("beatsRandom") : (verdict.gain ?? 0) > 0 ? t("unsure") : t("notBetter");
  const mark = !verdict ? (doubts ? "!" : "?") : weak ? "~" : verdict.better_than_random ? "✓" : "✗";
  const inside = one.inside == null ? null : h("p", { class: "inside" }, t("inside", { p: percent(one.inside) }));
  fill(one.frame.notes, inside, one.about ? h("button", { type: "button", class: `badge ${!verdict ? (doubts ? "doubt" : "") : weak ? "doubt" : verdict.better_than_random ? "good" : "bad"}`,
    title: told(verdict?.sentence ?? one.about.doubts?.[0] ?? t("trustTitle")), onclick: () => openTrust(name, one.about, verdict, judgeAll) }, `${mark} ${word}`) : null,
  doubts && one.about ? h("span", { class: "doubt-line" }, told(one.about.doubts[0])) : null);
}

function refuse(name, why) {
  const one = shown.get(name);
  if (!one) return;
  one.frame.node.classList.add("refused");
  one.frame.node.classList.remove("waiting");
  fill(one.frame.notes, h("p", { class: "problem" }, `${t("refused")}: ${told(why)}`));
}

/** A method of hundreds of passes: made as a job, with a first coarse map, progress, and a way to stop. */
function slow(name, mine) {
  const one = shown.get(name);
  if (!one) return;
  const meter = h("progress", { "aria-label": t("computing") });
  const words = h("span", { class: "soft" }, t("queued"));
  let began = null;
  const clock = setInterval(() => { if (began && !words.dataset.left) words.textContent = t("seconds", { s: Math.round((performance.now() - began) / 1000) }); }, 1000);
  const stop = h("button", { type: "button", class: "small", onclick: () => work.cancel() }, t("cancel"));
  fill(one.frame.notes, h("div", { class: "work" }, meter, words, stop));
  one.frame.node.classList.remove("refused");
  one.frame.node.classList.add("waiting");
  const draw = async (about, array) => {
    if (mine !== asked) return;
    one.about = { ...about, name };
    one.array = array;
    await one.frame.map(one.about, array, scaleOf(one), state.opacity === "" ? null : Number(state.opacity) / 100);
  };
  const work = job({ kind: "map", picture: state.picture, target: state.target || null, against: state.against || null, methods: [name], settings: list("set").filter((s) => s.startsWith(`${name}.`)) }, {
    state: (now) => {
      if (now.state === "queued" && now.ahead) words.textContent = t("ahead", { n: now.ahead });
      if (now.state === "running") began = began ?? performance.now();
    },
    progress: (at) => {
      words.dataset.left = at.left > 1 || at.done ? "1" : "";
      if (at.total) { meter.max = at.total; meter.value = at.done; } else meter.removeAttribute("value");
      words.textContent = [at.total && at.done ? t("of", { done: at.done, total: at.total }) : at.what, at.left > 1 ? t("left", { s: Math.ceil(at.left) }) : ""].filter(Boolean).join(" · ");
    },
    frame: async (frame) => { if (frame.map) { const { inline } = await import("./api.js"); draw(frame.map, inline(frame.map.data)); } },
  });
  works.push(work);
  work.done.finally(() => clearInterval(clock)).catch(() => {});
  work.done.then(async (result) => {
    if (mine !== asked) return;
    if (result.refused) { refuse(name, result.refused); return; }
    await draw(result.map, await npy(result.map.values));
    one.frame.node.classList.remove("waiting");
    badge(name);
    tools.shares();
  }).catch((error) => {
    if (error.offline) failed(error);
    if (mine !== asked) return;
    one.frame.node.classList.remove("waiting");
    fill(one.frame.notes, h("p", { class: "problem" }, error.message), h("button", { type: "button", class: "small", onclick: () => slow(name, asked) }, t("retry")));
  });
}

function stopWorks() {
  for (const work of works) work.cancel();
  works = [];
}

async function judgeAll() {
  const names = [...shown.keys()].filter((name) => shown.get(name).about && !methodOf(name)?.slow);
  const button = panel.querySelector(".judge");
  if (!names.length) return;
  const mine = asked;
  button.disabled = true;
  button.textContent = t("trusting");
  const work = job({ kind: "trust", picture: state.picture, target: state.target || null, against: state.against || null, methods: names, settings: list("set") }, {
    progress: (at) => { const now = panel.querySelector(".judge"); if (now && at.total) now.textContent = `${t("trusting")} ${t("of", { done: at.done, total: at.total })}${at.what ? ` · ${told(at.what)}` : ""}`; },
  });
  works.push(work);
  try {
    const result = await work.done;
    if (mine === asked) {
      trust = result.trust;
      for (const name of shown.keys()) if (shown.get(name).about) badge(name);
    }
  } catch (error) { failed(error); } finally {
    const now = panel.querySelector(".judge");
    if (now) { now.disabled = false; now.textContent = t("trust"); }
  }
  return trust;
}

/** What share of each map's evidence lies in a region of input pixels (null: no region). */
export function showShares(inside) {
  for (const [name, one] of shown) {
    one.inside = inside && one.array ? share(one.array, inside, one.about.signed) : null;
    if (one.about) badge(name);
  }
}

function share(array, inside, signed) {
  const [rows, columns] = array.shape;
  let within = 0, whole = 0;
  for (let i = 0; i < rows * columns; i += 1) {
    const value = array.data[i];
    if (!Number.isFinite(value)) continue;
    const evidence = signed ? Math.max(0, value) : Math.abs(value);
    whole += evidence;
    if (inside[i]) within += evidence;
  }
  return whole > 0 ? within / whole : null;
}

export const mapsShown = () => shown;
export { scaleFor, showChange };

on("off", () => { if (state.tab === "decide" && panel?.isConnected) drawBar(); });
on("picture target against methods set", () => {
  if (state.tab !== "decide" || !panel?.isConnected) return;
  unsettled();
  refresh();
});
hear("reading", () => { if (state.tab === "decide" && panel?.isConnected) refresh(); });
