/* One dataset: its pictures and captions, what is wrong with which, and more of them by drop. */

import { get, patch, remove, upload } from "../api.js";
import { h, newId, prose, reconcile, replace, say, write } from "../dom.js";
import { confirm } from "../elements/dialog.js";
import { dropZone } from "../elements/drop-zone.js";
import { picture } from "../elements/still-picture.js";
import { Uploads } from "../elements/uploads.js";
import { goOn, guarded, tolerate } from "../live.js";
import { Pages } from "../pages.js";
import { bytes, counted } from "../words.js";

const PAGE = 60;
const SIDE = 200;
const ACCEPT = "image/png,image/jpeg,image/webp,.txt,.jsonl,.zip";
const FORBIDDING = "no_caption"; // told of captioned datasets alone; all else is advice
const handed = new Map();

/** Files that were dropped before the dataset was there: its view sends them. */
export function handOver(id, files) {
  handed.set(id, files);
}

export async function show(view, { row, signal }) {
  const page = new DatasetPage(row, signal);
  await page.load();
  view.append(...page.parts());
  page.render();
  await page.more();
  const files = handed.get(row);
  handed.delete(row);
  if (files?.length) page.take(files);
}

class DatasetPage {
  constructor(id, signal) {
    this.path = `/v1/datasets/${id}`;
    this.signal = signal;
    this.images = [];
    this.pages = new Pages((cursor) => get(`${this.path}/images`, { limit: PAGE, cursor }, signal),
      (items) => this.add(items));
  }

  async load() {
    this.dataset = await get(this.path, {}, this.signal);
  }

  parts() {
    this.summary = h("p", { class: "help" });
    this.report = h("div", { class: "report" });
    this.zone = dropZone({
      label: "Add pictures", accept: ACCEPT, folders: true, take: (files) => this.take(files),
      help: "or drop pictures, folders, .txt captions, metadata.jsonl or zips here",
    });
    this.uploads = new Uploads();
    this.grid = h("ul", { class: "cards" });
    this.rest = h("button",
      { type: "button", hidden: true, onclick: guarded(() => this.more(), this.signal) }, "Show more");
    this.watch = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.rest.click(),
      { rootMargin: "600px" });
    this.signal.addEventListener("abort", () => this.watch.disconnect());
    const { dataset } = this;
    return [
      h("header", { class: "top" },
        h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/datasets" }, "Datasets")),
          h("h1", {}, dataset.name), this.summary),
        h("div", { class: "actions" },
          h("a", { class: "button primary", href: `#/new/fine_tune?dataset=${dataset.id}` }, "Train on it"),
          dataset.kind === "captioned"
            && h("a", { class: "button", href: `#/new/distill?dataset=${dataset.id}` }, "Distil with it"),
          h("button", { type: "button", onclick: guarded(() => this.remove(), this.signal) }, "Delete"))),
      this.report, this.zone, this.uploads, h("h2", { class: "visually-hidden" }, "Pictures"), this.grid, this.rest,
    ];
  }

  render() {
    const { dataset } = this;
    const frozen = dataset.frozen ? ". A job uses it: it cannot change any more" : "";
    write(this.summary, `${counted(dataset.images, "picture")}, ${bytes(dataset.bytes)}${frozen}`);
    this.zone.hidden = dataset.frozen;
    const { problems, suggestions } = dataset.report;
    replace(this.report,
      problems.map(({ detail }) => h("p", { class: "problem" }, prose(detail))),
      suggestions.map(({ detail }) => h("p", { class: "hint" }, prose(detail))));
    this.renderImages();
  }

  renderImages() {
    reconcile(this.grid, this.images, {
      key: (image) => image.id,
      make: (image) => this.card(image),
      update: (card, image) => this.updateCard(card, image),
    });
    this.rest.hidden = !this.pages.hasMore;
  }

  add(items) {
    this.images.push(...items.filter((image) => !this.images.some((known) => known.id === image.id)));
  }

  async more() {
    await this.pages.more();
    this.renderImages();
    this.watchEnd();
  }

  /** Anew after each page: an observer tells of a change alone, and on a tall screen there is none. */
  watchEnd() {
    this.watch.unobserve(this.rest);
    if (this.pages.hasMore) this.watch.observe(this.rest);
  }

  /** What is new after an upload, and captions that may have come with it. */
  async reload() {
    const shown = Math.max(PAGE, this.images.length);
    this.images = [];
    this.pages.reset();
    do await this.more(); while (this.pages.hasMore && this.images.length < shown);
    await this.load();
    this.render();
  }

  take(files) {
    const send = (some, tell) => upload(`${this.path}/images`, "files", some, tell);
    this.uploads.send(files, send)
      .then(() => this.reload())
      .then(() => say(`${counted(this.dataset.images, "picture")} are there`))
      .catch((error) => tolerate(error, this.signal));
  }

  /** Outlives its `image`: a reload brings others of the same id. */
  card(image) {
    const id = newId("caption");
    const caption = h("textarea", {
      id, rows: 2, maxlength: 4000, disabled: this.dataset.frozen,
      placeholder: this.dataset.kind === "captioned" ? "needs a caption" : "no caption",
      onchange: guarded(() => this.caption(image, caption), this.signal),
    });
    caption.value = image.caption ?? "";
    return h("li", { class: "card" },
      picture(`${this.path}/images/${image.id}?size=512`, image.caption || image.filename, SIDE),
      h("p", { class: "name" }, h("span", { title: image.filename }, image.filename),
        h("small", {}, `${image.width} × ${image.height}`)),
      h("ul", { class: "flaws" }),
      h("label", { for: id, class: "visually-hidden" }, `Caption of ${image.filename}`), caption,
      h("button", { type: "button", class: "quiet", hidden: this.dataset.frozen,
        "aria-label": `Delete ${image.filename}`, onclick: guarded(() => this.drop(image), this.signal) },
        "×"));
  }

  updateCard(card, image) {
    replace(card.querySelector(".flaws"), image.problems.map(({ code, detail }) =>
      h("li", { class: code === FORBIDDING ? "problem" : "hint" }, prose(detail))));
    const caption = card.querySelector("textarea");
    if (document.activeElement !== caption) caption.value = image.caption ?? "";
  }

  async caption(image, input) {
    const changed = await patch(`${this.path}/images/${image.id}`, { caption: input.value.trim() || null });
    this.images = this.images.map((each) => (each.id === image.id ? changed : each));
    await this.load();
    this.render();
    say(`The caption of ${image.filename} is saved`);
  }

  async drop(image) {
    await remove(`${this.path}/images/${image.id}`);
    this.images = this.images.filter((each) => each.id !== image.id);
    await this.load();
    this.render();
    say(`${image.filename} is deleted`);
  }

  async remove() {
    if (!(await confirm(`Delete ${this.dataset.name} and its pictures?`, "Delete it"))) return;
    await remove(this.path);
    goOn("#/datasets", this.signal, `${this.dataset.name} is deleted`);
  }
}
