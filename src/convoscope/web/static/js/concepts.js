// Concepts: what units lie on, what a class is made of, what it depends on.
import { get } from "./api.js";
import { app, ours } from "./app.js";
import { fill, h, number, percent } from "./dom.js";
import { t, told } from "./i18n.js";
import { set, state } from "./state.js";
import { shot } from "./improve.js";
import { worker } from "./working.js";

export async function partsPart(into, given, again) {
  const [dissection, craft, tcav] = await Promise.all(["dissection", "craft", "tcav"].map((kind) => (given.there[kind] ? get(`/api/improve/${kind}`) : null)));
  if (!into.isConnected) return;
  fill(into, dissected(dissection, given, again), madeOf(craft, again), depends(tcav, given, again));
}

function dissected(found, given, again) {
  const layers = (app.model.survey?.layers ?? app.layers.filter((one) => one.grid).map((one) => one.name));
  const own = layers.includes(state.layer) ? state.layer : layers.at(-1);
  let layer = own;
  const run = given.parts ? h("div", { class: "bar" }, h("label", {}, `${t("layer")} `, h("select", { "aria-label": t("layer"), onchange: (event) => { layer = event.target.value; } }, layers.map((name) => h("option", { value: name, selected: name === own }, name)))),
    worker("dissect", t("dissectNow"), () => ({ layer }), again)) : h("p", { class: "soft" }, t("noParts"));
  return h("section", {}, h("h2", {}, t("liesOn")), h("p", { class: "soft" }, t("liesOnNote")),
    found ? [found.rows.length ? h("div", { class: "scroll" }, h("table", { class: "concept-table" }, h("tr", {}, h("th", {}, t("unit")), h("th", {}, t("conceptWord")), h("th", {}, t("overlap")), h("th", {}, t("chanceReaches")), h("th", {}, t("pictures"))),
      found.rows.slice(0, 40).map((row) => h("tr", {}, h("td", {}, h("button", { type: "button", class: "chip", onclick: () => set({ unit: row.unit, layer: row.unit.slice(0, row.unit.lastIndexOf(":")) }) }, row.unit)), h("td", {}, row.concept), h("td", {}, `${number(row.iou, 2)} [${number(row.low, 2)}, ${number(row.high, 2)}]`), h("td", {}, number(row.chance, 2)), h("td", {}, h("div", { class: "shots tight" }, row.pictures.slice(0, 4).map((one) => shot(one)))))))) : h("p", {}, t("noUnitLies")),
    found.doubts?.map((one) => h("p", { class: "warning" }, told(one)))] : null, run);
}

/** A share of the logit says nothing where the logits themselves lie about zero: its interval is then far too wide. */
const certain = ({ low, high }) => low > -1 && high < 2;

function madeOf(found, again) {
  const classes = app.model.classes ?? [];
  const input = h("input", { list: "classes-made", placeholder: t("classWord"), "aria-label": t("classWord"), value: found?.target ?? app.reading?.classes?.[0]?.label ?? "" });
  const run = h("div", { class: "bar" }, input, h("datalist", { id: "classes-made" }, classes.slice(0, 2000).map((name) => h("option", { value: name }))), worker("craft", t("craftNow"), () => ({ target: input.value || null }), again));
  return h("section", {}, h("h2", {}, t("madeOf")), h("p", { class: "soft" }, t("madeOfNote")),
    found ? [h("p", {}, t(certain(found.completeness) ? "craftSays" : "craftUnsure", { target: found.target, layer: found.layer, p: percent(found.completeness.mean), low: percent(found.completeness.low), high: percent(found.completeness.high) })),
      h("div", { class: "concept-parts" }, found.parts.map((part) => h("article", { class: `finding ${part.unstable ? "is-unstable" : ""}` }, h("h3", {}, t("partNumber", { n: part.part + 1 })), h("p", { class: "meta" }, t("importanceIs", { p: percent(part.importance.mean), low: percent(part.importance.low), high: percent(part.importance.high) })),
        h("div", { class: "shots" }, part.pictures.map((one, i) => (one.id && part.boxes?.[i] ? h("button", { type: "button", class: "shot", title: one.name, "aria-label": `${t("openPicture")} ${one.name}`, onclick: () => set({ picture: one.id, tab: "decide" }) }, h("img", { src: ours(`/api/piece?picture=${one.id}&box=${part.boxes[i].join(",")}`), alt: "", loading: "lazy" })) : shot(one)))),
        part.unstable ? h("p", { class: "warning" }, t("unstablePart", { s: number(part.stability, 2) })) : null,
        part.channels?.length ? h("p", { class: "chips" }, part.channels.slice(0, 4).map(([channel, weight]) => h("button", { type: "button", class: "chip", onclick: () => set({ unit: `${found.layer}:${channel}`, layer: found.layer }) }, channel, h("small", {}, ` ${weight.toFixed(2)}`)))) : null))),
      found.doubts?.map((one) => h("p", { class: "soft" }, told(one)))] : null, run);
}

function depends(found, given, again) {
  const tags = Object.entries(given.tags).filter(([, n]) => n >= 10);
  const chosen = h("select", { "aria-label": t("tagWord") }, tags.map(([name, n]) => h("option", { value: name }, `${name} (${n})`)));
  const target = h("input", { list: "classes-made", placeholder: t("classWord"), "aria-label": t("classWord"), value: app.reading?.classes?.[0]?.label ?? "" });
  const run = tags.length ? h("div", { class: "bar" }, chosen, target, worker("tcav", t("tcavNow"), () => ({ tags: [chosen.value], target: target.value || null }), again)) : h("p", { class: "soft" }, t("noTags"));
  return h("section", {}, h("h2", {}, t("dependsOn")), h("p", { class: "soft" }, t("dependsOnNote")),
    found ? [found.rows.length ? h("div", { class: "scroll" }, h("table", {}, h("tr", {}, [t("layer"), t("conceptWord"), t("classWord"), t("tcavScore"), "p"].map((word) => h("th", {}, word))),
      found.rows.map((row) => h("tr", {}, h("td", {}, row.layer), h("td", {}, row.concept), h("td", {}, row.target), h("td", {}, `${number(row.score, 2)} [${number(row.low, 2)}, ${number(row.high, 2)}]`), h("td", {}, number(row.p, 2)))))) : h("p", {}, t("noDirection")),
    [...found.refused, ...found.doubts].map((one) => h("p", { class: "soft" }, told(one)))] : null, run);
}

/** What is known of one unit, for its card. */
export async function conceptsOfUnit(unit) {
  const found = await get("/api/improve/concepts", { unit });
  const parts = [];
  if (found.dissection.length) parts.push(h("section", { class: "unit-concepts" }, h("h3", {}, t("liesOn")), h("ul", {}, found.dissection.map((row) => h("li", {}, h("b", {}, row.concept), ` ${number(row.iou, 2)} [${number(row.low, 2)}, ${number(row.high, 2)}]`, h("span", { class: "soft" }, ` · ${t("chanceShort", { c: number(row.chance, 2) })}`))))));
  else if (found.looked) parts.push(h("p", { class: "soft" }, t("liesOnNothing")));
  if (found.craft.length) parts.push(h("section", {}, h("h3", {}, t("inParts")), h("p", {}, found.craft.map((one) => `${one.target} · ${t("partNumber", { n: one.part + 1 })} (${one.weight.toFixed(2)})`).join(", "))));
  if (found.tcav.length) parts.push(h("section", {}, h("h3", {}, t("inDirections")), h("p", {}, found.tcav.map((one) => `${one.concept} → ${one.target} (${one.weight.toFixed(2)})`).join(", "))));
  return parts;
}
