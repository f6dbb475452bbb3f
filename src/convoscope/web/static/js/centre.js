// The middle: three tabs. Each is drawn when it is shown.
import { app, hear } from "./app.js";
import { fill, h } from "./dom.js";
import { t } from "./i18n.js";
import { on, set, state } from "./state.js";
import { browseTab } from "./browse.js";
import { decideTab } from "./decide.js";
import { improveTab } from "./improve.js";
import { layerTab } from "./layertab.js";

const TABS = { decide: decideTab, layer: layerTab, collection: browseTab, improve: improveTab };
let panel = null;

export function drawCentre() {
  const tab = TABS[state.tab] ? state.tab : "decide";
  const centre = document.getElementById("centre");
  panel = h("div", { role: "tabpanel", id: "panel", "aria-labelledby": `tab-${tab}`, class: `panel panel-${tab}` });
  fill(centre,
    h("div", { role: "tablist", class: "tabs", dataset: { arrows: "1" }, onkeydown: arrows },
      Object.keys(TABS).map((name) => h("button", {
        type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === tab), "aria-controls": "panel",
        tabindex: name === tab ? 0 : -1, onclick: () => set({ tab: name }),
      }, t(name), name === "layer" && state.layer ? h("small", {}, ` ${state.layer}`) : null))),
    panel);
  TABS[tab](panel);
}

function arrows(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const names = Object.keys(TABS);
  const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
  set({ tab: next });
  document.getElementById(`tab-${next}`)?.focus();
}

on("tab", () => drawCentre());
on("layer", () => { if (state.tab === "layer") drawCentre(); });
hear("redraw", () => { if (app.model) drawCentre(); });
