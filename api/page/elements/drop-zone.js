/* A place to drop files and folders at, and a button that does the same. */

import { h, newId } from "../dom.js";

export function dropZone({ label, help, accept, folders = false, take }) {
  const id = newId("files");
  const input = h("input", {
    id, type: "file", class: "visually-hidden", multiple: true, accept, "aria-describedby": `${id}-help`,
    onchange: () => { take([...input.files]); input.value = ""; },
  });
  const zone = h("div", { class: "drop-zone" }, input,
    h("label", { for: id, class: "button" }, label),
    h("span", { id: `${id}-help`, class: "help" }, help));
  const over = (is) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", is);
  };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", async (event) => {
    over(false)(event);
    take(folders ? await filesOf(event.dataTransfer) : [...event.dataTransfer.files]);
  });
  return zone;
}

/** Those of dropped folders too, however deep, but for hidden ones, as the command line does. All are
 *  taken hold of at once: a drop forgets them. */
async function filesOf(transfer) {
  const found = [...transfer.items].map((item) => {
    const entry = item.webkitGetAsEntry();
    return entry ? filesBelow(entry) : item.getAsFile();
  });
  return (await Promise.all(found)).flat().filter(Boolean);
}

async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [Object.assign(file, { path: entry.fullPath.slice(1) })];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  const seen = found.filter(({ name }) => !name.startsWith("."));
  return (await Promise.all(seen.map(filesBelow))).flat();
}
