// Small helpers to build the page. No markup is ever made from strings: what comes from outside stays text.

// characters that turn the direction of text: a name with one of them reads as another name
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
/** What comes from outside, as it is shown: a mark in place of what turns its direction. */
export const upright = (text) => String(text).replace(TURNING, "\ufffd");

/** An element: h("button", {class: "x", onclick: f, "aria-label": "..."}, "text", child, ...) */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  assign(node, attributes);
  put(node, children);
  return node;
}

/** The same in SVG. */
export function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, upright(value));
  }
  put(node, children);
  return node;
}

const SHOWN = new Set(["title", "alt", "aria-label", "placeholder", "label"]);

function assign(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "value" || name === "checked" || name === "selected" || name === "disabled" || name === "open") node[name] = value;
    else node.setAttribute(name, value === true ? "" : SHOWN.has(name) ? upright(value) : value);
  }
}

function put(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child.nodeType ? child : document.createTextNode(upright(child)));
  }
}

/** Replace everything inside a node. */
export function fill(node, ...children) {
  node.replaceChildren();
  put(node, children);
  return node;
}

/** Redraw a part without losing the keyboard's place in it: what has the focus is found again by its data-key. */
export function keepFocus(node, redraw) {
  const active = document.activeElement;
  const key = node?.contains(active) ? active.dataset.key : null;
  redraw();
  if (key) node.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Run the latest call only, after a pause. */
export function debounce(work, pause = 120) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), pause);
  };
}

/** One at a time; what is asked meanwhile is asked once, with the latest arguments, when the first has ended. */
export function latest(work) {
  let busy = false;
  let next = null;
  return async function run(...given) {
    if (busy) { next = given; return; }
    busy = true;
    try { await work(...given); } finally {
      busy = false;
      if (next) { const again = next; next = null; run(...again); }
    }
  };
}

/** Numbers as the legends write them: three significant digits, a true minus sign. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    text = `${Number(mantissa)}×10${[...String(Number(exponent))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;
  } else {
    text = String(Number(value.toPrecision(digits)));
  }
  return text.replace(/^-/, "−").replace(/e-/, "e−");
}

/** A share as a whole percentage, or with one digit where it is small. */
export function percent(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const share = value * 100;
  return `${share !== 0 && Math.abs(share) < 10 ? share.toFixed(1) : share.toFixed(0)} %`.replace("-", "−");
}

let idCounter = 0;
export function uid(prefix = "x") {
  idCounter += 1;
  return `${prefix}-${idCounter}`;
}

/** A group of buttons of which one is chosen. */
export function choice(name, options, chosen, onchoose) {
  return h("div", { class: "choice", role: "group", "aria-label": name },
    options.map(([value, text, title]) => h("button", {
      type: "button", "aria-pressed": String(value === chosen), title, dataset: { value },
      onclick: () => onchoose(value),
    }, text)));
}
