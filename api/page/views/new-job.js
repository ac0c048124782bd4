/* A new job: the few fields that matter first, the rest folded, and what it would take before it is
 * begun. */

import { Problem, get, getOnce, post, rehearse } from "../api.js";
import { h, newId, replace, say } from "../dom.js";
import { StartImage, artifactChooser, baseChooser, choices, datasetChooser } from "../elements/choosers.js";
import { DrawnHere } from "../elements/drawn-here.js";
import { EstimateBox } from "../elements/estimate-box.js";
import { LoraStack } from "../elements/lora-stack.js";
import { SpecForm, lines } from "../elements/spec-form.js";
import { goOn, guarded } from "../live.js";
import { KINDS, duration } from "../words.js";

const QUIET_SECONDS = 0.4; // after the last change, before the server is asked
const NANO_RATES = { fine_tune: 3e-3, distill: 1e-3 }; // what toy widths learn at; the README's figures
const SAMPLE_EVERY = 50;

const LENGTH = ["epochs", "batch_size", "accumulation", "keep_every", "checkpoint_every"];
const OPTIMIZER = ["optimizer", "schedule", "warmup_steps", "weight_decay", "max_grad_norm", "snr_gamma", "ema"];
const PICTURES = ["resolution", "crop", "crop_variants", "flip", "caption_dropout"];
const DEVICE = ["precision", "gradient_checkpointing", "deterministic", "seed"];

const LAYOUTS = {
  fine_tune: {
    first: ["base", "dataset", "instance_prompt", "method", "trigger", "steps", "learning_rate", "sample"],
    groups: {
      "LoRA": ["lora", "init_from"], "Class and prior": ["class_prompt", "prior"], "Length and batches": LENGTH,
      "Optimizer and loss": [...OPTIMIZER, "noise_offset"], "Pictures": PICTURES, "Device and seed": DEVICE,
    },
  },
  distill: {
    first: ["teacher", "dataset", "student", "steps", "learning_rate", "sample"],
    groups: {
      "Loss": ["loss", "init_from"], "Length and batches": LENGTH, "Optimizer": OPTIMIZER,
        "Pictures": PICTURES, "Device and seed": DEVICE,
    },
  },
  generate: {
    first: ["prompt", "base", "loras", "images", "steps", "guidance", "seed"],
    groups: { "Negative prompt and scheduler": ["negative_prompt", "scheduler"],
      "Size and format": ["width", "height", "format", "precision"], "A picture to begin with": ["image"] },
  },
};
const LABELS = {
  base: "Base model", teacher: "Teacher", instance_prompt: "Subject in words", class_prompt: "Class in words",
    trigger: "Trigger word",
  sample: "Samples while it runs", loras: "LoRAs", init_from: "Go on from", images: "Pictures a prompt",
    image: "Picture", lora: "LoRA",
  prior: "Prior preservation", snr_gamma: "Min-SNR gamma", ema: "Average of weights (EMA)",
    prompts: "Prompts, one a line", every: "Every so many steps", weights: "Weights to begin with",
  max_grad_norm: "Gradient norm, at most", dora: "DoRA",
};
const HELPS = {
  base: "", teacher: "", dataset: "", images: "", prompt: "Several are drawn one after another: one a line.",
    negative_prompt: "Empty: what the base does for none.",
  prompts: "One picture each. Empty: the subject in words.", seed: "Empty: another one each time.",
  instance_prompt: "The subject by a rare word, as in a photo of sks dog. Empty: each picture's own caption.",
  learning_rate: "What the base usually takes is filled in.", init_from: "Goes on where that one ended.",
};
const VERBS = { fine_tune: "Start training", distill: "Start distilling", generate: "Draw" };

export async function show(view, { row, query, signal }) {
  const kind = row in KINDS ? row : "fine_tune";
  const [{ components }, there] = await Promise.all([getOnce("/openapi.json"), choices(signal)]);
  const page = new NewJob(kind, components.schemas, there, signal);
  view.append(
    h("header", { class: "top" }, h("h1", {}, "New job")),
    h("nav", { class: "tabs", "aria-label": "Kind of job" }, Object.entries(KINDS).map(([name, label]) =>
      h("a", { href: `#/new/${name}`, "aria-current": name === kind ? "page" : null }, label))),
    ...page.parts());
  await page.fill(query);
  page.changed();
}

class NewJob {
  constructor(kind, schemas, there, signal) {
    this.kind = kind;
    this.signal = signal;
    this.there = there;
    const name = { fine_tune: "FineTuneSpec", distill: "DistillSpec", generate: "GenerateSpec" }[kind];
    this.form = new SpecForm({ schemas, name, layout: LAYOUTS[kind], widgets: widgetsOf(kind, there),
      labels: LABELS, helps: HELPS, hidden: hiddenIn });
    this.hasOwnRate = false;
    this.asking = new AbortController();
  }

