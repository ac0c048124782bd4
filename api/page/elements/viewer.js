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
  let at = artifacts.findIndex((each) => each.id === id);
  let shown = new AbortController();
  const body = h("div", { class: "viewer" });
  const turn = (by) => {
    const next = artifacts[at + by];
    if (!next) return;
    at += by;
    draw();
  };
  let close;
  const draw = () => {
    shown.abort();
    shown = new AbortController();
    const artifact = artifacts[at];
    const facts = h("dl", { class: "facts" });
    replace(body,
      h("div", { class: "whole" }, wholePicture(artifact.id, artifact.metadata.prompt || artifact.name,
        shown.signal)),
      h("div", { class: "beside" }, facts,
        h("div", { class: "actions" },
          h("button", { type: "button", disabled: at === 0, onclick: () => turn(-1) }, "Previous"),
          h("button", { type: "button", disabled: at === artifacts.length - 1, onclick: () => turn(1) }, "Next"),
          h("button", { type: "button", onclick: guarded(() => download(artifact.id)) }, "Download"),
          more(artifact, close))));
    tellSettings(artifact, facts, close).catch((error) => tolerate(error, shown.signal));
  };
  const arrows = (event) => {
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  };
  return open("Picture", (closing, dialog) => {
    close = closing;
    draw();
    dialog.addEventListener("keydown", arrows);
    return body;
  }, { wide: true }).finally(() => shown.abort());
}

async function tellSettings(artifact, facts, close) {
  const { prompt, seed, step } = artifact.metadata;
  const spec = artifact.job ? (await getOnce(`/v1/jobs/${artifact.job}`)).spec : {};
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
