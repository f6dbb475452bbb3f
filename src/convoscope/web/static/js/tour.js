// A short guided tour: one thing after the other, in plain words. Nothing is locked meanwhile.
import { app, hear } from "./app.js";
import { fill, h } from "./dom.js";
import { t } from "./i18n.js";
import { prefer, set, state } from "./state.js";
import { words } from "./words.js";

let box = null;
let at = 0;

export const tourOpen = () => Boolean(box);

export function startTour() {
  if (state.tab !== "decide") set({ tab: "decide" });
  at = 0;
  box?.remove();
  box = h("div", { class: "tour", role: "dialog", "aria-label": t("tour"), tabindex: -1, onkeydown: (event) => {
    if (event.key === "ArrowRight") { step(1); event.stopPropagation(); }
    if (event.key === "ArrowLeft") { step(-1); event.stopPropagation(); }
    if (event.key === "Escape") { closeTop(); event.stopPropagation(); }
  } });
  document.body.append(box);
  show();
}

export function closeTop() {
  if (!box) return;
  box.remove();
  box = null;
  document.querySelectorAll(".lit").forEach((one) => one.classList.remove("lit"));
  prefer.set("toured", "1");
}

function step(by) {
  at += by;
  if (at < 0) at = 0;
  if (at >= words().tour.length) { closeTop(); return; }
  show();
}

function show() {
  const steps = words().tour;
  const [where, title, text] = steps[at];
  prepare(where);
  document.querySelectorAll(".lit").forEach((one) => one.classList.remove("lit"));
  const target = document.querySelector(where);
  target?.classList.add("lit");
  target?.scrollIntoView({ block: "nearest" });
  fill(box, h("h2", {}, title), h("p", {}, text), h("div", { class: "row" }, h("span", { class: "soft" }, t("step", { n: at + 1, total: steps.length })), h("span", { class: "spacer" }),
    h("button", { type: "button", class: "plain", onclick: closeTop }, t("close")), at ? h("button", { type: "button", onclick: () => step(-1) }, t("back")) : null,
    h("button", { type: "button", class: "main", onclick: () => step(1) }, at + 1 < steps.length ? t("next") : t("done"))));
  place(target);
  box.focus({ preventScroll: true });
}

/** What a step describes is there when it is read: a layer, a unit's card. */
function prepare(where) {
  const layer = app.layers.find((one) => one.name === state.layer && one.grid) ?? app.layers.findLast((one) => one.grid);
  if (where === "#right" && layer) set({ layer: layer.name, tab: "layer", unit: state.unit || `${layer.name}:0` });
  else if (where === "#left" && layer) set({ layer: layer.name, tab: "layer" });
  else if (where !== "#tab-collection" && state.tab !== "decide") set({ tab: "decide" });
}

function place(target) {
  const own = box.getBoundingClientRect();
  const space = 12;
  let left = innerWidth - own.width - space;
  let top = innerHeight - own.height - space;
  if (target && innerWidth > 760) {
    const rect = target.getBoundingClientRect();
    if (rect.bottom + own.height + space < innerHeight) { top = rect.bottom + space; left = rect.left; }
    else if (rect.top - own.height - space > 0) { top = rect.top - own.height - space; left = rect.left; }
    else if (rect.right + own.width + space < innerWidth) { left = rect.right + space; top = Math.max(space, rect.top); }
    else if (rect.left - own.width - space > 0) { left = rect.left - own.width - space; top = Math.max(space, rect.top); }
  }
  box.style.left = `${Math.max(space, Math.min(left, innerWidth - own.width - space))}px`;
  box.style.top = `${Math.max(space, Math.min(top, innerHeight - own.height - space))}px`;
}

hear("offer-tour", () => {
  const offer = h("div", { class: "offer" }, h("button", { type: "button", class: "main", onclick: () => { offer.remove(); startTour(); } }, t("welcome")),
    h("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => { offer.remove(); prefer.set("toured", "1"); } }, "×"));
  document.body.append(offer);
});
