// What all parts of the page share: the model, methods, layers, and a line for messages.
import { get } from "./api.js";
import { h, fill } from "./dom.js";
import { t } from "./i18n.js";

export const app = {
  model: null,
  methods: [],
  layers: [],
  pictures: [],
  picture: null, // the details of the chosen picture
  failed: null, // the picture that could not be opened
  why: "", // and why
  reading: null, // what the network makes of it
};

const hearers = {};

/** Hear of things that are not part of the address: "cursor", "hover-layer", "reading", "redraw", "collection". */
export function hear(event, listener) {
  (hearers[event] ??= []).push(listener);
}

export function say(event, data) {
  for (const listener of hearers[event] ?? []) listener(data);
}

let timer = 0;
/** A sentence at the foot of the page. Errors stay until they are closed. */
export function tell(text, kind = "note") {
  const box = document.getElementById("status");
  clearTimeout(timer);
  if (!text) { fill(box); return; }
  fill(box, h("div", { class: `toast ${kind}` }, h("span", {}, text),
    h("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => fill(box) }, "×")));
  if (kind === "note") timer = setTimeout(() => fill(box), 4000);
}

export function failed(error) {
  if (error?.name === "AbortError" || error?.cancelled) return;
  if (error?.status === 0 && error.offline) { serverLost(); return; }
  tell(error?.message ?? String(error), "error");
}

let asleep = false;
/** The server does not answer: say so, and ask again until it does. */
async function serverLost() {
  if (asleep) return;
  asleep = true;
  tell(t("offline"), "error");
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, 1500); });
    try {
      if ((await fetch("/api/model", { cache: "no-store" })).ok) break;
    } catch { /* not yet */ }
  }
  asleep = false;
  tell(t("serverBack"));
  say("server-back");
}

/** The address of what another network, or another collection, would answer otherwise: the browser keeps it for this one. */
export const ours = (url) => `${url}${url.includes("?") ? "&" : "?"}v=${encodeURIComponent(app.model.stamp)}`;

export const methodOf = (name) => app.methods.find((one) => one.name === name.split("@")[0]);
export const layerOf = (name) => app.layers.find((one) => one.name === name);

export async function loadModel() {
  [app.model, app.methods, app.layers] = await Promise.all([get("/api/model"), get("/api/methods"), get("/api/layers")]);
}
