/* LoRAs to draw with and the weight of each. */

import { h, newId, replace } from "../dom.js";
import { nameOf, short } from "../words.js";

const RANGE = 2; // a slider's ends; the number beside it goes to the server's own bounds
const MOST = 8;

export class LoraStack extends HTMLElement {
  /** `loras`: artifacts to choose from. */
  constructor(loras) {
    super();
    this.choices = loras;
    this.rows = [];
  }

  connectedCallback() {
    if (this.list) return;
    this.list = h("ol", { class: "loras" });
    this.adder = h("button", { type: "button", onclick: () => this.add() }, "Add a LoRA");
    replace(this, this.list, this.choices.length || this.rows.length ? this.adder
      : h("p", { class: "help" }, "None yet: ", h("a", { href: "#/new/fine_tune" }, "train one"), " or ",
        h("a", { href: "#/models" }, "import one"), "."));
    this.draw();
  }

  get value() {
    return this.rows.map((row) => ({ ...row }));
  }

  /** Uses as a spec has them; one that names a job keeps its job. */
  set value(uses) {
    this.rows = uses.map(({ artifact, job, weight = 1 }) => (artifact ? { artifact, weight } : { job, weight }));
    if (this.list) this.draw();
  }

  add() {
    this.rows.push({ artifact: this.choices[0].id, weight: 1 });
    this.draw();
    this.list.lastElementChild.querySelector("select").focus();
    this.tell();
  }

  drop(index) {
    this.rows.splice(index, 1);
    this.draw();
    this.adder.focus();
    this.tell();
  }

  tell() {
    this.dispatchEvent(new Event("input", { bubbles: true }));
  }

  draw() {
    this.adder.disabled = this.rows.length >= MOST || !this.choices.length;
    replace(this.list, this.rows.map((row, index) => this.row(row, index)));
  }

  row(row, index) {
    const id = newId("weight");
    const slider = h("input", { type: "range", min: -RANGE, max: RANGE, step: 0.05, value: row.weight,
      "aria-label": "Weight" });
    const number = h("input", { id, type: "number", min: -10, max: 10, step: 0.05, value: row.weight });
    const weigh = (from, to) => (event) => {
      event.stopPropagation();
      row.weight = Number(from.value);
      to.value = from.value;
      this.tell();
    };
    slider.addEventListener("input", weigh(slider, number));
    number.addEventListener("input", weigh(number, slider));
    return h("li", {}, this.chooser(row), slider, h("label", { for: id, class: "visually-hidden" },
      "Weight as a number"), number,
      h("button", { type: "button", class: "quiet", "aria-label": "Remove this LoRA",
        onclick: () => this.drop(index) }, "×"));
  }

  chooser(row) {
    const known = this.choices.some((each) => each.id === row.artifact);
    const select = h("select", { "aria-label": "LoRA", onchange: () => this.choose(row, select.value) },
      !known && h("option", { value: "" }, row.job ? `of ${row.job}` : row.artifact),
      this.choices.map((each) => h("option", { value: each.id, selected: each.id === row.artifact },
        `${nameOf(each)} (${each.layout}, ${short(each.id)})`)));
    return select;
  }

  choose(row, artifact) {
    if (!artifact) return;
    delete row.job;
    row.artifact = artifact;
  }
}
customElements.define("lora-stack", LoraStack);
