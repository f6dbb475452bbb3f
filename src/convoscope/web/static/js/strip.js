// The strip of pictures: the folder's and those dropped, pasted, chosen or taken.
import { get, upload } from "./api.js";
import { app, failed, tell } from "./app.js";
import { fill, h } from "./dom.js";
import { t } from "./i18n.js";
import { liveCamera } from "./present.js";
import { on, set, state } from "./state.js";

const PAGE = 120;
const MOST = 500; // of one request
let total = 0;

export async function loadPictures(limit = PAGE) {
  app.pictures = [];
  do {
    const found = await get("/api/pictures", { offset: app.pictures.length, limit: Math.min(MOST, limit - app.pictures.length) });
    app.pictures = [...app.pictures, ...found.pictures];
    total = found.total;
    if (!found.pictures.length) break;
  } while (app.pictures.length < Math.min(limit, total));
}

export function thumbnail(id, source = "folder") {
  return source === "stored" ? `/api/collection/thumbnail?picture=${id}` : `/api/pictures/${id}/thumbnail`;
}

export function drawStrip() {
  const strip = document.getElementById("strip");
  const items = app.pictures.map((one) => h("button", {
    type: "button", class: "thumb", "aria-pressed": String(one.id === state.picture), dataset: { id: one.id },
    title: one.label ? `${one.name} (${one.label})` : one.name, "aria-label": one.name, onclick: () => set({ picture: one.id }),
  }, h("img", { src: thumbnail(one.id), alt: "", width: 48, height: 48, loading: "lazy" })));
  const input = h("input", { type: "file", accept: "image/*", multiple: true, id: "choose", class: "hidden-input",
    onchange: () => { addAll([...input.files]); input.value = ""; } });
  fill(strip,
    h("div", { class: "thumbs" },
      items,
      total > app.pictures.length ? h("button", { type: "button", class: "more", onclick: more, title: t("morePictures", { n: total - app.pictures.length }) }, `+${total - app.pictures.length}`) : null,
      app.pictures.length ? null : h("p", { class: "soft" }, t("noPictures"))),
    h("div", { class: "add" },
      h("label", { class: "button", for: "choose" }, h("span", { class: "wide" }, `${t("drop")} `), h("span", { class: "narrow" }, `+ ${t("choose")}`)), input,
      navigator.mediaDevices && window.isSecureContext ? h("button", { type: "button", class: "wide", onclick: camera }, t("camera")) : null));
  mark();
}

function mark() {
  for (const one of document.querySelectorAll("#strip .thumb")) {
    const chosen = one.dataset.id === state.picture;
    one.setAttribute("aria-pressed", String(chosen));
    if (chosen) {
      const box = one.parentElement;
      const left = one.offsetLeft - box.offsetLeft;
      if (left < box.scrollLeft || left + one.offsetWidth > box.scrollLeft + box.clientWidth) box.scrollLeft = left - box.clientWidth / 2;
    }
  }
}

/** The next pictures of the folder, behind those that are listed. */
export async function more() {
  if (app.pictures.length >= total) return;
  try {
    const found = await get("/api/pictures", { offset: app.pictures.length, limit: MOST });
    const known = new Set(app.pictures.map((one) => one.id));
    app.pictures = [...app.pictures, ...found.pictures.filter((one) => !known.has(one.id))];
    total = found.pictures.length ? found.total : app.pictures.length;
    const place = document.querySelector("#strip .thumbs")?.scrollLeft;
    drawStrip();
    if (place !== undefined) document.querySelector("#strip .thumbs").scrollLeft = place;
  } catch (error) { failed(error); }
}

async function addAll(files) {
  let last = null;
  const lost = [];
  let count = 0;
  for (const file of files) {
    try {
      last = await upload(file);
      count += 1;
    } catch (error) {
      if (error.offline) { failed(error); break; }
      lost.push(error.message);
    }
  }
  // one message for all, so that no refusal is hidden by what came after it
  if (lost.length) tell([count ? t("addedCount", { n: count }) : null, t("notAdded", { n: lost.length }), ...lost.slice(0, 6), lost.length > 6 ? "…" : null].filter(Boolean).join(" "), "error");
  else if (last) tell(count === 1 ? t("added", { name: last.name }) : t("addedCount", { n: count }));
  if (last) {
    await loadPictures(Math.max(PAGE, app.pictures.length)).catch(failed);
    set({ picture: last.id });
    drawStrip();
  }
}

function camera() {
  liveCamera((video, end) => {
    const canvas = h("canvas");
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { end(); addAll([new File([blob], "camera.png", { type: "image/png" })]); }, "image/png");
  });
}

export function startStrip() {
  on("picture", mark);
  const veil = h("div", { id: "veil", hidden: true }, t("dropHere"));
  document.body.append(veil);
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; veil.hidden = false; } });
  document.addEventListener("dragleave", (event) => { if (files(event)) { depth -= 1; veil.hidden = depth > 0 ? false : true; } });
  document.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    addAll([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (pasted.length) addAll(pasted);
  });
}