  parts() {
    this.estimate = new EstimateBox();
    this.button = h("button", { class: "primary" }, VERBS[this.kind]);
    this.problem = h("p", { class: "problem", role: "alert" });
    this.drawn = this.kind === "generate" ? new DrawnHere((seed) => this.again(seed)) : null;
    const form = h("form", { class: "new-job", novalidate: true, onsubmit: (event) => this.submit(event) },
      h("div", {}, this.form, this.jobFields()),
      h("aside", { "aria-label": "What it takes" }, h("h2", {}, "What it takes"), this.estimate, this.problem,
        this.button, this.drawn));
    form.addEventListener("input", (event) => this.heard(event));
    form.addEventListener("change", (event) => this.heard(event));
    return [form];
  }

  jobFields() {
    const id = newId("job");
    this.name = h("input", { id: `${id}-name`, maxlength: 200 });
    this.priority = h("input", { id: `${id}-priority`, type: "number", min: -100, max: 100, value: 0 });
    this.hours = h("input", { id: `${id}-hours`, type: "number", min: 0.1, step: 0.1, placeholder: "never" });
    const field = (input, label, help) => h("div", { class: "field short" },
      h("label", { for: input.id }, label), input, h("p", { class: "help" }, help));
    return h("details", { class: "group" }, h("summary", {}, "Name and queue"),
      h("div", { class: "fields" }, field(this.name, "Name", "To find it again."),
        field(this.priority, "Priority", "Higher first; above 0 needs an admin key."),
        field(this.hours, "Expires after, hours", "If it was not begun by then.")));
  }

  /** What the address asks for: the settings of a job or of a picture, a dataset, a LoRA. */
  async fill(query) {
    if (this.kind !== "generate") this.form.value = { sample: { prompts: [], every: SAMPLE_EVERY } };
    const dataset = query.get("dataset");
    if (dataset) this.form.value = { dataset };
    if (query.get("base")) this.form.value = { base: query.get("base") };
    if (query.get("job")) this.reuse((await get(`/v1/jobs/${query.get("job")}`, {}, this.signal)).spec);
    if (query.get("picture")) await this.reusePicture(query.get("picture"));
    if (query.get("lora")) await this.useLora(query.get("lora"));
    if (!query.has("job")) this.followDataset();
    this.followBase();
  }

  reuse(spec) {
    this.form.value = spec;
    this.hasOwnRate = true;
  }

  async reusePicture(id) {
    const { job, metadata } = await get(`/v1/artifacts/${id}`, {}, this.signal);
    const { spec } = await get(`/v1/jobs/${job}`, {}, this.signal);
    this.form.value = { ...spec, prompt: metadata.prompt, seed: metadata.seed, images: 1 };
  }

  async useLora(id) {
    const lora = await get(`/v1/artifacts/${id}`, {}, this.signal);
    const prompt = lora.metadata.instance_prompt || lora.metadata.trigger;
    const { models, students } = this.there;
    const base = [...students, ...models].find((each) => each.id === lora.base)?.id
      || models.find((model) => model.available && model.layout === lora.layout)?.id;
    this.form.value = { loras: [{ artifact: id, weight: 1 }], ...(base && { base }), ...(prompt && { prompt }) };
  }

  heard(event) {
    const field = event.target.closest("[data-field]")?.dataset.field;
    if (field === "learning_rate") this.hasOwnRate = true;
    if (event.type === "change" && field === "dataset") this.followDataset();
    if (event.type === "change" && (field === "base" || field === "teacher")) this.followBase();
    this.changed();
  }

  /** A captioned dataset is learnt by its captions, unless somebody says otherwise afterwards. */
  followDataset() {
    const chosen = this.there.datasets.find((each) => each.id === this.form.value.dataset);
    if (!chosen || this.kind !== "fine_tune") return;
    this.form.value = { method: chosen.kind === "captioned" ? "captioned" : "dreambooth" };
  }

  followBase() {
    const { base, teacher } = this.form.value;
    const usual = this.form.schema.properties.learning_rate?.default;
    if (!usual || this.hasOwnRate) return;
    const isNano = (base || teacher || "").startsWith("nano-");
    this.form.value = { learning_rate: isNano ? NANO_RATES[this.kind] : usual };
  }

