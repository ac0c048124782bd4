/* The document, built of elements and text: nothing here is ever parsed as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on…` in `properties` are listeners, `style` goes through CSSOM, the rest are
 *  attributes; null and false are left out. */
export function h(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") set(element, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...some(children));
  return element;
}

function some(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

export function set(element, style) {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
}

/** Puts `children` in place of what was there. */
export function replace(parent, ...children) {
  parent.replaceChildren(...some(children));
}

/** Writes a text only where it is another one, so that a screen reader is not told twice. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const keys = new WeakMap();

/** Makes the children of `parent` those of `items`, in their order. What is there already stays the
 *  same element, so focus, scroll and pictures stay too; `update` is told of each. */
export function reconcile(parent, items, { key, make, update = () => {} }) {
  const there = new Map([...parent.children].map((child) => [keys.get(child), child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    let element = there.get(key(item));
    there.delete(key(item));
    if (!element) {
      element = make(item);
      keys.set(element, key(item));
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const gone of there.values()) gone.remove();
}

/** Chooses `value`. Selects hold the newest rows: one that is none of them gets a choice of its own. */
export function choose(select, value) {
  const isThere = [...select.options].some((each) => each.value === value);
  if (!isThere) select.append(h("option", { value }, value));
  select.value = value;
}

/** Text in which `words` between backticks are code. */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

let count = 0;

export function newId(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}

/** Says something to a screen reader alone. */
export function say(text) {
  write(document.getElementById("said"), text);
}

const ICONS = {
  jobs: "M4 6h16M4 12h16M4 18h10",
  new: "M12 5v14M5 12h14",
  datasets: "M4 5h16v14H4zM4 15l4.500-4.500 4 4L15 12l5 5M15.500 9h.01",
  gallery: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  models: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM4 7.500l8 4.500 8-4.500M12 12v9",
  workers: "M6 6h12v12H6zM9 2v4M15 2v4M9 18v4M15 18v4M2 9h4M2 15h4M18 9h4M18 15h4",
  keys: "M14 10a4 4 0 1 0-3.500 4L12 15.500h2V18h2.500v2.500H20V17l-6-6",
  still: "M10 3h6M11.500 3v5.500L6.500 18a2.500 2.500 0 0 0 2.200 3.500h7.600a2.500 2.500 0 0 0 2.200-3.500l-5-9.500V3M8.500 15h8",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }));
}
