// A map over a photo that need not be the chosen one: for lists, pairs of networks, the camera.
import { get, npy } from "./api.js";
import { overlay, scaled, table } from "./colour.js";
import { h } from "./dom.js";
import { told } from "./i18n.js";

/** A photo as ImageData, small ones enlarged by a whole factor. */
export async function photoOf(id, side = 320) {
  const image = new Image();
  image.src = `/api/pictures/${id}/photo?side=${side}`;
  await image.decode();
  const longer = Math.max(image.naturalWidth, image.naturalHeight);
  const grow = longer < 160 ? Math.ceil(160 / longer) : 1;
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * grow; canvas.height = image.naturalHeight * grow;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return { image: context.getImageData(0, 0, canvas.width, canvas.height), sharp: grow > 1 };
}

/** What a network makes of a picture by one method: `api` is "" or "/b". */
export async function mapOf(api, picture, method, target = "", against = "") {
  const found = await get(`${api}/api/explain`, { picture, methods: method, target, against });
  const about = found.maps[0];
  if (!about) throw new Error(told(Object.values(found.refused)[0] ?? "–"));
  return { found, about, array: await npy(api + about.values) };
}

/** One scale for maps that are compared. */
export function shared(abouts) {
  const scales = abouts.map((one) => one.scale);
  const signed = scales.some((one) => one.signed);
  const high = Math.max(...scales.map((one) => one.high));
  return { ...scales[0], signed, high, low: signed ? -high : Math.min(...scales.map((one) => one.low)) };
}

/** Draw a map over a photo into a canvas. */
export async function paintMap(canvas, base, one, details, scale = one.about.scale, opacity = null) {
  const colours = await table(scale.cmap || one.about.scale.cmap);
  const { width, height } = base.image;
  const matrix = scaled(one.found.input_to_photo, width / details.width, height / details.height);
  const alone = one.about.pixels && opacity === null;
  canvas.width = width; canvas.height = height;
  canvas.getContext("2d").putImageData(overlay(base.image, one.array.data, one.array.shape, matrix, scale, colours, { mode: alone ? "alone" : "over", opacity: opacity ?? 0.75, sharp: base.sharp }), 0, 0);
  return canvas;
}

export function plain(canvas, base) {
  canvas.width = base.image.width; canvas.height = base.image.height;
  canvas.getContext("2d").putImageData(base.image, 0, 0);
  return canvas;
}

export const sheet = (label) => h("canvas", { class: "pixels", role: "img", "aria-label": label });
