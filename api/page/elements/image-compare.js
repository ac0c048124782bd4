/* Two pictures over each other, and a handle that uncovers one of them. */

import { h, set } from "../dom.js";
import { open } from "./dialog.js";
import { wholePicture } from "./still-picture.js";

export function compare(before, after) {
  const shown = new AbortController();
  return open("Compare", () => {
    const top = h("div", { class: "over" }, wholePicture(after.id, `Right: ${after.metadata.prompt}`,
      shown.signal));
    const uncover = () => set(top, { "clip-path": `inset(0 0 0 ${slider.value}%)` });
    const slider = h("input", { type: "range", min: 0, max: 100, value: 50,
      "aria-label": "Where the right picture begins", oninput: uncover });
    uncover();
    return [
      h("div", { class: "compare" }, wholePicture(before.id, `Left: ${before.metadata.prompt}`, shown.signal), top),
      slider,
      h("div", { class: "both" },
        [before, after].map(({ metadata }) => h("p", { class: "help" }, metadata.prompt, h("br"),
        `seed ${metadata.seed}`))),
    ];
  }, { wide: true }).finally(() => shown.abort());
}
