// For a class: one map fills the screen, the photo stands beside it, large type, one method at a time, keys for all.
import { app, hear, methodOf, tell } from "./app.js";
import { fill, h, number } from "./dom.js";
import { askedWords, t, told } from "./i18n.js";
import { mapOf, paintMap, photoOf, plain, sheet } from "./minimap.js";
import { list, on, set, state } from "./state.js";
import { words } from "./words.js";

let box = null;
let asked = 0;
let veiled = false;

/** Opens the presenter; state.present is the number of the method from 1. */
export function present() {
  if (!state.picture) return;
  set({ present: state.present || "1", tab: "decide" });
}

/** Those of a moment, one by one; where only slow ones are chosen, the network's usual ones. */
function methods() {
  const quick = (names) => names.filter((name) => methodOf(name) && !methodOf(name).slow);
  const chosen = quick(list("methods"));
  return chosen.length ? chosen : quick(app.model.default_methods);
}

export function drawPresent() {
  if (!state.present) { box?.close(); box?.remove(); box = null; return; }
  if (!app.model || !app.picture) return;
  if (!box) {
    box = h("dialog", { class: "present", "aria-label": t("presenter"), onclose: () => { if (state.present) set({ present: "" }); }, onkeydown: keys });
    document.body.append(box);
    box.showModal();
    box.requestFullscreen?.().catch(() => {});
  }
  show();
}

async function show() {
  const mine = ++asked;
  const names = methods();
  const at = Math.min(names.length, Math.max(1, Number(state.present) || 1)) - 1;
  const name = names[at];
  const method = methodOf(name);
  const photo = sheet(t("photo"));
  const map = sheet(method?.title ?? name);
  const bars = h("ol", { class: "present-bars" });
  const legend = h("p", { class: "soft" });
  fill(box, h("header", {}, h("h2", {}, method?.title ?? name), h("span", { class: "soft" }, t("of", { done: at + 1, total: names.length })), h("span", { class: "spacer" }),
    h("button", { type: "button", title: t("presentPrevious"), "aria-label": t("presentPrevious"), onclick: () => step(-1) }, "‹"), h("button", { type: "button", title: t("presentNext"), "aria-label": t("presentNext"), onclick: () => step(1) }, "›"), h("button", { type: "button", "aria-label": t("close"), onclick: () => set({ present: "" }) }, "×")),
  h("div", { class: "present-body" }, h("div", { class: "present-side" }, photo, bars), h("div", { class: "present-map" }, map)),
  h("footer", {}, h("p", { class: "says" }, words().methods[name.split("@")[0]] ?? told(method?.shows ?? "")), legend, h("p", { class: "soft keys" }, t("presentKeys"))));
  try {
    const [base, one] = await Promise.all([photoOf(state.picture, 1024), mapOf("", state.picture, name, state.target, state.against)]);
    if (mine !== asked || !box) return;
    plain(photo, base);
    if (veiled) plain(map, base); else await paintMap(map, base, one, app.picture, one.about.scale);
    map.dataset.drawn = name;
    fill(bars, one.found.prediction.slice(0, 5).map((row) => h("li", { class: row.label === one.found.target ? "is-target" : "" }, h("span", { class: "label" }, row.label), h("span", { class: "track" }, h("i", { style: { width: `${100 * Math.max(0, Math.min(1, row.probability ?? row.share ?? 0))}%` } })), h("span", { class: "figure" }, number(row.probability ?? row.score, 2)))));
    legend.textContent = `${t("target", { target: askedWords(one.found.target) })} · ${number(one.about.scale.low)} … ${number(one.about.scale.high)} ${told(one.about.unit ?? "")}`;
  } catch (error) { if (mine === asked && box) fill(box.querySelector(".says"), error.message); }
}

function step(by) {
  const count = methods().length;
  set({ present: String(((Number(state.present) - 1 + by + count) % count) + 1) }, true);
}

function another(by) {
  const at = app.pictures.findIndex((one) => one.id === state.picture);
  const next = app.pictures[at + by];
  if (next) set({ picture: next.id }, true);
}

function keys(event) {
  const act = { ArrowRight: () => step(1), ArrowLeft: () => step(-1), PageDown: () => step(1), PageUp: () => step(-1), ArrowDown: () => another(1), ArrowUp: () => another(-1), " ": () => { veiled = !veiled; show(); } }[event.key];
  if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
  event.preventDefault();
  event.stopPropagation();
  act();
}

