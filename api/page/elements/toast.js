/* A sentence that comes and goes; of something that went wrong, one that stays until it is read. */

import { h } from "../dom.js";

const SECONDS = 5;
const place = document.getElementById("toasts"); // wherever a dialog has taken it

export function toast(text) {
  const shown = add(text, "note");
  setTimeout(() => shown.remove(), SECONDS * 1000);
}

export function fail(error) {
  if ([...place.children].some((each) => each.dataset.text === error.message)) return;
  add(error.message, "bad");
}

function add(text, kind) {
  const shown = h("div", { class: `toast ${kind}`, "data-text": text }, h("p", {}, text),
    h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => shown.remove() }, "×"));
  place.append(shown);
  return shown;
}
