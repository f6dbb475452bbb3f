// Starts the page and joins its parts.
import { get, job } from "./api.js";
import { app, failed, hear, loadModel, say, tell } from "./app.js";
import { fill, h } from "./dom.js";
import { t } from "./i18n.js";
import { list, on, prefer, read, set, setUsual, state } from "./state.js";
import { drawCentre } from "./centre.js";
import { drawCard } from "./card.js";
import { drawLayers } from "./layerlist.js";
import { drawStrip, loadPictures, more, startStrip } from "./strip.js";
import { drawTop } from "./top.js";
import { closeTop, startTour, tourOpen } from "./tour.js";
import { openHelp } from "./about.js";

const theme = () => prefer.get("theme", "");
export function applyTheme() {
  if (theme()) document.documentElement.dataset.theme = theme();
  else delete document.documentElement.dataset.theme;
}

async function choosePicture() {
  const id = state.picture;
  app.reading = null;
  if (!id) { app.picture = null; return; }
  try {
    const [details, reading] = await Promise.all([
      get(`/api/pictures/${id}`), get("/api/predict", { picture: id, count: 10 }),
    ]);
    if (state.picture !== id) return;
    app.picture = details;
    app.failed = null;
    app.reading = reading;
    say("reading");
  } catch (error) {
    if (state.picture !== id) return;
    // a server that was started anew does not know what was dropped into the one before
    if (error.status === 400 && !app.pictures.some((one) => one.id === id) && app.pictures.length) {
      tell(t("pictureGone"), "error");
      set({ picture: app.pictures[0].id }, true);
      return;
    }
    app.picture = null;
    app.failed = id;
    app.why = error.message;
    failed(error);
    say("reading");
  }
}

function keys(event) {
  const tag = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(tag)) return;
  if (event.target.closest?.("[data-arrows]") && event.key.startsWith("Arrow")) return;
  if (document.querySelector("dialog[open]") && event.key !== "?") return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !tourOpen()) {
    event.preventDefault();
    walk(step).catch(failed);
  } else if (["1", "2", "3", "4"].includes(event.key)) set({ tab: ["decide", "layer", "collection", "improve"][Number(event.key) - 1] });
  else if (event.key === "+" || event.key === "=") zoom(1);
  else if (event.key === "-") zoom(-1);
  else if (event.key === "?") openHelp();
  else if (event.key === "d") turnTheme();
  else if (event.key === "m") say("next-tool");
  else if (event.key === "Escape") { closeTop(); say("escape"); }
}

/** The next or the former picture; those that are not listed yet are fetched. */
async function walk(step) {
  const at = app.pictures.findIndex((one) => one.id === state.picture);
  if (at + step >= app.pictures.length) await more();
  const next = app.pictures[at + step];
  if (next) set({ picture: next.id }, true);
}

export function turnTheme() {
  const dark = theme() ? theme() === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  prefer.set("theme", dark ? "light" : "dark");
  applyTheme();
  say("redraw");
}

function zoom(step) {
  const sizes = [120, 150, 190, 230, 280, 340, 420, 520];
  const now = Number(prefer.get("zoom", innerWidth >= 1900 ? 280 : 190));
  const at = Math.max(0, sizes.findIndex((one) => one >= now));
  const next = sizes[Math.min(sizes.length - 1, Math.max(0, at + step))];
  if (step) prefer.set("zoom", next);
  document.documentElement.style.setProperty("--frame", `${next}px`);
}

function drawAll() {
  drawTop();
  drawStrip();
  drawLayers();
  drawCentre();
  drawCard();
  document.title = `${app.model.name} · convoscope`;
}

const quiet = location.search.includes("tour=0");

async function start() {
  applyTheme();
  zoom(0);
  read();
  fill(document.getElementById("centre"), h("p", { class: "wait computing" }, t("computing")));
  try {
    await loadModel();
    await loadPictures();
  } catch (error) {
    fill(document.getElementById("centre"), h("div", { class: "empty" }, h("h2", {}, t("error")), h("p", {}, error.message)));
    return;
  }
  if (state.model && state.model !== app.model.name) tell(t("otherModel", { asked: state.model, here: app.model.name }), "error");
  state.model = app.model.name;
  setUsual({
    model: app.model.name, picture: app.pictures[0]?.id ?? "", methods: app.model.default_methods.join(","),
    layer: app.model.last_grid ?? app.layers.at(-1)?.name ?? "",
  });
  drawAll();
  startStrip();
  on("picture", () => choosePicture());
  hear("language", drawAll);
  hear("survey-done", async () => {
    try {
      await loadModel();
      drawAll();
      tell(t("surveyDone"));
    } catch (error) { failed(error); }
  });
  document.addEventListener("keydown", keys);
  watchSurvey().catch(() => {});
  await choosePicture();
  if (!prefer.get("toured", "") && !list("unit").length && !quiet) say("offer-tour");
}

/** A survey that the server makes: say so, and show the collection when it is there. */
async function watchSurvey() {
  if (app.model.survey) return;
  const running = (await get("/api/jobs")).findLast((one) => one.kind === "survey" && ["queued", "running"].includes(one.state));
  if (!running) return;
  const work = job({ kind: "survey" });
  work.done.then(() => say("survey-done"), () => {});
}

/** The server answers again: what it knows may be other than before. */
hear("server-back", async () => {
  const network = () => JSON.stringify([app.model.name, app.model.fingerprint, app.model.preprocessing]);
  const before = network();
  try {
    await loadModel();
    if (network() !== before) { location.reload(); return; } // nothing that is shown or kept here is this network's
    await loadPictures(Math.max(120, app.pictures.length));
    drawAll();
    await choosePicture();
  } catch (error) { failed(error); }
});
hear("tour", startTour);
start();
