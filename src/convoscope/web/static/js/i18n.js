// Words in the person's language.
import en from "./strings/en.js";
import ko from "./strings/ko.js";
import { inKorean } from "./strings/server.js";
import { prefer } from "./state.js";

const words = { en, ko };
let language = prefer.get("language", (navigator.language || "en").startsWith("ko") ? "ko" : "en");
if (!words[language]) language = "en";
document.documentElement.lang = language;

export const lang = () => language;

export function speak(next) {
  language = words[next] ? next : "en";
  document.documentElement.lang = language;
  prefer.set("language", language);
}

/** What the server says, in the person's language where that is known: see strings/server.js. */
export const told = (sentence) => (language === "ko" ? inKorean(String(sentence)) : String(sentence));

/** What was asked, in words: a class against another is a phrase, everything else a name. */
export function askedWords(target) {
  const two = / rather than /.test(target) ? target.split(" rather than ") : null;
  return two?.length === 2 ? t("ratherThan", { one: two[0], other: two[1] }) : target;
}

/** "1 unit is off", "3 units are off": a language has as many forms as it has. */
export const offWords = (n) => t(n === 1 ? "oneOff" : "switchedOff", { n });

/** A phrase with its gaps filled: t("of", {done: 3, total: 9}). */
export function t(key, gaps = {}) {
  const phrase = words[language][key] ?? en[key] ?? key;
  return phrase.replace(/\{(\w+)\}/g, (whole, name) => (name in gaps ? gaps[name] : whole));
}
