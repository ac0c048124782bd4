/* Gallery: every picture that was drawn here, newest first. */

import { get, remove } from "../api.js";
import { h, reconcile, write } from "../dom.js";
import { confirm } from "../elements/dialog.js";
import { compare } from "../elements/image-compare.js";
import { artifactPicture } from "../elements/still-picture.js";
import { look } from "../elements/viewer.js";
import { guarded, every, tolerate } from "../live.js";
import { Pages } from "../pages.js";

const PAGE = 60;
const NEWEST = 20; // that each refresh asks for
const SIDE = 224;
const REFRESH_SECONDS = 5;

export async function show(view, { signal }) {
  const gallery = new Gallery(signal);
  view.append(...gallery.parts());
  await gallery.more();
  every(REFRESH_SECONDS, () => gallery.refresh(), signal);
}

class Gallery {
  constructor(signal) {
    this.signal = signal;
    this.role = "image";
    this.pages = new Pages((cursor) => this.page({ cursor }), (items) => this.take(items));
    this.pictures = [];
    this.chosen = [];
  }

  clear() {
    this.pictures = [];
    this.pages.reset();
  }

  parts() {
    this.grid = h("ul", { class: "tiles" });
    this.empty = h("p", { class: "empty", hidden: true }, "Nothing was drawn yet. ",
      h("a", { href: "#/new/generate" }, "Draw a picture"));
    this.comparing = h("button", { type: "button", disabled: true, onclick: () => compare(...this.chosen) },
      "Compare two");
    const samples = h("input",
      { type: "checkbox", id: "samples", onchange: () => this.choose(samples.checked ? "sample" : "image") });
    this.end = h("div", { class: "end" });
    this.watch = new IntersectionObserver((entries) => entries.at(-1).isIntersecting
      && this.more().catch((error) => tolerate(error, this.signal)), { rootMargin: "800px" });
    this.signal.addEventListener("abort", () => this.watch.disconnect());
    return [
      h("header", { class: "top" }, h("h1", {}, "Gallery"),
        h("div", { class: "actions" }, h("label", { class: "check", for: "samples" }, samples,
          "Samples of trainings"), this.comparing)),
      this.empty, this.grid, this.end,
    ];
  }

  choose(role) {
    this.role = role;
    this.clear();
    this.more().catch((error) => tolerate(error, this.signal));
  }

  async page(query) {
    return get("/v1/artifacts", { kind: "image", role: this.role, limit: PAGE, ...query }, this.signal);
  }

  async more() {
    await this.pages.more();
    this.render();
    this.watchEnd();
  }

  /** Anew after each page: an observer tells of a change alone, and on a tall screen there is none. */
  watchEnd() {
    this.watch.unobserve(this.end);
    if (this.pages.hasMore) this.watch.observe(this.end);
  }

  async refresh() {
    const { role } = this;
    const { items } = await this.page({ limit: NEWEST });
    if (role !== this.role) return;
    if (this.isBeyondAll(items)) {
      this.clear();
      return this.more();
    }
    this.take(items);
    this.render();
  }

  /** Whether more came since the last look than a refresh asks for: some lie between, unseen. */
  isBeyondAll(items) {
    return items.length === NEWEST && !items.some(({ id }) => this.pictures.some((each) => each.id === id));
  }

  take(items) {
    const known = new Set(this.pictures.map((each) => each.id));
    this.pictures.push(...items.filter((each) => !known.has(each.id) && each.role === this.role));
    this.pictures.sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  render() {
    this.empty.hidden = this.pictures.length > 0;
    reconcile(this.grid, this.pictures, { key: (each) => each.id, make: (each) => this.tile(each),
      update: (tile, each) => this.mark(tile, each) });
    const left = 2 - this.chosen.length;
    this.comparing.disabled = left > 0;
    write(this.comparing, left === 2 ? "Compare two" : left === 1 ? "Choose one more" : "Compare these two");
  }

  tile(picture) {
    const { prompt, seed, step } = picture.metadata;
    const box = h("input", { type: "checkbox", "aria-label": `Compare: ${prompt}, seed ${seed}`,
      onchange: () => this.pick(picture, box.checked) });
    return h("li", {},
      h("button", { type: "button", class: "frame", title: prompt, onclick: () => this.open(picture) },
        artifactPicture(picture.id, `${prompt}, seed ${seed}`, SIDE), h("span", {}, prompt)),
      h("label", { class: "pick" }, box, h("span", {}, step ? `step ${step}` : `seed ${seed}`)));
  }

  mark(tile, picture) {
    tile.querySelector("input").checked = this.chosen.some((each) => each.id === picture.id);
  }

  /** The two that were chosen last. */
  pick(picture, isChosen) {
    const others = this.chosen.filter((each) => each.id !== picture.id);
    this.chosen = isChosen ? [...others, picture].slice(-2) : others;
    this.render();
  }

  open(picture) {
    return look(this.pictures, picture.id, (artifact, close) => [
      artifact.role === "image"
        && h("a", { class: "button primary", href: `#/new/generate?picture=${artifact.id}`,
        onclick: () => close(null) }, "Use these settings"),
      h("button", { type: "button", onclick: guarded(() => this.remove(artifact, close), this.signal) }, "Delete"),
    ]);
  }

  async remove(artifact, close) {
    if (!(await confirm("Delete this picture?", "Delete it"))) return;
    await remove(`/v1/artifacts/${artifact.id}`);
    this.pictures = this.pictures.filter((each) => each.id !== artifact.id);
    this.chosen = this.chosen.filter((each) => each.id !== artifact.id);
    close(null);
    this.render();
  }
}
