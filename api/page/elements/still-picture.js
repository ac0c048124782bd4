/* A picture that needs the key: fetched when it comes near the view, scaled down to a canvas, and let
 * go of when it is far away, so that a long page holds few pixels. */

import { blob, comeBack } from "../api.js";
import { h } from "../dom.js";
import { tolerate } from "../live.js";

const AT_ONCE = 4; // of six connections that a browser opens to one host
const waiting = [];
let busy = 0;

const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) target.load();
    else target.release();
  }
}, { rootMargin: "400px" });

export class StillPicture extends HTMLElement {
  connectedCallback() {
    const alt = this.getAttribute("alt");
    this.canvas ||= h("canvas", alt ? { role: "img", "aria-label": alt } : { "aria-hidden": "true" });
    if (!this.firstChild) this.append(this.canvas);
    near.observe(this);
  }

  disconnectedCallback() {
    near.unobserve(this);
    this.release();
  }

  load() {
    if (this.loading) return;
    this.loading = new AbortController();
    waiting.push(this);
    startNext();
  }

  release() {
    this.loading?.abort();
    this.loading = null;
    this.canvas.width = this.canvas.height = 0;
  }

  async draw() {
    const { signal } = this.loading;
    const bitmap = await createImageBitmap(await blob(this.getAttribute("src"), signal));
    if (signal.aborted) return bitmap.close();
    const side = Number(this.getAttribute("side")) * devicePixelRatio;
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    this.canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    this.canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const pen = this.canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    bitmap.close();
  }

  /** After a failure: asks again, where that may help and somebody still looks. */
  async recover(error, signal) {
    if (!(await comeBack(error, signal))) return tolerate(error, signal);
    if (signal.aborted) return;
    waiting.push(this);
    startNext();
  }
}
customElements.define("still-picture", StillPicture);

function startNext() {
  while (busy < AT_ONCE && waiting.length) {
    const picture = waiting.shift();
    const signal = picture.loading?.signal;
    if (!signal) continue;
    busy += 1;
    picture.draw()
      .catch((error) => { picture.recover(error, signal); }) // which nobody waits for
      .finally(() => { busy -= 1; startNext(); });
  }
}

/** `side`: the longest that it is shown at, in CSS pixels. */
export function picture(src, alt, side) {
  return h("still-picture", { src, alt, side });
}

export function artifactPicture(artifact, alt, side) {
  return picture(`/v1/artifacts/${artifact}/content`, alt, side);
}

/** The whole of a picture, as an image that can be saved; its bytes are let go of with `signal`. */
export function wholePicture(artifact, alt, signal) {
  const image = h("img", { alt });
  blob(`/v1/artifacts/${artifact}/content`, signal)
    .then((bytes) => {
      image.src = URL.createObjectURL(bytes);
      signal.addEventListener("abort", () => URL.revokeObjectURL(image.src));
    })
    .catch((error) => tolerate(error, signal));
  return image;
}
