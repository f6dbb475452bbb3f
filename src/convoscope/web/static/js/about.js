// "What am I looking at?": for every view, in plain words, with its formula and paper.
import { app, methodOf } from "./app.js";
import { fill, h, number, percent } from "./dom.js";
import { t, told } from "./i18n.js";
import { list, set } from "./state.js";
import { words } from "./words.js";

function open(title, ...body) {
  document.querySelector("dialog.about")?.remove();
  const dialog = h("dialog", { class: "sheet about", "aria-label": title, onclose: () => dialog.remove(), onclick: (event) => { if (event.target === dialog) dialog.close(); } },
    h("div", { class: "inner" }, h("div", { class: "head" }, h("h2", {}, title), h("span", { class: "spacer" }), h("button", { type: "button", class: "plain", "aria-label": t("close"), onclick: () => dialog.close() }, "×")), ...body));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const facts = (rows) => h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

export function aboutMethod(name, about) {
  const method = methodOf(name);
  if (!method) return;
  const plain = words().methods[method.name];
  open(method.title, plain ? h("p", {}, plain) : null, facts([
    [t("shows"), told(method.shows)],
    [t("formula"), h("span", { class: "formula" }, told(method.formula))],
    [t("unitWord"), [method.unit, method.reduction].filter(Boolean).map(told).join(", ")],
    [t("layer"), about?.layer],
    [t("paper"), h("span", { class: "paper" }, method.paper)],
    ["", about ? h("a", { href: about.values, download: `${name}.npy` }, t("download")) : null],
  ]), about ? settingsForm(name, method, about) : null, h("p", { class: "soft" }, words().caution));
}

/** The method's settings as a form: the same fields as the command line's flags. What is changed stands in the address. */
function settingsForm(name, method, about) {
  const own = method.settings.filter((one) => one.name !== "parts");
  if (!own.length) return null;
  const field = (one) => {
    const id = `set-${one.name}`;
    const value = about.settings[one.name];
    let input;
    if (one.choices) input = h("select", { id, name: one.name }, one.choices.map((each) => h("option", { value: each, selected: each === value }, each)));
    else if (one.name === "layer") input = h("select", { id, name: one.name }, h("option", { value: "" }, "–"), app.layers.filter((each) => each.grid).map((each) => h("option", { value: each.name, selected: each.name === value }, each.name)));
    else if (one.type === "bool") input = h("select", { id, name: one.name }, ["true", "false"].map((each) => h("option", { value: each, selected: each === String(value) }, each)));
    else input = h("input", { id, name: one.name, value: value ?? "", type: ["int", "float"].includes(one.type) ? "number" : "text", min: one.minimum, max: one.maximum, step: one.type === "int" ? 1 : "any" });
    return [h("dt", {}, h("label", { for: id }, one.name.replaceAll("_", " "))), h("dd", {}, input, h("span", { class: "soft" }, ` ${told(one.help ?? "")}`))];
  };
  const apply = (event) => {
    event.preventDefault();
    const rest = list("set").filter((each) => !each.startsWith(`${name}.`));
    for (const one of own) {
      const given = event.target.elements[one.name].value;
      if (given !== String(one.default ?? "") && !given.includes(",")) rest.push(`${name}.${one.name}=${given === "" ? "none" : given}`);
    }
    document.querySelector("dialog.about")?.close();
    set({ set: rest.join(",") });
  };
  return h("form", { class: "settings", onsubmit: apply }, h("h3", {}, t("settings")), h("dl", {}, own.map(field)), h("button", { type: "submit", class: "main" }, t("apply")));
}

export function aboutLayer(layer) {
  const said = words().layer;
  open(layer.name, said.map((text) => h("p", {}, text)), facts([
    [t("layer"), `${layer.type} · ${layer.shape.slice(1).join("×")}`],
    [t("formula"), h("span", { class: "formula" }, t("formulaLayer"))],
    [t("fieldName"), layer.rf?.size ? t("fieldTitle", { size: layer.rf.size.join("×"), stride: (layer.rf.stride ?? []).join("×") }) : layer.rf ? t("wholePicture") : null],
    [t("paper"), h("span", { class: "paper" }, "Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014; Yosinski et al.: Understanding Neural Networks Through Deep Visualization. 2015")],
  ]));
}

export function aboutUnit(card) {
  open(card.unit, words().unit.map((text) => h("p", {}, text)), facts([
    [t("formula"), h("span", { class: "formula" }, t("formulaUnit"))],
    [t("selectivity"), card.survey?.selectivity != null ? number(card.survey.selectivity) : null],
    [t("paper"), h("span", { class: "paper" }, "Girshick et al.: Rich feature hierarchies. CVPR 2014; Morcos et al.: On the importance of single directions for generalization. ICLR 2018; Simonyan et al. 2014")],
  ]));
}

export function aboutCollection(made) {
  open(t("map"), words().collection.map((text) => h("p", {}, text)), facts([
    [t("layer"), made?.layer],
    [t("formula"), h("span", { class: "formula" }, made?.method === "pca" ? "y = (x − μ) · [v₁ v₂]" : made?.method === "umap" ? t("formulaUmap") : t("formulaTsne"))],
    [t("paper"), h("span", { class: "paper" }, made?.method === "umap" ? "McInnes, Healy, Melville: UMAP. 2018" : made?.method === "pca" ? "Pearson 1901; Hotelling 1933" : "van der Maaten, Hinton: Visualizing Data using t-SNE. JMLR 2008")],
  ]));
}

export function openTrust(name, about, verdict, judge) {
  const method = methodOf(name);
  const dialog = open(`${method?.title ?? name}: ${t("trustTitle")}`,
    h("h3", {}, t("doubts")), about?.doubts?.length ? h("ul", {}, about.doubts.map((one) => h("li", {}, told(one)))) : h("p", { class: "soft" }, t("noDoubts")),
    verdict ? [h("p", {}, told(verdict.sentence)), facts([
      [t("insertion"), number(verdict.insertion)], [t("deletion"), number(verdict.deletion)], [t("beatsRandom"), verdict.gain != null ? number(verdict.gain) : null],
      [words().trust.survives, verdict.survives_randomised_classifier != null ? percent(verdict.survives_randomised_classifier) : null],
      [words().trust.noise, verdict.rank_under_noise != null ? number(verdict.rank_under_noise) : null],
      [t("formula"), h("span", { class: "formula" }, t("formulaGain"))],
      [t("paper"), h("span", { class: "paper" }, "Petsiuk et al.: RISE. BMVC 2018; Adebayo et al.: Sanity Checks for Saliency Maps. NeurIPS 2018; Yeh et al. 2019")],
    ]), verdict.notes?.map((note) => h("p", { class: "soft" }, told(note)))] : [h("p", {}, words().trust.why), h("button", { type: "button", class: "main", onclick: () => { dialog.close(); judge(); } }, t("trust"))]);
}

export function openHelp() {
  const keys = [["← →", t("keyArrows")], ["1 2 3 4", t("keyTabs")], ["+ −", t("keyZoom")], ["m", t("keyMask")], ["p", t("keyPresent")], ["n", t("keyMistake")], ["d", t("keyTheme")], ["Esc", t("keyEscape")], ["?", t("keyHelp")]];
  open(t("help"), words().page.map((text) => h("p", {}, text)), h("h3", {}, t("keys")), h("dl", { class: "keys" }, keys.map(([key, what]) => [h("dt", {}, key.split(" ").map((one) => h("kbd", {}, one))), h("dd", {}, what)])),
    h("p", { class: "soft" }, `convoscope ${app.model.version} · ${app.model.name} · ${app.model.fingerprint.slice(0, 12)}`));
}

export { fill };
