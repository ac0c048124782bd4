/* What a job would take, in words, or why it would be refused. */

import { h, prose, replace } from "../dom.js";
import { bytes, duration } from "../words.js";

const BASIS = {
  measured: "as long as your last job of the same sort took",
  calibrated: "its steps alone, by other work of yours on this base",
  none: "nothing of yours was measured here yet",
};

export class EstimateBox extends HTMLElement {
  connectedCallback() {
    this.setAttribute("aria-live", "polite");
  }

  wait(text) {
    this.dataset.mood = "";
    replace(this, h("p", {}, text));
  }

  refuse(problem) {
    this.dataset.mood = "bad";
    replace(this, h("p", {}, prose(problem.message)));
  }

  show({ steps, seconds, basis, peak_memory_bytes: memory, disk_bytes: disk, fits }) {
    this.dataset.mood = fits ? "good" : "bad";
    const time = seconds === null ? "not known" : `about ${duration(seconds)}`;
    replace(this,
      h("dl", { class: "facts" },
        fact("Steps", steps.toLocaleString("en")), fact("Time", time, BASIS[basis]),
        fact("Memory", bytes(memory), fits ? "fits a device here" : "no device here holds it"),
          fact("Disk", `up to ${bytes(disk)}`)));
  }
}
customElements.define("estimate-box", EstimateBox);

function fact(name, value, help = "") {
  return [h("dt", {}, name), h("dd", {}, value, help && h("small", {}, help))];
}
