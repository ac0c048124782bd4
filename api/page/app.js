/* The page: which view is shown, the rail beside it, and who is asked for a key. */

import { comeBack, connection, get } from "./api.js";
import { h, icon, replace, write } from "./dom.js";
import { closeAll } from "./elements/dialog.js";
import { signIn } from "./elements/sign-in.js";
import * as key from "./key.js";
import { every, tolerate } from "./live.js";

const VIEWS = [
  { name: "jobs", label: "Jobs" },
  { name: "new", label: "New job", short: "New" },
  { name: "datasets", label: "Datasets" },
  { name: "gallery", label: "Gallery" },
  { name: "models", label: "Models and LoRAs", short: "Models" },
  { name: "workers", label: "Workers" },
  { name: "keys", label: "Keys" },
];
/** Of a view by itself, and of one row of it. */
const FILES = {
  jobs: ["jobs", "job"], new: ["new-job", "new-job"], datasets: ["datasets", "dataset"],
  gallery: ["gallery", "gallery"], models: ["models", "models"], workers: ["workers", "workers"],
    keys: ["keys", "keys"],
};
const COUNT_SECONDS = 4;

const main = document.getElementById("main");
const count = h("span", { class: "count" });
let leaving = new AbortController();
let shownRow = "";

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, row] = path.split("/");
  const known = VIEWS.some((view) => view.name === name);
  return { name: known ? name : "jobs", row: row || null, query: new URLSearchParams(query) };
}

async function show({ keepFocus = false } = {}) {
  leaving.abort();
  leaving = new AbortController();
  closeAll();
  const { signal } = leaving;
  const { name, row, query } = place();
  markCurrent(name);
  const isSame = shownRow === `${name}/${row}`; // but for its query, as with a filter
  const focused = isSame ? document.activeElement?.id : "";
  shownRow = `${name}/${row}`;
  try {
    const view = await import(`./views/${FILES[name][row ? 1 : 0]}.js`);
    if (signal.aborted) return;
    const shown = h("div", { class: "view" });
    replace(main, shown);
    scrollTo(0, 0);
    const showing = view.show(shown, { row, query, signal });
    const again = focused && document.getElementById(focused); // what had the focus, made anew
    if (again) again.focus({ preventScroll: true });
    await showing;
    if (signal.aborted) return;
    document.title = `${main.querySelector("h1")?.textContent || "Stillroom"} · Stillroom`;
    if (!keepFocus && !again) main.focus({ preventScroll: true });
  } catch (error) {
    if (signal.aborted) return;
    replace(main, h("h1", {}, "This cannot be shown"), h("p", { class: "problem" }, error.message));
    tolerate(error, signal);
    connection.addEventListener("back", () => show(), { signal, once: true });
    if (await comeBack(error, signal) && !signal.aborted) show();
  }
}

function buildRail() {
  const links = VIEWS.map(({ name, label, short: brief }) =>
    h("a", { href: `#/${name}`, "data-view": name },
      icon(name), h("span", { class: "long" }, label), h("span", { class: "brief" }, brief || label),
      name === "jobs" && count));
  replace(document.getElementById("rail"),
    h("a", { href: "#/jobs", class: "brand", "aria-label": "Stillroom, jobs" }, icon("still"),
      h("span", {}, "Stillroom")),
    links,
    h("div", { class: "foot" },
      h("a", { href: "/docs" }, "HTTP interface"),
      h("button", { type: "button", class: "link", onclick: key.signOut }, "Sign out")));
}

function markCurrent(name) {
  for (const link of document.querySelectorAll("#rail [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function countJobs() {
  if (!key.current()) return;
  const queue = await get("/v1/queue");
  const told = [queue.running && `${queue.running} running`,
    queue.depth && `${queue.depth} waiting`].filter(Boolean);
  write(count, told.join("\n"));
}

function watchConnection() {
  const banner = document.getElementById("away");
  connection.addEventListener("away", () => {
    write(banner, "The server is away, trying again. What you see may be old.");
    banner.hidden = false;
  });
  connection.addEventListener("back", () => { banner.hidden = true; });
  connection.addEventListener("refused", async ({ detail }) => {
    await signIn(detail);
    show();
  });
}

key.takeFromAddress();
buildRail();
watchConnection();
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  if (key.takeFromAddress()) location.reload(); // as somebody else, perhaps
  else show();
});
if (!key.current()) await signIn("");
await show({ keepFocus: true });
every(COUNT_SECONDS, countJobs, new AbortController().signal);
