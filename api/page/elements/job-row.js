/* A job as one line: what, how far, since when. */

import { h, set, write } from "../dom.js";
import { KINDS, baseOf, duration, hasEnded, timeAgo, titleOf } from "../words.js";

export function jobRow(job) {
  return h("div", { class: "job-row" },
    h("a", { href: `#/jobs/${job.id}` },
      h("span", { class: "state" }),
      h("span", { class: "what" }, h("strong", {}, titleOf(job)),
        h("small", {}, `${KINDS[job.kind]} · ${baseOf(job)}`)),
      h("span", { class: "how-far" }, meter(), h("small", { class: "told" })),
      h("span", { class: "when" }, timeAgo(job.created_at))));
}

export function updateJobRow(row, job, place) {
  showState(row.querySelector(".state"), job.state);
  const bar = row.querySelector(".meter");
  bar.hidden = hasEnded(job) || job.state === "queued";
  fillMeter(bar, job.progress.fraction);
  write(row.querySelector(".told"), howFar(job, place));
}

export function showState(element, state) {
  element.dataset.state = state;
  write(element, state);
}

export function meter() {
  return h("span", { class: "meter" }, h("span"));
}

export function fillMeter(element, fraction) {
  set(element.firstElementChild, { width: `${Math.round(100 * fraction)}%` });
}

/** `place`: its entry in the queue, where it has one. */
export function howFar(job, place) {
  const { step, steps, eta_seconds: eta, message } = job.progress;
  if (job.state === "queued") {
    const position = place?.position ?? job.queue_position;
    if (job.after && !position) return "waits for another job";
    const soon = typeof place?.eta_seconds === "number" ? `, begins in about ${duration(place.eta_seconds)}` : "";
    return position ? `number ${position} in the queue${soon}` : "waits";
  }
  if (job.state === "running" || job.state === "paused") {
    const left = typeof eta === "number" && eta > 0 ? `, ${duration(eta)} left` : "";
    return step ? `${step} of ${steps}${left}` : message || "begins";
  }
  if (job.state === "failed") return job.error?.detail || "failed";
  const took = job.usage.device_seconds;
  return took ? `took ${duration(took)}` : "";
}
