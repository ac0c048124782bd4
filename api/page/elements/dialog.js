/* Dialogs: the browser's own, which keep focus inside, close with Escape and give focus back. */

import { h, newId } from "../dom.js";

const toasts = document.getElementById("toasts");

/** Opens a dialog around what `fill` makes of a function that closes it with a value, and of the
 *  dialog; resolves to that value, null where it was dismissed. `stays`: whatever view is shown. */
export function open(title, fill, { wide = false, stays = false } = {}) {
  return new Promise((resolve) => {
    const heading = newId("title");
    let value = null;
    const close = (given) => { value = given; dialog.close(); };
    const dialog = h("dialog", { "aria-labelledby": heading, class: wide ? "wide" : "", "data-stays": stays },
      h("header", {}, h("h2", { id: heading }, title),
        h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => close(null) }, "×")));
    dialog.append(...[fill(close, dialog)].flat());
    dialog.addEventListener("close", () => {
      dialog.remove();
      raiseToasts();
      resolve(value);
    });
    document.body.append(dialog);
    dialog.showModal();
    raiseToasts();
  });
}

/** Into the topmost dialog: beneath it nothing can be read or dismissed. */
function raiseToasts() {
  const top = [...document.querySelectorAll("dialog")].at(-1) ?? document.body;
  top.append(toasts);
}

/** Those that belong to a view which is left: what they would do is meant for its rows. */
export function closeAll() {
  for (const dialog of [...document.querySelectorAll("dialog:not([data-stays])")].reverse()) dialog.close();
}

/** Whether somebody means it. `verb` is what the button says. */
export async function confirm(question, verb) {
  const answer = await open(question, (close) =>
    h("div", { class: "actions" },
      h("button", { type: "button", class: "danger", onclick: () => close(true) }, verb),
      h("button", { type: "button", autofocus: true, onclick: () => close(false) }, "Keep")));
  return answer === true;
}

/** A line of text, null where nothing was given. */
export function ask(title, label, value, { verb = "Save", type = "text" } = {}) {
  const id = newId("answer");
  return open(title, (close) => {
    const input = h("input", { id, type, value, required: true, autofocus: true, min: type === "number" ? 1
      : null });
    return h("form", { onsubmit: (event) => { event.preventDefault(); close(input.value); } },
      h("div", { class: "field" }, h("label", { for: id }, label), input),
      h("div", { class: "actions" }, h("button", { class: "primary" }, verb)));
  });
}
