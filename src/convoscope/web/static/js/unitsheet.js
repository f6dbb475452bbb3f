// Everything of one unit at once, large: top patches, what in them it answers, and the picture that it likes best.
import { get, job } from "./api.js";
import { app, failed } from "./app.js";
import { fill, h, number } from "./dom.js";
import { t } from "./i18n.js";
import { set } from "./state.js";

const made = new Map();

export async function unitSheet(unit) {
  const top = h("div", { class: "sheet-grid" });
  const guided = h("div", { class: "sheet-grid" });
  const image = h("img", { alt: `${t("wants")}: ${unit}`, class: "wanted", hidden: true });
  const meter = h("progress", { "aria-label": t("computing") });
  const words = h("p", { class: "soft" });
  let work = null;
  const dialog = h("dialog", { class: "sheet unit-sheet", "aria-label": unit, onclose: () => { work?.cancel(); dialog.remove(); } }, h("div", { class: "inner" }, h("div", { class: "head" }, h("h2", {}, unit), h("span", { class: "spacer" }), h("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => dialog.close() }, "×")),
    h("div", { class: "three" }, h("section", {}, h("h3", {}, t("patchTiles")), top), h("section", {}, h("h3", {}, t("guidedRow")), guided), h("section", {}, h("h3", {}, t("wants")), image, meter, words)), h("p", { class: "soft" }, t("unitSheetNote"))));
  document.body.append(dialog);
  dialog.showModal();
  if (app.model.survey) {
    get("/api/patches", { unit }).then((found) => {
      const items = found.patches.filter((one) => one.kind === "top").slice(0, 9);
      fill(top, items.map((one) => h("button", { type: "button", class: "patch", title: number(one.value), "aria-label": `${one.label ?? one.prediction ?? ""} ${number(one.value)}`, onclick: () => { dialog.close(); set({ picture: one.id }); } }, one.image ? h("img", { src: one.image, alt: "" }) : null)));
      fill(guided, items.map((one) => h("span", { class: "patch" }, one.guided_image ? h("img", { src: one.guided_image, alt: "" }) : null)));
    }, (error) => fill(top, h("p", { class: "soft" }, error.message)));
  } else fill(top, h("p", { class: "soft" }, t("noSurvey")));
  const show = (one) => { image.src = one.picture; image.hidden = false; meter.hidden = true; words.textContent = one.caption; };
  if (made.has(unit)) { show(made.get(unit)); return; }
  work = job({ kind: "visualize", target: unit, steps: 128 }, {
    progress: (at) => { meter.max = at.total ?? 1; meter.value = at.done; },
    frame: (frame) => { const uri = Object.values(frame.pictures)[0]; if (uri) { image.src = uri; image.hidden = false; } },
  });
  work.done.then((result) => { const one = result.visualizations[0]; made.set(unit, one); if (dialog.isConnected) show(one); }, (error) => { meter.hidden = true; failed(error); });
}