  /** Labels of what keeps the job from being sent. */
  get missing() {
    const numbers = [[this.priority, "Priority"], [this.hours, "Expires after, hours"]];
    const unreadable = numbers.filter(([input]) => input.validity.badInput);
    return [...this.form.missing, ...unreadable.map(([, label]) => label)];
  }

  get job() {
    const spec = this.form.value;
    if (spec.sample && !spec.sample.prompts) spec.sample = sampled(spec);
    const job = { kind: this.kind, spec, priority: Number(this.priority.value) };
    if (this.name.value.trim()) job.name = this.name.value.trim();
    if (this.hours.value) job.deadline_seconds = Number(this.hours.value) * 3600;
    return job;
  }

  changed() {
    clearTimeout(this.timer);
    this.asking.abort();
    this.timer = setTimeout(guarded(() => this.check(), this.signal), QUIET_SECONDS * 1000);
    this.signal.addEventListener("abort", () => clearTimeout(this.timer), { once: true });
  }

  async check() {
    const { missing } = this;
    this.form.explain([]);
    if (missing.length) {
      this.button.textContent = VERBS[this.kind];
      return this.estimate.wait(`To be filled in: ${missing.join(", ")}.`);
    }
    this.asking = new AbortController();
    const signal = AbortSignal.any([this.asking.signal, this.signal]);
    try {
      const forecast = await rehearse(this.job, signal);
      this.estimate.show(forecast);
      this.button.textContent = this.promise(forecast);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.refuse(error);
    }
  }

  /** What the button does, in its own words. */
  promise({ steps, seconds }) {
    const time = seconds === null ? "" : `, about ${duration(seconds)}`;
    if (this.kind !== "generate") return `${VERBS[this.kind]}: ${steps.toLocaleString("en")} steps${time}`;
    const { images = 1, prompt } = this.form.value;
    const count = images * [prompt].flat().length;
    return `Draw ${count === 1 ? "a picture" : `${count} pictures`}${time}`;
  }

  refuse(error) {
    const elsewhere = this.form.explain(error.errors);
    this.estimate.refuse(elsewhere.length || !error.errors.length ? error
      : new Error("See the fields that are marked."));
  }

  async submit(event) {
    event.preventDefault();
    const { missing } = this;
    if (missing.length) {
      replace(this.problem, `To be filled in: ${missing.join(", ")}.`);
      return;
    }
    await this.send(this.job);
  }

  /** Once at a time, whichever button asks for it. */
  async send(body) {
    if (this.button.disabled) return;
    this.button.disabled = true;
    replace(this.problem);
    try {
      const job = await post("/v1/jobs", body);
      say("The job is queued");
      if (this.drawn && !this.signal.aborted) this.drawn.watch(job, this.signal);
      else goOn(`#/jobs/${job.id}`, this.signal, "The job is queued");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.refuse(error);
      replace(this.problem, error.message);
    } finally {
      this.button.disabled = false;
    }
  }

  /** The same noise again, under whatever the form says now: what a LoRA's weight does is seen so. */
  again(seed) {
    this.form.value = { seed };
    return this.send(this.job);
  }
}

function widgetsOf(kind, there) {
  const { models, students, loras, datasets } = there;
  const starts = kind === "distill"
    ? () => artifactChooser(students, "Nothing: begin with the student above")
    : () => artifactChooser(loras.filter((each) => each.format === "peft"), "Nothing: a fresh LoRA");
  return {
    base: () => baseChooser(there),
    teacher: () => baseChooser({ models, students: [] }, { only: (model) => model.layout === "sdxl" }),
    weights: () => baseChooser(there, { none: "Nothing" }),
    dataset: () => datasetChooser(kind === "distill" ? datasets.filter((each) => each.kind === "captioned")
      : datasets),
    loras: () => new LoraStack(loras),
    init_from: starts,
    image: () => new StartImage(datasets),
    prompt: promptBox,
  };
}

/** A prompt, or several, one a line. */
function promptBox() {
  const box = h("textarea", { rows: 3, maxlength: 4000 });
  const own = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");
  return Object.defineProperty(box, "value", {
    get: () => {
      const given = own.get.call(box).split("\n").filter((line) => line.trim());
      return given.length > 1 ? given : (given[0] ?? "");
    },
    set: (value) => own.set.call(box, lines([value].flat())),
  });
}

/** Fields that have no say, by what the others are. */
function hiddenIn({ method, crop }) {
  return [method === "captioned" && "instance_prompt", crop !== "random" && "crop_variants"].filter(Boolean);
}

/** Samples of what is being taught, where nobody said of what; none without a word for it. */
function sampled({ sample, instance_prompt: prompt }) {
  return prompt ? { ...sample, prompts: [prompt] } : undefined;
}
