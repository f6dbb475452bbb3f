// Questions to the server: JSON, arrays, long work.

import { t, told } from "./i18n.js";

export class Refusal extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

const offline = () => Object.assign(new Refusal(t("offline"), 0), { offline: true });

async function answer(response) {
  if (response.ok) return response;
  let detail = `${response.status} ${response.statusText}`;
  try { detail = (await response.json()).detail ?? detail; } catch { /* no JSON: the status must do */ }
  throw new Refusal(told(typeof detail === "string" ? detail : JSON.stringify(detail)), response.status);
}

export async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw offline();
  }
  return answer(response);
}

function address(path, query = {}) {
  const pairs = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (Array.isArray(value)) value.forEach((one) => pairs.append(key, one));
    else if (value !== undefined && value !== null && value !== "") pairs.set(key, value);
  }
  const text = pairs.toString();
  return text ? `${path}?${text}` : path;
}

export async function get(path, query, signal) {
  return (await ask(address(path, query), { signal })).json();
}

export async function post(path, body) {
  const response = await ask(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  return response.json();
}

export async function upload(file) {
  const response = await ask(address("/api/pictures", { name: file.name || "pasted.png" }), {
    method: "POST", headers: { "content-type": "application/octet-stream" }, body: file,
  });
  return response.json();
}

const arrays = new Map();
const ROOM = 96 << 20;
let used = 0;

/** A .npy file as {shape, data}: fetched once, kept while there is room, so that hovering asks nobody. */
export function npy(url, signal) {
  if (!arrays.has(url)) {
    const promise = ask(url, { signal }).then((r) => r.arrayBuffer()).then((buffer) => {
      used += buffer.byteLength;
      const array = parse(buffer);
      for (const [old] of arrays) {
        if (used <= ROOM || old === url) break;
        arrays.get(old).then((gone) => { used -= gone.data.byteLength; }, () => {});
        arrays.delete(old);
      }
      return array;
    });
    promise.catch(() => arrays.delete(url));
    arrays.set(url, promise);
  }
  return arrays.get(url);
}

/** Bytes of a .npy file: little-endian floats and integers in C order. */
export function parse(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x93 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("This is no .npy file.");
  const view = new DataView(buffer);
  const wide = bytes[6] >= 2;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = (wide ? 12 : 10) + length;
  const header = new TextDecoder("latin1").decode(bytes.subarray(wide ? 12 : 10, start));
  const kind = /'descr':\s*'([^']+)'/.exec(header)[1];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)[1].split(",").map((part) => part.trim()).filter(Boolean).map(Number);
  const types = { "<f4": Float32Array, "<f8": Float64Array, "|u1": Uint8Array, "<i4": Int32Array };
  if (!types[kind] || header.includes("'fortran_order': True")) throw new Error(`An array of ${kind} cannot be read here.`);
  return { shape, data: new types[kind](buffer.slice(start)) };
}

/** A data: URI of a .npy file. */
export function inline(uri) {
  const bytes = Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (c) => c.charCodeAt(0));
  return parse(bytes.buffer);
}

/** Put long work in line and follow it. `told` hears of progress and pictures. Resolves with the result. */
export function job(request, told = {}) {
  const work = { id: null, cancelled: false, source: null };
  work.cancel = async () => {
    work.cancelled = true;
    if (work.id) await ask(`/api/jobs/${work.id}`, { method: "DELETE" }).catch(() => {});
  };
  work.done = (async () => {
    const started = await post("/api/jobs", request);
    work.id = started.id;
    if (work.cancelled) await work.cancel();
    told.state?.(started);
    return follow(work, told);
  })();
  return work;
}

function follow(work, told) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/api/jobs/${work.id}/events`);
    work.source = source;
    source.addEventListener("progress", (event) => told.progress?.(JSON.parse(event.data)));
    source.addEventListener("frame", (event) => told.frame?.(JSON.parse(event.data)));
    source.addEventListener("state", (event) => {
      const now = JSON.parse(event.data);
      told.state?.(now);
      if (now.progress) told.progress?.(now.progress);
      if (now.state === "done") { source.close(); resolve(now.result); }
      if (now.state === "cancelled") { source.close(); reject(Object.assign(new Refusal(t("stopped"), 0), { cancelled: true, result: now.result })); }
      if (now.state === "failed") { source.close(); reject(new Refusal(now.error ? told(now.error) : t("error"), 0)); }
    });
    let misses = 0;
    source.onopen = () => { misses = 0; };
    source.onerror = () => {
      misses += 1;
      // the browser tries again by itself, for ever: a server that is gone has forgotten the job
      if (source.readyState === EventSource.CLOSED) { source.close(); reject(new Refusal(t("jobLost"), 0)); }
      else if (misses > 2) { source.close(); reject(offline()); }
    };
  });
}
