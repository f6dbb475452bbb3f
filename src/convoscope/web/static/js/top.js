// The line at the top: which network, how many layers, how good; link, language, theme, help.
import { app, say, tell } from "./app.js";
import { fill, h, percent } from "./dom.js";
import { lang, speak, t, told } from "./i18n.js";
import { turnTheme } from "./main.js";
import { link } from "./state.js";
import { openHelp } from "./about.js";
import { present } from "./present.js";

/** 463 k, 25.6 M; in Korean by ten thousands: 약 46만 3천, 약 2,560만. */
function large(n) {
  if (lang() !== "ko") return n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e3 ? `${(n / 1e3).toFixed(0)} k` : String(n);
  if (n < 1e4) return n.toLocaleString("ko");
  const thousands = Math.round(n / 1e3);
  const tens = Math.floor(thousands / 10);
  const rest = thousands % 10;
  const many = tens >= 1e4 ? `${Math.floor(tens / 1e4)}억 ${(tens % 1e4).toLocaleString("ko")}만` : `${tens.toLocaleString("ko")}만`;
  return `약 ${many}${rest && tens < 1000 ? ` ${rest}천` : ""} `;
}

export function drawTop() {
  const model = app.model;
  const survey = model.survey;
  const facts = [
    model.classes ? t("classesCount", { n: model.classes.length }) : null,
    t("layersCount", { n: model.layers }),
    t("parameters", { n: large(model.parameters) }),
    survey?.accuracy != null ? t("accuracy", { p: percent(survey.accuracy), n: survey.labelled }) : null,
  ].filter(Boolean);
  const skip = document.querySelector(".skip");
  if (skip) skip.textContent = t("skipLink");
  fill(document.getElementById("top"),
    h("h1", {}, h("a", { href: "/", class: "brand" }, "convoscope"), h("span", { class: "dot", "aria-hidden": "true" }, "·"),
      h("span", { class: "model" }, model.name)),
    h("p", { class: "facts" }, facts.join(" · ")),
    model.notes.map((note) => h("p", { class: "note warning" }, told(note))),
    h("div", { class: "tools" },
      h("button", { type: "button", onclick: () => say("tour") }, t("tour")),
      h("button", { type: "button", class: "wide", title: t("presentTitle"), onclick: present }, t("presenter")),
      h("button", { type: "button", title: t("link"), onclick: copy }, t("linkShort")),
      h("button", { type: "button", title: lang() === "en" ? "한국어" : "English", lang: lang() === "en" ? "ko" : "en",
        onclick: () => { speak(lang() === "en" ? "ko" : "en"); say("language"); } }, lang() === "en" ? "한" : "EN"),
      h("button", { type: "button", title: t("theme"), "aria-label": t("theme"), onclick: turnTheme }, "◐"),
      h("a", { class: "button wide", href: "/docs", title: "OpenAPI" }, t("docs")),
      h("button", { type: "button", title: t("help"), "aria-label": t("help"), onclick: openHelp }, "?")));
}

async function copy() {
  const url = location.origin + link();
  try {
    await navigator.clipboard.writeText(url);
    tell(t("copied"));
  } catch {
    tell(url);
  }
}
