/* What was drawn from this form, newest first, beside it: to look, change a weight, and draw again. */

import { all, get, pause } from "../api.js";
import { h, replace, say, write } from "../dom.js";
import { once, tolerate } from "../live.js";
import { hasEnded } from "../words.js";
import { howFar } from "./job-row.js";
import { artifactPicture } from "./still-picture.js";
import { look } from "./viewer.js";

const LOOK_SECONDS = 0.5;
const SIDE = 320;
const KEPT = 12; // rounds

export class DrawnHere extends HTMLElement {
  /** `again` draws once more with a seed. */
  constructor(again) {
    super();
    this.again = again;
  }

  watch(job, signal) {
    const told = h("p", { class: "told" });
    const round = h("section", { class: "round", "aria-label": "Drawn" }, told);
    this.prepend(round);
    while (this.childElementCount > KEPT) this.lastElementChild.remove();
    this.follow(job, round, told, signal).catch((error) => tolerate(error, signal));
  }

  async follow(job, round, told, signal) {
    while (!hasEnded(job)) {
      write(told, howFar(job));
      await pause(LOOK_SECONDS, signal);
      if (signal.aborted) return;
      job = await get(`/v1/jobs/${job.id}`, {}, signal);
    }
    if (job.state !== "succeeded") return write(told, job.error?.detail || `It was ${job.state}.`);
    const pictures = await all(`/v1/jobs/${job.id}/artifacts`, {}, { signal });
    say(`${pictures.length} drawn`);
    replace(round,
      pictures.map((each) => h("button", { type: "button", class: "frame", onclick: () => look(pictures, each.id) },
        artifactPicture(each.id, each.metadata.prompt, SIDE))),
      h("p", { class: "told" }, `seed ${job.spec.seed}, ${howFar(job)}`),
      h("button", { type: "button", onclick: once(() => this.again(job.spec.seed), signal) },
        "Draw again with the same seed"));
  }
}
customElements.define("drawn-here", DrawnHere);
