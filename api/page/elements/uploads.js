/* Files on their way to a dataset: a line each, with how far it is and what was said of it. */

import { Away, presence } from "../api.js";
import { h, replace, set, write } from "../dom.js";
import { bytes } from "../words.js";
import { meter } from "./job-row.js";

const AT_ONCE = 3;
const KEPT = 200; // lines
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
    const isText = (file) => /\.(txt|jsonl)$/i.test(file.name);
    const waiting = files.filter((file) => !isText(file)).map((file) => [file]);
    const texts = files.filter(isText);
    const work = async () => {
      for (let some = waiting.shift(); some; some = waiting.shift()) await this.one(some, send);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (texts.length) await this.one(texts, send);
  }

  async one(files, send) {
    underway += 1;
    await this.deliver(files, send).finally(() => { underway -= 1; });
  }

  async deliver(files, send) {
    const line = new Line(files);
    if (this.list.childElementCount < KEPT) this.list.append(line.element);
    for (;;) {
      try {
        const { items } = await send(files, (share) => line.tell(share));
        return line.end(items);
      } catch (error) {
        if (!(error instanceof Away)) return line.fail(error);
        write(line.said, "the server is away");
        await presence(); // the same bytes again are found to be there
      }
    }
  }
}
customElements.define("upload-list", Uploads);

class Line {
  constructor(files) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    const name = files.length > 1 ? `${files.length} captions` : files[0].name;
    this.bar = meter();
    this.said = h("span", { class: "said" }, bytes(size));
    this.element = h("li", {}, h("span", { class: "name" }, name), this.bar, this.said);
  }

  tell(share) {
    set(this.bar.firstElementChild, { width: `${Math.round(share * 100)}%` });
    write(this.said, share < 1 ? `${Math.round(share * 100)} %` : "being checked");
  }

  end(items) {
    const problems = items.flatMap(({ filename, problems: some }) =>
      some.map(({ detail }) => (items.length > 1 ? `${filename}: ${detail}` : detail)));
    this.tell(1);
    this.element.dataset.mood = problems.length ? "bad" : "good";
    write(this.said, problems.join(" ") || "there");
  }

  fail(error) {
    this.element.dataset.mood = "bad";
    write(this.said, error.errors?.[0]?.detail || error.message);
  }
}
