/* One job: how far it is, what it learnt, what it made, what may be asked of it. */

import { all, download, events, get, post, remove } from "../api.js";
import { h, reconcile, say, write } from "../dom.js";
import { ask, confirm } from "../elements/dialog.js";
import { FilmStrip } from "../elements/film-strip.js";
import { fillMeter, howFar, meter, showState } from "../elements/job-row.js";
import { LossCurve } from "../elements/loss-curve.js";
import { artifactPicture } from "../elements/still-picture.js";
import { toast } from "../elements/toast.js";
import { look } from "../elements/viewer.js";
import { every, goOn, guarded, once, tolerate } from "../live.js";
import { KINDS, actionsOf, baseOf, bytes, duration, hasEnded, timeAgo, titleOf } from "../words.js";

const REFRESH_SECONDS = 5; // for what moves without an event: its place in the queue, its usage
const SHOWN_EVENTS = 200;
const TILE = 176;
const VERBS = { pause: "Pause", resume: "Resume", cancel: "Cancel", retry: "Retry", extend: "Train longer" };

export async function show(view, { row, signal }) {
  const page = new JobPage(row, signal);
  await page.load();
  view.append(...page.parts());
  page.render();
  page.follow().catch((error) => tolerate(error, signal));
  every(REFRESH_SECONDS, () => page.refresh(), signal);
}

class JobPage {
  constructor(id, signal) {
    this.id = id;
    this.path = `/v1/jobs/${id}`;
    this.signal = signal;
    this.events = [];
    this.curve = new LossCurve();
    this.strip = new FilmStrip();
  }

  async load() {
    this.job = await get(this.path, {}, this.signal);
    this.artifacts = await all(`${this.path}/artifacts`, {}, { signal: this.signal });
  }

