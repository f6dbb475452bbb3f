// Tags and notes on pictures and units: kept with the collection, undone one by one.
import { get, post } from "./api.js";
import { failed, say, tell } from "./app.js";
import { fill, h } from "./dom.js";
import { t } from "./i18n.js";

/** A block to note something of one picture or unit. */
export function notesOf(about) {
  const node = h("section", { class: "notes-block" });
  get("/api/collection/marks", { about }).then((found) => draw(node, about, found), () => {});
  return node;
}

function draw(node, about, found) {
  const mark = found.of ?? { tags: [], note: "", removed: false };
  const note = h("textarea", { rows: 2, maxlength: 2000, "aria-label": t("noteWord"), placeholder: t("noteWord"), onchange: () => send(node, about, "note", note.value) });
  note.value = mark.note;
  const input = h("input", { list: "all-tags", maxlength: 60, placeholder: t("addTag"), "aria-label": t("addTag"), onkeydown: (event) => { if (event.key === "Enter" && input.value.trim()) { event.preventDefault(); send(node, about, "tag", input.value); } } });
  fill(node, h("h3", {}, t("tagsAndNotes"), found.kept ? null : h("span", { class: "soft" }, ` · ${t("notKept")}`)),
    h("p", { class: "chips" }, mark.tags.map((tag) => h("button", { type: "button", class: "chip", title: t("takeTag", { tag }), "aria-label": t("takeTag", { tag }), onclick: () => send(node, about, "untag", tag) }, `${tag} ×`)), input,
      h("datalist", { id: "all-tags" }, Object.keys(found.tags).map((tag) => h("option", { value: tag })))),
    note, mark.removed ? h("p", { class: "warning" }, t("isRemoved")) : null);
}

async function send(node, about, kind, value) {
  try {
    draw(node, about, await post("/api/collection/marks", { kind, about: [about], value }));
    say("marks");
  } catch (error) { failed(error); }
}

/** Note something of many pictures at once; then it can be undone. */
export async function noteAll(kind, about, value = "", query = "") {
  try {
    const found = await post("/api/collection/marks", { kind, about, value, query });
    say("marks");
    return found;
  } catch (error) { failed(error); return null; }
}

export async function undoLast() {
  try {
    const found = await post("/api/collection/undo", {});
    tell(t("undone", { n: found.undone.count }));
    say("marks");
    return found;
  } catch (error) { failed(error); return null; }
}
