/* Files on their way to a dataset: a line each, with how far it is and what was said of it. */

import { Away, comeBack } from "../api.js";
import { h, replace, set, write } from "../dom.js";
import { bytes, pathOf } from "../words.js";
import { meter } from "./job-row.js";

const AT_ONCE = 3;
const CAPTIONS_A_REQUEST = 200; // of 1,000 files that a server takes
const KEPT = 200; // lines; those that failed are beyond it too
let underway = 0; // files that would be lost with the tab; another view leaves them be

addEventListener("beforeunload", (event) => {
  if (underway) event.preventDefault();
});

export class Uploads extends HTMLElement {
  connectedCallback() {
    this.list ||= h("ul", { class: "uploads", "aria-label": "Uploads" });
    if (!this.firstChild) this.append(this.list);
  }

  /** Pictures and archives a few at a time; then captions, which need their pictures to be there.
   *  `send` takes files and a function that hears the share that is out. */
  async send(files, send) {
    replace(this.list);
    const isTable = (file) => /\.jsonl$/i.test(file.name);
    const isText = (file) => isTable(file) || /\.txt$/i.test(file.name);
    const waiting = files.filter((file) => !isText(file)).map((file) => [file]);
    const texts = files.filter(isText).toSorted((a, b) => isTable(a) - isTable(b)); // tables have the last word
    const work = async () => {
      for (let some = waiting.shift(); some; some = waiting.shift()) await this.one(some, send);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    while (texts.length) await this.one(texts.splice(0, CAPTIONS_A_REQUEST), send);
  }

  async one(files, send) {
    underway += 1;
    await this.deliver(files, send).finally(() => { underway -= 1; });
  }

  async deliver(files, send) {
    const line = new Line(files);
    const isShown = this.list.childElementCount < KEPT;
    if (isShown) this.list.append(line.element);
    for (;;) {
      try {
        const { items } = await send(files, (share) => line.tell(share));
        line.end(items);
        break;
      } catch (error) {
        line.fail(error);
        if (!(await comeBack(error))) break; // the same bytes again are found to be there
      }
    }
    if (!isShown && line.isBad) this.list.append(line.element);
  }
}
customElements.define("upload-list", Uploads);

class Line {
  constructor(files) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    const name = files.length > 1 ? `${files.length} captions` : pathOf(files[0]);
    this.bar = meter();
    this.said = h("span", { class: "said" }, bytes(size));
    this.element = h("li", {}, h("span", { class: "name" }, name), this.bar, this.said);
  }

  tell(share) {
    delete this.element.dataset.mood;
    set(this.bar.firstElementChild, { width: `${Math.round(share * 100)}%` });
    write(this.said, share < 1 ? `${Math.round(share * 100)} %` : "being checked");
  }

  end(items) {
    const told = items.flatMap(({ filename, problems }) => problems.map(({ code, detail }) =>
      ({ code, text: items.length > 1 ? `${filename}: ${detail}` : detail })));
    this.tell(1);
    this.element.dataset.mood = told.some(({ code }) => code !== "already_there") ? "bad" : "good";
    write(this.said, told.map(({ text }) => text).join(" ") || "there");
  }

  get isBad() {
    return this.element.dataset.mood === "bad";
  }

  fail(error) {
    this.element.dataset.mood = "bad";
    write(this.said, error instanceof Away ? "the server is away" : error.errors?.[0]?.detail || error.message);
  }
}
