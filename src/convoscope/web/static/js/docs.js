// Reads /openapi.json and shows it: every endpoint with its parameters, body and answers, and a way to try it.
import { fill, h } from "./dom.js";

const root = document.getElementById("docs");
// docstrings mark names with double backticks
const api = JSON.parse((await (await fetch("/openapi.json")).text()).replaceAll("``", ""));

const named = (ref) => api.components.schemas[ref.split("/").at(-1)];

/** A schema in a few words: string, integer 1..500, Picture, list of Layer, "a" | "b". */
function words(schema) {
  if (!schema || !Object.keys(schema).length) return "anything";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.allOf) return schema.allOf.map(words).join(" and ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${words(schema.items)}`;
  const limits = [];
  if (schema.minimum !== undefined || schema.maximum !== undefined) limits.push(`${schema.minimum ?? ""}..${schema.maximum ?? ""}`);
  if (schema.maxLength) limits.push(`up to ${schema.maxLength} characters`);
  if (schema.pattern) limits.push(schema.pattern);
  return [schema.type ?? "object", schema.format, ...limits].filter(Boolean).join(" ");
}

function fields(schema, seen = new Set()) {
  const whole = schema?.$ref ? named(schema.$ref) : schema;
  if (!whole?.properties || seen.has(whole)) return null;
  return h("table", {}, h("tbody", {}, Object.entries(whole.properties).map(([name, one]) => h("tr", {}, h("td", {}, h("code", {}, name)), h("td", {}, words(one), one.default !== undefined && one.default !== null && one.default !== "" ? ` (default ${JSON.stringify(one.default)})` : ""), h("td", {}, one.description ?? "")))));
}

function operation(path, verb, about) {
  const parameters = about.parameters ?? [];
  const body = about.requestBody?.content;
  const answer = Object.entries(about.responses).find(([code]) => code.startsWith("2"));
  const kinds = Object.entries(answer?.[1].content ?? {});
  return h("details", { class: "operation", id: about.operationId }, h("summary", {}, h("span", { class: "verb" }, verb.toUpperCase()), h("span", { class: "path" }, path), h("span", { class: "soft" }, (about.description ?? about.summary ?? "").split("\n")[0])),
    h("div", {}, h("p", {}, about.description ?? ""),
      parameters.length ? h("section", {}, h("h3", {}, "Parameters"), h("table", {}, h("tbody", {}, parameters.map((one) => h("tr", {}, h("td", {}, h("code", {}, one.name), one.required ? " *" : ""), h("td", {}, words(one.schema), one.schema?.default !== undefined && one.schema.default !== null ? ` (default ${JSON.stringify(one.schema.default)})` : ""), h("td", {}, one.description ?? one.schema?.description ?? "")))))) : null,
      body ? h("section", {}, h("h3", {}, "Body"), Object.entries(body).map(([kind, content]) => [h("p", {}, h("code", {}, kind), ` ${words(content.schema)}`), fields(content.schema)])) : null,
      h("section", {}, h("h3", {}, `Answer ${answer?.[0] ?? ""}`), kinds.map(([kind, content]) => [h("p", {}, h("code", {}, kind), ` ${words(content.schema)}`), fields(content.schema?.items ?? content.schema)])),
      verb === "get" ? trial(path, parameters) : null));
}

/** Ask the server for this address, and show what it says. */
function trial(path, parameters) {
  const query = parameters.filter((one) => one.in === "query" && one.required).map((one) => `${one.name}=`).join("&");
  const input = h("input", { "aria-label": "Address", value: path + (query ? `?${query}` : "") });
  const out = h("div", { class: "answer", "aria-live": "polite" });
  const run = async (event) => {
    event.preventDefault();
    if (!input.value.startsWith("/")) return;
    const response = await fetch(input.value);
    const kind = response.headers.get("content-type") ?? "";
    if (kind.startsWith("image/")) fill(out, h("img", { alt: "", src: URL.createObjectURL(await response.blob()) }));
    else if (kind.includes("json")) fill(out, h("pre", {}, `${response.status}\n${JSON.stringify(await response.json(), null, 2).slice(0, 20000)}`));
    else fill(out, h("pre", {}, `${response.status} ${kind}, ${(await response.arrayBuffer()).byteLength} bytes`));
  };
  return h("form", { class: "try", onsubmit: run }, input, h("button", { type: "submit" }, "Ask"), out);
}

const groups = new Map();
for (const [path, verbs] of Object.entries(api.paths)) {
  for (const [verb, about] of Object.entries(verbs)) {
    const tag = about.tags?.[0] ?? "other";
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(operation(path, verb, about));
  }
}
fill(root, h("h1", {}, `${api.info.title} ${api.info.version}: the API`), h("p", {}, api.info.description), h("p", { class: "soft" }, h("a", { href: "/" }, "To the page"), " · ", h("a", { href: "/openapi.json" }, "openapi.json")),
  [...groups].map(([tag, operations]) => h("section", { class: "group" }, h("h2", {}, tag), operations)));
