// A button that starts long work, shows how far it is and how long it takes, and stops it.
import { get, job } from "./api.js";
import { failed } from "./app.js";
import { fill, h } from "./dom.js";
import { t, told } from "./i18n.js";

const running = new Map(); // key -> {work, at, listeners}

/** Work of a kind that goes on, also when its tab was left and drawn again. */
function begin(key, request) {
  const one = { at: null, listeners: new Set(), work: null };
  one.work = job(request, { progress: (at) => { one.at = at; for (const listener of one.listeners) listener(at); } });
  running.set(key, one);
  one.work.done.then(() => running.delete(key), () => running.delete(key));
  return one;
}

export const duration = (seconds) => (seconds < 90 ? t("left", { s: Math.ceil(seconds) }) : t("leftMinutes", { m: Math.round(seconds / 60) }));

/** A node with the button. `body()` gives the request's further fields; `done(result, work)` hears of the end. */
export function worker(kind, label, body, done, { main = false, key = kind, again = null } = {}) {
  const node = h("div", { class: "worker", dataset: { work: kind } });
  const follow = (one) => {
    const meter = h("progress", { "aria-label": label });
    const words = h("span", { class: "soft" });
    const show = (at) => {
      if (at?.total) { meter.max = at.total; meter.value = at.done; } else meter.removeAttribute("value");
      words.textContent = at ? [told(at.what ?? ""), at.total && at.done ? t("of", { done: at.done, total: at.total }) : "", at.left > 1 ? duration(at.left) : ""].filter(Boolean).join(" · ") : t("queued");
    };
    one.listeners.add(show);
    show(one.at);
    fill(node, h("div", { class: "work" }, meter, words, h("button", { type: "button", class: "small", onclick: () => one.work.cancel() }, t("cancel"))));
    one.work.done.then((result) => { idle(); if (node.isConnected) done(result, one.work); }, (error) => {
      idle();
      if (error.cancelled && node.isConnected) done(error.result, one.work);
      failed(error);
    });
  };
  const idle = () => fill(node, h("button", { type: "button", class: main ? "main" : "", onclick: () => follow(begin(key, { kind, ...body() })) }, again ?? label));
  if (running.has(key)) follow(running.get(key));
  else {
    idle();
    // another window may have started it
    get("/api/jobs").then((jobs) => {
      const found = jobs.findLast((one) => one.kind === kind && ["queued", "running"].includes(one.state));
      if (found && node.isConnected && !running.has(key) && key === kind) node.title = t("elsewhereRuns");
    }, () => {});
  }
  return node;
}
