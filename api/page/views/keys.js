/* Keys: who may call. For administrators. */

import { Problem, all, post, remove } from "../api.js";
import { h, newId, reconcile, replace } from "../dom.js";
import { confirm, open } from "../elements/dialog.js";
import { signOut } from "../key.js";
import { once, tolerate } from "../live.js";
import { timeAgo } from "../words.js";

const SCOPES = ["read", "write", "admin"];

export async function show(view, { signal }) {
  view.append(h("header", { class: "top" }, h("h1", {}, "Keys"),
    h("button", { type: "button", onclick: signOut }, "Sign out")));
  const list = h("ul", { class: "files" });
  const load = async () => {
    const keys = await all("/v1/keys", {}, { signal });
    reconcile(list, keys, { key: (key) => key.id, make: (key) => row(key, load, signal) });
  };
  try {
    await load();
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 403) throw error;
    view.append(h("p", { class: "empty" },
      "Keys are made and deleted by an administrator: ask yours, or sign in with an admin key."));
    return;
  }
  view.append(creation(load, signal), list);
}

function creation(load, signal) {
  const id = newId("key");
  const name = h("input", { id: `${id}-name`, required: true, maxlength: 200 });
  const owner = h("input", { id: `${id}-owner`, maxlength: 200, placeholder: "you" });
  const scopes = SCOPES.map((scope) => h("input", { type: "checkbox", value: scope, checked: scope !== "admin" }));
  const problem = h("p", { class: "problem", role: "alert" });
  const create = once(async () => {
    replace(problem);
    const body = { name: name.value.trim(), owner: owner.value.trim() || null,
      scopes: scopes.filter((box) => box.checked).map((box) => box.value) };
    try {
      const made = await post("/v1/keys", body);
      name.value = owner.value = "";
      await showOnce(made);
      await load();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      replace(problem, error.message);
    }
  }, signal);
  const submit = (event) => {
    event.preventDefault();
    create();
  };
  return h("form", { class: "bar", "aria-label": "New key", onsubmit: submit },
    h("div", { class: "field" }, h("label", { for: name.id }, "Name"), name),
    h("div", { class: "field" }, h("label", { for: owner.id }, "Whose rows it sees"), owner),
    h("fieldset", { class: "scopes" }, h("legend", {}, "What it may do"),
      scopes.map((box) => h("label", { class: "check" }, box, box.value))),
    h("button", { class: "primary" }, "Create key"), problem);
}

function showOnce({ name, key }) {
  return open(`The key ${name}`, () => {
    if (!key) {
      return h("p", {}, "The answer that held it got lost, and it is told once: delete it and create another.");
    }
    const field = h("input", { readonly: true, value: key, "aria-label": "The key", class: "token" });
    const copied = h("span", { role: "status" });
    const copy = async () => {
      field.select();
      if (navigator.clipboard) await navigator.clipboard.writeText(key);
      replace(copied, navigator.clipboard ? "Copied" : "Selected: copy it by hand"); // plain HTTP has no clipboard
    };
    return [
      h("p", {}, "It is shown this once. Keep it where secrets are kept."), field,
      h("div", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: copy }, "Copy"),
        copied),
    ];
  });
}

function row(key, load, signal) {
  const drop = async () => {
    try {
      if (!(await confirm(`Delete the key ${key.name}? It opens nothing from then on.`, "Delete it"))) return;
      await remove(`/v1/keys/${key.id}`);
      await load();
    } catch (error) {
      tolerate(error, signal);
    }
  };
  return h("li", {},
    h("span", {}, h("strong", {}, key.name), h("small", {}, `${key.owner} · ${key.scopes.join(", ")}`),
      h("small", {}, timeAgo(key.created_at))),
    h("button", { type: "button", "aria-label": `Delete ${key.name}`, onclick: drop }, "Delete"));
}
