// What is looked at: kept in the address, so that a link shows the same view, and told to whoever listens.

const DEFAULTS = {
  model: "", picture: "", target: "", against: "", methods: "", layer: "", unit: "", tab: "decide",
  tiles: "activation", order: "strength", like: "", scale: "own", off: "", set: "",
  map: "tsne", colour: "label", thumbs: "", opacity: "", mask: "", region: "", lasso: "",
  part: "findings", finding: "", spot: "",
  view: "map", search: "", label: "", prediction: "", right: "", low: "", high: "", suspected: "", duplicate: "", tag: "", noted: "", removed: "", alike: "", sort: "name", mapLayer: "",
  present: "", blocks: "",
};
// what stands for a key that an address does not name: the network's own methods and layer, the first picture
let usual = {};

export const state = { ...DEFAULTS };
const listeners = [];

export function read() {
  const given = new URLSearchParams(location.search);
  for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) || usual[key] || DEFAULTS[key];
}

/** What an address means where it names nothing; the present address is completed, so that Back finds it whole. */
export function setUsual(values) {
  usual = values;
  for (const [key, value] of Object.entries(usual)) if (!state[key]) state[key] = value;
  history.replaceState(null, "", link());
}

/** The address of this view; with changes, of another. */
export function link(changes = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...changes })) {
    if (value !== DEFAULTS[key]) query.set(key, value);
  }
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return location.pathname + (text ? `?${text}` : "");
}

/** Change what is looked at. `replace` leaves no step in the history (sliders, drags). */
export function set(changes, replace = false) {
  const changed = Object.keys(changes).filter((key) => String(changes[key] ?? "") !== state[key]);
  if (!changed.length) return;
  for (const key of changed) state[key] = String(changes[key] ?? "");
  history[replace ? "replaceState" : "pushState"](null, "", link());
  tell(changed);
}

/** Hear of changes of some keys (all: "*"). */
export function on(keys, listener) {
  listeners.push([new Set(keys === "*" ? Object.keys(DEFAULTS) : keys.split(" ")), listener]);
}

function tell(changed) {
  for (const [keys, listener] of listeners) {
    const mine = changed.filter((key) => keys.has(key));
    if (mine.length) listener(mine);
  }
}

window.addEventListener("popstate", () => {
  const before = { ...state };
  read();
  tell(Object.keys(DEFAULTS).filter((key) => before[key] !== state[key]));
});

export const list = (key) => (state[key] ? state[key].split(",").filter(Boolean) : []);

// what the person prefers is theirs, not the view's
export const prefer = {
  get: (key, otherwise) => { try { return localStorage.getItem(`convoscope-${key}`) ?? otherwise; } catch { return otherwise; } },
  set: (key, value) => { try { localStorage.setItem(`convoscope-${key}`, value); } catch { /* a private window */ } },
};
