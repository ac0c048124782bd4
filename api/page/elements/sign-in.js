/* Asks for the key, with the reason where one was refused. */

import { h } from "../dom.js";
import * as key from "../key.js";
import { open } from "./dialog.js";

let asking = null;

/** Until a key was given; several who ask at once are one question. */
export function signIn(reason) {
  asking ||= ask(reason).finally(() => { asking = null; });
  return asking;
}

async function ask(reason) {
  for (;;) {
    const given = await open("Your key", (close) => form(reason, close), { stays: true });
    if (!given) continue;
    if (key.isSendable(given.key)) return key.keep(given.key, given.always);
    reason = "A key has letters, digits and signs of plain ASCII, and no spaces: copy it whole, and nothing else.";
  }
}

function form(reason, close) {
  const input = h("input", {
    id: "key", type: "password", required: true, autofocus: true, autocomplete: "current-password",
    "aria-describedby": "key-help", spellcheck: "false",
  });
  const always = h("input", { id: "always", type: "checkbox" });
  const submit = (event) => {
    event.preventDefault();
    close({ key: input.value.trim(), always: always.checked });
  };
  return h("form", { onsubmit: submit },
    reason && h("p", { class: "problem", role: "alert" }, reason),
    h("div", { class: "field" }, h("label", { for: "key" }, "Key"), input,
      h("p", { id: "key-help", class: "help" },
        "The administrator's is the one line of ", h("code", {}, "admin.key"),
        " in the server's home; ", h("code", {}, "stillroom keys create NAME"), " makes others.")),
    h("label", { class: "check", for: "always" }, always, "Keep me signed in on this computer"),
    h("div", { class: "actions" }, h("button", { class: "primary" }, "Sign in")));
}
