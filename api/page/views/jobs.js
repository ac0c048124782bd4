/* Jobs: the queue and all that came out of it, newest first. */

import { get } from "../api.js";
import { h, write } from "../dom.js";
import { jobRow, updateJobRow } from "../elements/job-row.js";
import { VirtualList } from "../elements/virtual-list.js";
import { guarded, every } from "../live.js";
import { Pages } from "../pages.js";
import { KINDS, counted, duration, hasEnded } from "../words.js";

const REFRESH_SECONDS = 2;
const FIRST = 50; // rows that the first load holds, and that each refresh asks for
const FURTHER = 200;
const STALE_AT_ONCE = 8;
const STATES = ["queued", "running", "paused", "succeeded", "failed", "cancelled", "expired"];

export async function show(view, { query, signal }) {
  const filter = { kind: query.get("kind"), state: query.get("state") };
  const jobs = new JobList(filter, signal);
  const summary = h("p", { class: "help" });
  view.append(
    h("header", { class: "top" }, h("h1", {}, "Jobs"),
      h("a", { class: "button primary", href: "#/new" }, "New job")),
    h("div", { class: "bar" }, chooser("Kind", "kind", filter, Object.entries(KINDS)),
      chooser("State", "state", filter, STATES.map((state) => [state, state])), summary));
  await jobs.more();
  const empty = emptyState(filter);
  view.append(empty, jobs.list);
  jobs.list.show(jobs.rows);
  every(REFRESH_SECONDS, async () => {
    const queue = await jobs.refresh();
    write(summary, standing(queue));
    empty.hidden = jobs.rows.length > 0;
  }, signal);
}

class JobList {
  constructor(filter, signal) {
    this.filter = filter;
    this.signal = signal;
    this.jobs = new Map();
    this.places = new Map();
    this.isFresh = true;
    this.pages = new Pages((cursor) => this.page({ limit: cursor ? FURTHER : FIRST, cursor }),
      (items) => this.take(items));
    this.list = new VirtualList({
      key: (job) => job.id,
      make: jobRow,
      update: (row, job) => updateJobRow(row, job, this.places.get(job.id)),
      onend: guarded(() => this.more(), signal),
    });
    this.list.setAttribute("aria-label", "Jobs");
  }

  get rows() {
    return [...this.jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1)); // ids sort by time
  }

  take(items) {
    for (const job of items) this.jobs.set(job.id, job);
  }

  /** The newest; the first load has just brought them. */
  async news() {
    if (this.isFresh) {
      this.isFresh = false;
      return { items: this.rows };
    }
    return this.page({ limit: FIRST });
  }

  page(query) {
    return get("/v1/jobs", { ...this.filter, ...query }, this.signal);
  }

  drop(isOdd) {
    for (const job of [...this.jobs.values()].filter(isOdd)) this.jobs.delete(job.id);
  }

  /** The next page. */
  async more() {
    if (!this.pages.hasMore) return;
    await this.pages.more();
    this.list.show(this.rows);
  }

  /** Whether more came since the last look than a refresh asks for: some lie between, unseen. */
  isBeyondAll(items) {
    return items.length === FIRST && !items.some(({ id }) => this.jobs.has(id));
  }

  async startAgain() {
    this.jobs.clear();
    this.pages.reset();
    await this.pages.more();
  }

  /** What is new, what runs, and what in view has moved; returns the queue. */
  async refresh() {
    const [news, running, queue] = await Promise.all([
      this.news(),
      this.page({ state: this.filter.state || "running", limit: FIRST }),
      get("/v1/queue", {}, this.signal),
    ]);
    this.places = new Map(queue.items.map((place) => [place.job, place]));
    if (this.isBeyondAll(news.items)) await this.startAgain();
    const known = new Set([...news.items, ...running.items].map((job) => job.id));
    this.take([...news.items, ...running.items.filter((job) => this.jobs.has(job.id))]);
    await this.renew(known);
    this.drop((job) => this.filter.state && job.state !== this.filter.state);
    this.list.show(this.rows);
    return queue;
  }

  /** Rows in view that should have moved and of which no list told. */
  async renew(known) {
    const rows = this.rows;
    const inView = rows.slice(...this.list.visible);
    const stale = inView.filter((job) => !hasEnded(job) && !known.has(job.id) && !this.places.has(job.id));
    const asked = stale.slice(0, STALE_AT_ONCE).map((job) => this.renewOne(job));
    await Promise.all(asked);
  }

  async renewOne({ id }) {
    const job = await get(`/v1/jobs/${id}`, {}, this.signal).catch((error) => {
      if (error.status !== 404) throw error;
    });
    if (job) this.take([job]);
    else this.jobs.delete(id);
  }
}

function chooser(label, name, filter, choices) {
  const id = `jobs-${name}`; // the same each time, by which it keeps the focus
  const select = h("select", { id, onchange: () => go({ ...filter, [name]: select.value }) },
    h("option", { value: "" }, "all"),
    choices.map(([value, text]) => h("option", { value, selected: value === filter[name] }, text)));
  return h("div", { class: "filter" }, h("label", { for: id }, label), select);
}

function go(filter) {
  const given = Object.entries(filter).filter(([, value]) => value);
  location.hash = given.length ? `#/jobs?${new URLSearchParams(given)}` : "#/jobs";
}

function standing({ depth, running, items }) {
  if (!depth) return running ? `${running} running, nobody waits` : "The queue is empty";
  const mine = items[0];
  const soon = typeof mine?.eta_seconds === "number"
    ? `, your next begins in about ${duration(mine.eta_seconds)}` : "";
  return `${running} running, ${counted(depth, "job")} waiting${soon}`;
}

function emptyState({ kind, state }) {
  if (kind || state) return h("p", { class: "empty", hidden: true }, "No job is like that. ",
    h("a", { href: "#/jobs" }, "Show all"));
  return h("div", { class: "empty", hidden: true },
    h("h2", {}, "Nothing was made here yet"),
    h("ol", {},
      h("li", {}, h("a", { href: "#/datasets" }, "Add pictures"), " of one subject: five are enough"),
      h("li", {}, h("a", { href: "#/new/fine_tune" }, "Fine-tune"), " a LoRA on them"),
      h("li", {}, h("a", { href: "#/new/generate" }, "Generate"), " with it, or without one right away")));
}
