/* Numbers, times and rows in words. */

import { h } from "./dom.js";

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  let power = 0;
  while (count >= 1024 && power < UNITS.length - 1) {
    count /= 1024;
    power += 1;
  }
  return `${power && count < 10 ? count.toFixed(1) : Math.round(count)} ${UNITS[power]}`;
}

export function duration(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
}

export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function figure(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 0.001 || Math.abs(value) >= 10_000 ? value.toExponential(1)
    : String(Number(value.toPrecision(4)));
}

export function ago(iso) {
  const seconds = (Date.now() - new Date(iso)) / 1000;
  if (seconds < 45) return "just now";
  return `${duration(seconds)} ago`;
}

/** A time as people say it, with the exact one on hover; it moves on by itself. */
export class TimeAgo extends HTMLElement {
  static all = new Set();

  connectedCallback() {
    TimeAgo.all.add(this);
    this.tell();
  }

  disconnectedCallback() {
    TimeAgo.all.delete(this);
  }

  tell() {
    const iso = this.getAttribute("at");
    const text = ago(iso);
    if (this.textContent === text) return;
    this.replaceChildren(h("time", { datetime: iso, title: new Date(iso).toLocaleString() }, text));
  }
}
customElements.define("time-ago", TimeAgo);
setInterval(() => TimeAgo.all.forEach((each) => each.tell()), 10_000);

export function timeAgo(iso) {
  return h("time-ago", { at: iso });
}

export const KINDS = { fine_tune: "Fine-tune", distill: "Distil", generate: "Generate" };
const ENDED = new Set(["succeeded", "failed", "cancelled", "expired"]);

export function hasEnded(job) {
  return ENDED.has(job.state);
}

/** What the server lets a client ask of a job, by its kind and state. */
export function actionsOf(job) {
  if (job.state === "succeeded") return job.kind === "generate" ? [] : ["extend"];
  if (hasEnded(job)) return ["retry"];
  return [job.state === "paused" ? "resume" : "pause", "cancel"];
}

export function promptsOf(spec) {
  return [spec.prompt ?? spec.instance_prompt ?? []].flat();
}

export function titleOf(job) {
  const [prompt] = promptsOf(job.spec);
  return job.name || prompt || `${KINDS[job.kind]} ${short(job.id)}`;
}

export function baseOf(job) {
  return job.kind === "distill" ? `${job.spec.teacher} to ${job.spec.student.layout}` : job.spec.base;
}

/** The end of an id: what tells two apart at a glance. */
export function short(id) {
  return id.slice(-6);
}

/** A file by its place in the folder that was dropped, where it came in one. */
export function pathOf(file) {
  return file.path ?? file.name;
}

const PLAIN_NAMES = new Set(["pytorch_lora_weights.safetensors", "unet"]);

/** A LoRA or student by what somebody would call it: its name where somebody gave one. */
export function nameOf(artifact) {
  const ours = artifact.job && (PLAIN_NAMES.has(artifact.name) || artifact.name.startsWith("lora_kohya"));
  if (!ours) return artifact.name;
  const { trigger, instance_prompt: prompt, step } = artifact.metadata;
  const called = trigger || prompt || `${artifact.kind} ${short(artifact.id)}`;
  return step ? `${called}, step ${step}` : called;
}