  parts() {
    this.state = h("span", { class: "state" });
    this.bar = meter();
    this.told = h("p", { class: "told" });
    this.actions = h("div", { class: "actions" });
    this.error = h("p", { class: "problem", role: "alert" });
    this.facts = h("dl", { class: "facts" });
    this.files = h("ul", { class: "files" });
    this.pictures = h("ul", { class: "tiles" });
    this.history = h("ol", { class: "history" });
    this.log = h("pre", { tabindex: 0, role: "group", "aria-label": "The runner's last lines" });
    this.sections = {
      loss: section("Loss", this.curve), samples: section("Samples", this.strip),
      pictures: section("Pictures", this.pictures), files: section("Files", this.files),
    };
    const logs = h("details", { ontoggle: guarded(() => logs.open && this.readLogs(), this.signal) },
      h("summary", {}, "Runner's log"), this.log);
    return [
      h("header", { class: "top" },
        h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/jobs" }, "Jobs")),
          h("h1", {}, titleOf(this.job))), this.actions),
      h("div", { class: "standing" }, this.state, this.bar, this.told),
      this.error, this.sections.pictures, this.sections.samples, this.sections.loss, this.sections.files,
      section("About", this.facts,
        h("details", {}, h("summary", {}, "Settings as accepted"),
          h("pre", { tabindex: 0, role: "group", "aria-label": "The spec" }, JSON.stringify(this.job.spec, null, 2)))),
      section("Events", this.history, logs),
    ];
  }

  /** Follows the stream, from the first event on: it tells the past as well. */
  async follow() {
    await this.loadCurve();
    for await (const event of events(this.id, 0, this.signal)) await this.hear(event);
  }

  async loadCurve() {
    if (this.job.kind === "generate") return;
    this.curve.load(await get(`${this.path}/metrics`, {}, this.signal));
    this.renderCurve();
  }

  async hear(event) {
    if (event.type === "progress") return this.hearProgress(event.data);
    this.events.push(event);
    if (this.events.length > SHOWN_EVENTS) this.events.shift();
    this.later();
    if (["state", "sample", "artifact"].includes(event.type)) this.hasMoved = true;
  }

  hearProgress(data) {
    if (!hasEnded(this.job)) this.job.progress = { ...this.job.progress, ...data };
    if (data.loss !== undefined) this.curve.add(data);
    this.later();
  }

  /** Draws once a frame at most, however many events a replay brings. */
  later() {
    if (this.drawing) return;
    this.drawing = true;
    setTimeout(() => {
      this.drawing = false;
      if (this.signal.aborted) return;
      this.render();
      if (this.hasMoved) this.refresh().catch((error) => tolerate(error, this.signal));
    }, 50);
  }

  async refresh() {
    const before = this.job;
    const moved = this.hasMoved;
    if (hasEnded(before) && !moved) return;
    this.hasMoved = false;
    try {
      this.job = await get(this.path, {}, this.signal);
      if (moved) this.artifacts = await all(`${this.path}/artifacts`, {}, { signal: this.signal });
      if (this.job.attempt > before.attempt) await this.loadCurve();
    } catch (error) {
      this.hasMoved ||= moved; // for the next time
      throw error;
    }
    if (this.job.state !== before.state) say(`${titleOf(this.job)}: ${this.job.state}`);
    this.render();
  }

  render() {
    const { job } = this;
    showState(this.state, job.state);
    fillMeter(this.bar, job.progress.fraction);
    this.bar.hidden = job.state === "queued" || hasEnded(job);
    write(this.told, [job.state === "running" && job.progress.message, howFar(job)].filter(Boolean).join(": "));
    write(this.error, job.error ? job.error.detail : "");
    this.renderActions();
    this.renderFacts();
    this.renderCurve();
    this.renderMade();
    this.renderEvents();
  }

  renderActions() {
    const verbs = [...actionsOf(this.job), "reuse", ...(hasEnded(this.job) ? ["delete"] : [])];
    reconcile(this.actions, verbs, {
      key: (verb) => verb,
      make: (verb) => {
        const again = { class: "button", href: `#/new/${this.job.kind}?job=${this.id}` };
        if (verb === "reuse") return h("a", again, "Use these settings");
        const label = verb === "delete" ? "Delete" : VERBS[verb];
        return h("button", { type: "button", onclick: once(() => this.act(verb), this.signal) }, label);
      },
    });
  }

  async act(verb) {
    if (verb === "delete") return this.remove();
    if (verb === "cancel" && !(await confirm("Cancel this job?", "Cancel the job"))) return;
    const body = verb === "extend" ? await furtherSteps(this.job) : {};
    if (!body) return;
    const job = await post(`${this.path}/${verb}`, body);
    if (job.id !== this.id) goOn(`#/jobs/${job.id}`, this.signal, "The new job is queued");
    else {
      toast(job.state === "running" ? "It was told, and ends its present step first" : `It is ${job.state}`);
      this.job = job;
      this.render();
    }
  }

  async remove() {
    if (!(await confirm("Delete this job and all that it made?", "Delete it"))) return;
    await remove(this.path);
    goOn("#/jobs", this.signal, "The job is deleted");
  }

  renderFacts() {
    const { job } = this;
    const rows = [
      ["Kind", KINDS[job.kind]], ["Base", baseOf(job)], ["Seed", job.spec.seed],
      ["Dataset", job.spec.dataset && h("a", { href: `#/datasets/${job.spec.dataset}` }, job.spec.dataset)],
      ["Device", job.device], ["Attempt", job.attempt > 1 && job.attempt],
      ["On the device", job.usage.device_seconds > 0 && duration(job.usage.device_seconds)],
      ["Waited", job.usage.queue_seconds > 0 && duration(job.usage.queue_seconds)],
      ["Submitted", timeAgo(job.created_at)], ["Ended", job.finished_at && timeAgo(job.finished_at)],
      ["Goes on from", job.parent && h("a", { href: `#/jobs/${job.parent}` }, job.parent)],
      ["After", job.after && h("a", { href: `#/jobs/${job.after}` }, job.after)], ["Id", h("code", {}, job.id)],
    ];
    reconcile(this.facts, rows.filter(([, value]) => value !== null && value !== undefined && value !== false), {
      key: ([name, value]) => `${name} ${value instanceof Node ? value.textContent : value}`,
      make: ([name, value]) => h("div", {}, h("dt", {}, name),
        h("dd", {}, value instanceof Node ? value : String(value))),
    });
  }

  renderCurve() {
    this.sections.loss.hidden = !this.curve.series || this.curve.isEmpty;
  }

  renderMade() {
    const samples = this.artifacts.filter((each) => each.role === "sample");
    const pictures = this.artifacts.filter((each) => each.role === "image");
    const files = this.artifacts.filter((each) => each.kind !== "image");
    this.strip.show(samples);
    this.sections.samples.hidden = !samples.some((each) => each.metadata.step);
    reconcile(this.pictures, pictures, {
      key: (each) => each.id,
      make: (each) => h("li", {},
        h("button", { type: "button", class: "frame", onclick: () => look(pictures, each.id) },
        artifactPicture(each.id, each.metadata.prompt, TILE), h("span", {}, `seed ${each.metadata.seed}`))),
    });
    this.sections.pictures.hidden = !pictures.length;
    reconcile(this.files, files, { key: (each) => each.id, make: (each) => this.file(each) });
    this.sections.files.hidden = !files.length;
  }

  file(artifact) {
    const told = [artifact.role.replaceAll("_", " "), artifact.format, artifact.layout, bytes(artifact.bytes)];
    return h("li", {},
      h("span", {}, h("strong", {}, artifact.name),
        h("small", {}, told.filter(Boolean).join(" · "))),
      artifact.kind === "lora" && artifact.format === "peft" &&
        h("a", { class: "button", href: `#/new/generate?lora=${artifact.id}` }, "Draw with it"),
      artifact.kind === "unet" && h("a", { class: "button", href: `#/new/generate?base=${artifact.id}` },
        "Draw with it"),
      h("button", { type: "button", "aria-label": `Download ${artifact.name}`,
        onclick: guarded(() => download(artifact.id)) }, "Download"));
  }

  renderEvents() {
    reconcile(this.history, this.events.toReversed(), {
      key: (event) => event.seq,
      make: (event) => h("li", { "data-type": event.type }, timeAgo(event.at), h("span", {}, wordsOf(event))),
    });
  }

  async readLogs() {
    const { lines } = await get(`${this.path}/logs`, { tail: 200 }, this.signal);
    write(this.log, lines.map((line) => line.split("\r").at(-1)).join("\n") || "It has written nothing.");
  }
}

function section(title, ...content) {
  return h("section", {}, h("h2", {}, title), ...content);
}

async function furtherSteps(job) {
  const steps = await ask("Train longer", "Steps beyond those it has taken", job.progress.steps,
    { verb: "Go on", type: "number" });
  return steps && { steps: Number(steps) };
}

function wordsOf({ type, attempt, data }) {
  const again = attempt > 1 && `attempt ${attempt}`;
  if (type === "state") return [data.state, data.reason, again].filter(Boolean).join(", ");
  if (type === "sample") return `a sample${data.step ? ` at step ${data.step}` : ""}`;
  if (type === "artifact") return `made ${(data.role || "a picture").replaceAll("_", " ")}`;
  return data.message || data.detail || type;
}
