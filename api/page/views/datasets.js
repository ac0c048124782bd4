/* Datasets: pictures to learn from. */

import { all, get, post } from "../api.js";
import { h, newId, reconcile } from "../dom.js";
import { dropZone } from "../elements/drop-zone.js";
import { picture } from "../elements/still-picture.js";
import { handOver } from "./dataset.js";
import { goOn, once, tolerate } from "../live.js";
import { bytes, counted, pathOf, timeAgo } from "../words.js";

const THUMBNAILS = 4;
const SIDE = 56;
const ACCEPT = "image/png,image/jpeg,image/webp,.txt,.jsonl,.zip";

export async function show(view, { signal }) {
  const list = h("ul", { class: "datasets" });
  view.append(h("header", { class: "top" }, h("h1", {}, "Datasets")), creation(signal));
  const datasets = await all("/v1/datasets", {}, { signal });
  if (!datasets.length) {
    view.append(h("p", { class: "empty" },
      "There is none yet. Drop pictures above: three to five views of one subject, ",
      "or any number of pictures with captions."));
  }
  view.append(list);
  reconcile(list, datasets, { key: (dataset) => dataset.id, make: (dataset) => row(dataset, signal) });
}

function creation(signal) {
  const id = newId("new");
  const name = h("input", { id: `${id}-name`, maxlength: 200, placeholder: "as the folder or first file" });
  const kind = h("select", { id: `${id}-kind` },
    h("option", { value: "instance" }, "one subject"),
      h("option", { value: "captioned" }, "each picture with a caption"));
  const make = (files) => create(files, name.value.trim(), kind.value, signal);
  return h("section", { class: "creation", "aria-label": "New dataset" },
    h("div", { class: "bar" },
      h("div", { class: "field" }, h("label", { for: `${id}-name` }, "Name of a new one"), name),
      h("div", { class: "field" }, h("label", { for: `${id}-kind` }, "What it holds"), kind),
      h("button", { type: "button", onclick: once(() => make([]), signal) }, "Create it empty")),
    dropZone({ label: "Choose pictures",
      help: "or drop pictures, folders, .txt captions, metadata.jsonl or zips here", accept: ACCEPT,
      folders: true, take: once(make, signal) }));
}

async function create(files, given, kind, signal) {
  const name = given || nameAfter(files[0]) || "pictures";
  const dataset = await post("/v1/datasets", { name, kind });
  handOver(dataset.id, files);
  const rest = files.length ? ": its files are sent once you open it" : "";
  goOn(`#/datasets/${dataset.id}`, signal, `${name} is made${rest}`);
}

/** The folder's name where one was dropped, else the file's. */
function nameAfter(file) {
  if (!file) return "";
  const [first, ...inside] = pathOf(file).split("/");
  return inside.length ? first : first.replace(/\.[^.]*$/, "");
}

function row(dataset, signal) {
  const strip = h("span", { class: "thumbs" });
  fillThumbnails(dataset, strip, signal).catch((error) => tolerate(error, signal));
  const told = [
    counted(dataset.images, "picture"), dataset.kind === "captioned" ? "captioned" : "one subject",
    bytes(dataset.bytes), dataset.frozen && "in use, cannot change",
  ];
  const problems = dataset.report.problems.map((problem) => problem.detail).join(" ");
  return h("li", {},
    h("a", { href: `#/datasets/${dataset.id}` }, strip,
      h("span", { class: "what" }, h("strong", {}, dataset.name),
        h("small", {}, told.filter(Boolean).join(" · ")),
        problems && h("small", { class: "problem" }, problems)),
      h("span", { class: "when" }, timeAgo(dataset.created_at))),
    dataset.report.ready && h("a", { class: "button", href: `#/new/fine_tune?dataset=${dataset.id}`,
      "aria-label": `Train on ${dataset.name}` }, "Train on it"));
}

async function fillThumbnails(dataset, strip, signal) {
  if (!dataset.images) return;
  const { items } = await get(`/v1/datasets/${dataset.id}/images`, { limit: THUMBNAILS }, signal);
  strip.append(...items.map((image) => picture(`/v1/datasets/${dataset.id}/images/${image.id}?size=128`, "",
    SIDE)));
}
