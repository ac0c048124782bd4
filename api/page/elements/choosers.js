/* Selects of rows that the server has: bases, datasets, artifacts, a picture to begin with. */

import { all } from "../api.js";
import { choose, h, newId, replace } from "../dom.js";
import { guarded } from "../live.js";
import { nameOf, short } from "../words.js";
import { picture } from "./still-picture.js";

const MOST = 200; // newest rows to choose from

/** What forms choose from, asked for together. */
export async function choices(signal) {
  const [models, students, loras, datasets] = await Promise.all([
    all("/v1/models", {}, { signal }),
    all("/v1/artifacts", { kind: "unet" }, { signal, most: MOST }),
    all("/v1/artifacts", { kind: "lora" }, { signal, most: MOST }),
    all("/v1/datasets", {}, { signal, most: MOST }),
  ]);
  const originals = loras.filter((each) => each.role !== "lora_kohya"); // the same once more, for other programs
  return { models, students, loras: originals, datasets };
}

/** A base of the catalogue or a student that a job here made; the first that is there is chosen. */
export function baseChooser({ models, students }, { only = () => true, none = null } = {}) {
  const fitting = models.filter(only).toSorted((a, b) => b.available - a.available);
  return h("select", {},
    none && h("option", { value: "" }, none),
    fitting.map((model) => h("option", { value: model.id },
      `${model.id} (${model.native_size} px${model.available ? "" : ", not on a worker's disk"})`)),
    students.length > 0 && h("optgroup", { label: "Students made here" }, students.map((student) =>
      h("option", { value: student.id }, `${nameOf(student)} (${student.layout}, ${short(student.id)})`))));
}

export function datasetChooser(datasets) {
  return h("select", {}, h("option", { value: "" }, datasets.length ? "Choose one" : "There is none yet"),
    datasets.map(({ id, name, images, kind }) => h("option", { value: id },
      `${name} (${images} ${kind === "captioned" ? "captioned" : "of a subject"}, ${short(id)})`)));
}

export function artifactChooser(artifacts, none) {
  return h("select", {}, h("option", { value: "" }, none),
    artifacts.map((each) => h("option", { value: each.id },
      `${nameOf(each)} (${each.layout}, ${short(each.id)})`)));
}

/** A picture of a dataset to begin a drawing with, and how far to go from it. */
export class StartImage extends HTMLElement {
  constructor(datasets) {
    super();
    this.dataset_ = datasetChooser(datasets);
    this.image = h("select", {}, h("option", { value: "" }, "Choose one"));
    this.strength = h("input", { type: "number", min: 0.05, max: 1, step: 0.05, value: 0.6 });
    this.preview = h("div", { class: "preview" });
  }

  connectedCallback() {
    if (this.firstChild) return;
    replace(this, this.named("Dataset", this.dataset_), this.named("Picture", this.image),
      this.named("Strength", this.strength), this.preview);
    this.dataset_.addEventListener("change", () => this.choose(""));
    this.image.addEventListener("change", () => this.show());
  }

  named(label, input) {
    input.id = newId("start");
    return h("div", { class: "field short" }, h("label", { for: input.id }, label), input);
  }

  /** There at once, so that nothing is drawn without it; the other pictures come when they come. */
  choose(image) {
    choose(this.image, image);
    this.show();
    guarded(() => this.list())();
  }

  async list() {
    const { value: dataset } = this.dataset_;
    const images = dataset ? await all(`/v1/datasets/${dataset}/images`, {}, { most: MOST }) : [];
    if (dataset !== this.dataset_.value) return;
    const { value: chosen } = this.image;
    replace(this.image, h("option", { value: "" }, "Choose one"),
      images.map(({ id, filename }) => h("option", { value: id }, filename)));
    choose(this.image, chosen);
  }

  show() {
    const { value } = this;
    replace(this.preview, value && picture(`/v1/datasets/${value.dataset}/images/${value.image}?size=256`,
      "The picture to begin with", 128));
  }

  get value() {
    if (!this.dataset_.value || !this.image.value) return "";
    return { dataset: this.dataset_.value, image: this.image.value, strength: Number(this.strength.value) };
  }

  set value(given) {
    if (!given) return;
    choose(this.dataset_, given.dataset);
    this.strength.value = given.strength;
    this.choose(given.image);
  }
}
customElements.define("start-image", StartImage);