on("present", drawPresent);
hear("reading", () => { if (state.present) drawPresent(); });
on("target against methods", () => { if (state.present && box) show(); });
hear("language", () => { if (state.present && box) show(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "p" || state.present || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  present();
});

// the camera as a stream

/** Opens the camera: every frame goes through the network, and the rate is told. */
export async function liveCamera(takePicture) {
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } }); } catch { tell(t("noCamera"), "error"); return; }
  const { overlay, scaled, table } = await import("./colour.js");
  const { ask, parse } = await import("./api.js");
  const video = h("video", { autoplay: true, muted: true, playsinline: true, hidden: true });
  video.muted = true;
  video.srcObject = stream;
  const canvas = h("canvas", { class: "pixels live", role: "img", "aria-label": t("camera") });
  const bars = h("ol", { class: "present-bars" });
  const rate = h("output", { class: "soft rate" });
  let on = true;
  let drawMap = true;
  const end = () => { on = false; stream.getTracks().forEach((track) => track.stop()); if (dialog.open) dialog.close(); dialog.remove(); };
  const toggle = h("label", { class: "switch" }, h("input", { type: "checkbox", checked: true, onchange: (event) => { drawMap = event.target.checked; } }), "Grad-CAM");
  const dialog = h("dialog", { class: "sheet live-sheet", "aria-label": t("camera"), onclose: end }, h("div", { class: "inner" }, h("div", { class: "live-body" }, h("div", {}, canvas, video), h("div", {}, bars, rate)),
    h("div", { class: "row" }, toggle, h("span", { class: "spacer" }), h("button", { type: "button", class: "main", onclick: () => takePicture(video, end) }, t("takePicture")), h("button", { type: "button", onclick: end }, t("close")))));
  document.body.append(dialog);
  dialog.showModal();
  await video.play().catch(() => {});
  const small = document.createElement("canvas");
  const pen = small.getContext("2d", { willReadFrequently: true });
  const grab = async () => {
    const scale = Math.min(1, 320 / Math.max(video.videoWidth, video.videoHeight));
    small.width = Math.round(video.videoWidth * scale); small.height = Math.round(video.videoHeight * scale);
    pen.drawImage(video, 0, 0, small.width, small.height);
    const frame = pen.getImageData(0, 0, small.width, small.height);
    return { frame, blob: await new Promise((resolve) => small.toBlob(resolve, "image/jpeg", 0.85)) };
  };
  const look = async ({ frame, blob }) => {
    const target = state.target && !state.target.includes(":") ? `?target=${encodeURIComponent(state.target)}` : "";
    const response = await ask(`/api/live${target}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: blob });
    return { frame, said: JSON.parse(response.headers.get("x-reading")), array: parse(await response.arrayBuffer()) };
  };
  let smooth = 0;
  let last = performance.now();
  let problem = 0;
  let flight = null;
  while (on) {
    if (!video.videoWidth) { await new Promise((resolve) => setTimeout(resolve, 30)); continue; }
    try {
      flight ??= look(await grab());
      // while the network looks at one frame the next is made ready, and it goes out before this one is drawn; where the
      // network is slow that frame would be an old one
      const ready = smooth > 6 ? grab() : null;
      const answer = flight;
      flight = null;
      const { frame, said, array } = await answer;
      if (!on) break;
      if (ready) { flight = look(await ready); flight.catch(() => {}); }
      const matrix = scaled(said.input_to_photo, frame.width / said.size[1], frame.height / said.size[0]);
      const shown = drawMap ? overlay(frame, array.data, array.shape, matrix, said.scale, await table(said.scale.cmap), { mode: "over", opacity: 0.75 }) : frame;
      canvas.width = frame.width; canvas.height = frame.height;
      canvas.getContext("2d").putImageData(shown, 0, 0);
      const now = performance.now();
      smooth = smooth ? smooth + 0.15 * (1000 / (now - last) - smooth) : 1000 / (now - last);
      last = now;
      rate.textContent = t("frameRate", { n: smooth.toFixed(smooth < 10 ? 1 : 0), ms: Math.round(said.ms) });
      rate.dataset.frames = String(Number(rate.dataset.frames ?? 0) + 1);
      fill(bars, said.prediction.map((row) => h("li", {}, h("span", { class: "label" }, row.label), h("span", { class: "track" }, h("i", { style: { width: `${100 * Math.max(0, Math.min(1, row.probability ?? 0))}%` } })), h("span", { class: "figure" }, number(row.probability ?? row.score, 2)))));
      problem = 0;
    } catch (error) {
      flight = null;
      problem += 1;
      rate.textContent = error.message;
      if (problem > 4) { tell(error.message, "error"); end(); }
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
}

