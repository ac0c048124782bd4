/* A list of any length of which only the rows in view are in the document. Rows are all as high as
 * the custom property `--row` says, in pixels. */

import { reconcile, set } from "../dom.js";

const AROUND = 8; // rows above and below, so that a flick of the wheel finds them there
const NEAR_END = 20; // rows

export class VirtualList extends HTMLElement {
  /** `key`, `make` and `update` are those of `reconcile`; `onend` is called when the last rows come near. */
  constructor({ key, make, update, onend }) {
    super();
    this.parts = { key, make, update };
    this.onend = onend;
    this.items = [];
  }

  connectedCallback() {
    this.setAttribute("role", "list");
    this.ending = new AbortController();
    const draw = () => requestAnimationFrame(() => this.isConnected && this.draw());
    addEventListener("scroll", draw, { passive: true, signal: this.ending.signal });
    addEventListener("resize", draw, { signal: this.ending.signal });
    this.draw();
  }

  disconnectedCallback() {
    this.ending.abort();
  }

  show(items) {
    this.items = items;
    if (this.isConnected) this.draw();
  }

  get visible() {
    const height = this.rowHeight;
    const top = -this.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / height) - AROUND);
    return [first, Math.min(this.items.length, Math.ceil((top + innerHeight) / height) + AROUND)];
  }

  get rowHeight() {
    return parseFloat(getComputedStyle(this).getPropertyValue("--row"));
  }

  draw() {
    const height = this.rowHeight;
    const [first, end] = this.visible;
    set(this, { height: `${this.items.length * height}px` });
    reconcile(this, this.shown(first, end), {
      key: ({ item }) => this.parts.key(item),
      make: ({ item }) => this.parts.make(item),
      update: (row, { item, index }) => {
        set(row, { transform: `translateY(${index * height}px)` });
        row.setAttribute("role", "listitem");
        row.setAttribute("aria-posinset", index + 1);
        row.setAttribute("aria-setsize", this.items.length);
        this.parts.update(row, item);
      },
    });
    if (end > this.items.length - NEAR_END) this.onend();
  }

  /** Those in view, and the one that has the focus, or it would be lost. */
  shown(first, end) {
    const row = [...this.children].find((each) => each.contains(document.activeElement));
    const focused = row ? Number(row.getAttribute("aria-posinset")) - 1 : -1;
    const indices = Array.from({ length: Math.max(0, end - first) }, (_, offset) => first + offset);
    if (focused >= 0 && focused < first) indices.unshift(focused);
    if (focused >= end && focused < this.items.length) indices.push(focused);
    return indices.map((index) => ({ item: this.items[index], index }));
  }
}
customElements.define("virtual-list", VirtualList);
