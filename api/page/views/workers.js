/* Workers: what computes, and taking a device out of service. */

import { all, post } from "../api.js";
import { h, reconcile, replace, write } from "../dom.js";
import { showState } from "../elements/job-row.js";
import { every, tolerate } from "../live.js";
import { bytes, duration, short } from "../words.js";

const REFRESH_SECONDS = 3;

export async function show(view, { signal }) {
  const list = h("ul", { class: "workers" });
  const empty = h("p", { class: "empty", hidden: true }, "No worker lives: jobs wait. Start one with ",
    h("code", {}, "stillroom serve"), " or, on a further host, ",
    h("code", {}, "stillroom worker --device cuda:0"), ".");
  view.append(h("header", { class: "top" }, h("h1", {}, "Workers")), empty, list);
  const refresh = async () => {
    const workers = await all("/v1/workers", {}, { signal });
    empty.hidden = workers.length > 0;
    reconcile(list, workers, { key: (worker) => worker.id, make: (worker) => card(worker, refresh, signal),
      update });
  };
  await refresh();
  every(REFRESH_SECONDS, refresh, signal);
}

function card(worker, refresh, signal) {
  const ask = (verb) => async () => {
    try {
      await post(`/v1/workers/${worker.id}/${verb}`);
      await refresh();
    } catch (error) {
      tolerate(error, signal);
    }
  };
  return h("li", { class: "worker" },
    h("h2", {}, worker.device), h("span", { class: "state" }), h("p", { class: "problem" }),
      h("dl", { class: "facts" }),
    h("div", { class: "actions" },
      h("button", { type: "button", "data-verb": "drain", "aria-label": `Drain ${worker.device}`,
        onclick: ask("drain") }, "Drain"),
      h("button", { type: "button", "data-verb": "release", "aria-label": `Release ${worker.device}`,
        onclick: ask("release") }, "Release")));
}

function update(element, worker) {
  const state = worker.state !== "open" ? worker.state : !worker.ready ? "starting" : worker.busy ? "running"
    : "idle";
  showState(element.querySelector(".state"), state);
  write(element.querySelector(".problem"), worker.reason || "");
  element.querySelector("[data-verb=drain]").hidden = worker.state !== "open";
  element.querySelector("[data-verb=release]").hidden = worker.state === "open";
  const rows = [
    ["Host", worker.host], ["Chip", worker.chip || "not told yet"],
      ["Memory", worker.memory_bytes && bytes(worker.memory_bytes)], ["Takes", worker.role],
    ["In memory", worker.resident.join(", ") || "nothing"], ["On its disk", worker.models.join(", ")],
    ["Runs", worker.job ? h("a", { href: `#/jobs/${worker.job}` }, `job ${short(worker.job)}`) : worker.busy
      ? "somebody else's job" : "nothing"],
    ["Last beat", `${duration(worker.beat_age_seconds)} ago`],
  ];
  reconcile(element.querySelector("dl"), rows.filter(([, value]) => value), {
    key: ([name, value]) => `${name} ${value instanceof Node}`,
    make: ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
    update: (row, [, value]) => tell(row.lastElementChild, value),
  });
}

function tell(place, value) {
  if (!(value instanceof Node)) write(place, value);
  else if (place.textContent !== value.textContent) replace(place, value);
}
