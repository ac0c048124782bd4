/* Samples of a training in the order of its steps: a strip for each prompt, all of one seed. */

import { h, reconcile, replace } from "../dom.js";
import { artifactPicture } from "./still-picture.js";
import { look } from "./viewer.js";

const SIDE = 144;

export class FilmStrip extends HTMLElement {
  /** `artifacts` of the role `sample`, in any order. */
  show(artifacts) {
    const strips = [...Map.groupBy(artifacts.filter((each) => each.metadata.step), (each) => each.metadata.prompt)];
    reconcile(this, strips, {
      key: ([prompt]) => prompt,
      make: ([prompt, [first]]) => h("figure", { class: "strip" },
        h("figcaption", {}, h("q", {}, prompt), ` seed ${first.metadata.seed}`), h("ol", {})),
      update: (strip, [, samples]) => this.fill(strip.lastElementChild, samples),
    });
  }

  fill(list, samples) {
    const ordered = samples.toSorted((a, b) => a.metadata.step - b.metadata.step);
    const atEnd = list.scrollLeft + list.clientWidth >= list.scrollWidth - SIDE;
    reconcile(list, ordered, {
      key: (sample) => sample.id,
      make: (sample) => h("li", {}, frame(sample, () => look(list.samples, sample.id))),
    });
    list.samples = ordered;
    if (atEnd) list.scrollLeft = list.scrollWidth;
  }
}
customElements.define("film-strip", FilmStrip);

function frame(sample, open) {
  const button = h("button", { type: "button", class: "frame", onclick: open });
  replace(button, artifactPicture(sample.id, `Sample at step ${sample.metadata.step}`, SIDE),
    h("span", {}, `step ${sample.metadata.step}`));
  return button;
}
