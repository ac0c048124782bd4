/* A picture in full with what made it, one of several to go through with the arrow keys. */

import { download, getOnce } from "../api.js";
import { h, replace } from "../dom.js";
import { guarded, tolerate } from "../live.js";
import { figure, timeAgo } from "../words.js";
import { open } from "./dialog.js";
import { wholePicture } from "./still-picture.js";

/** Opens on `id`, one of `artifacts`. `more` makes further buttons for a picture; it gets a function
 *  that closes. */
export function look(artifacts, id, more = () => []) {
  artifacts = [...artifacts]; // a list that goes on while one looks would move what is next
  let at = artifacts.findIndex((each) => each.id === id);
  let shown = new AbortController();
  const whole = h("div", { class: "whole" });
  const facts = h("dl", { class: "facts" });
  const further = h("span", { class: "actions" });
  const turn = (by) => {
    const next = artifacts[at + by];
    if (!next) return;
    at += by;
    draw();
  };
  const previous = h("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const next = h("button", { type: "button", onclick: () => turn(1) }, "Next");
  let close;
  /** The buttons stay, so that the focus does: without it in the dialog, arrow keys reach nobody. */
  const draw = () => {
    shown.abort();
    shown = new AbortController();
    const { signal } = shown;
    const artifact = artifacts[at];
    replace(facts);
    replace(whole, wholePicture(artifact.id, artifact.metadata.prompt || artifact.name, signal));
    replace(further, more(artifact, close));
    setAside(previous, at === 0);
    setAside(next, at === artifacts.length - 1);
    tellSettings(artifact, facts, close, signal).catch((error) => tolerate(error, signal));
  };
  const arrows = (event) => {
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  };
  return open("Picture", (closing, dialog) => {
    close = closing;
    draw();
    dialog.addEventListener("keydown", arrows);
    const save = h("button", { type: "button", onclick: guarded(() => download(artifacts[at].id)) }, "Download");
    return h("div", { class: "viewer" }, whole,
      h("div", { class: "beside" }, facts, h("div", { class: "actions" }, previous, next, save, further)));
  }, { wide: true }).finally(() => shown.abort());
}

/** Not `disabled`, which would take the focus away. */
function setAside(button, isAside) {
  button.setAttribute("aria-disabled", isAside);
}

async function tellSettings(artifact, facts, close, signal) {
  const { prompt, seed, step } = artifact.metadata;
  const spec = artifact.job ? (await getOnce(`/v1/jobs/${artifact.job}`)).spec : {};
  if (signal.aborted) return;
  const drawn = artifact.role === "image" ? spec : spec.sample || {};
  const rows = [
    ["Prompt", prompt], ["Negative", drawn.negative_prompt], ["Seed", seed], ["Training step", step],
    ["Steps", drawn.steps], ["Guidance", drawn.guidance && figure(drawn.guidance)], ["Scheduler", drawn.scheduler],
    ["Size", drawn.width && `${drawn.width} × ${drawn.height}`], ["Base", artifact.base],
    ...(drawn.loras || []).map((lora) => ["LoRA", `${lora.artifact || lora.job}, weight ${figure(lora.weight)}`]),
    ["Made", timeAgo(artifact.created_at)],
    ["Job", artifact.job && h("a", { href: `#/jobs/${artifact.job}`, onclick: () => close(null) }, artifact.job)],
  ];
  replace(facts, rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value))]));
}
