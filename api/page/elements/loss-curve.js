/* The loss over the steps: raw and faint, and its moving average, whose trend can be read. */

import { h, replace, svg, write } from "../dom.js";
import { figure } from "../words.js";

const HEIGHT = 220;
const PAD = { left: 52, right: 12, top: 10, bottom: 26 };
const MAX_POINTS = 400;
const TICKS = 3; // about so many spaces between lines of the grid
const SMOOTHING = 0.9; // of the moving average, once there are enough readings

export class LossCurve extends HTMLElement {
  connectedCallback() {
    if (this.plot) return;
    this.series = { loss: [] };
    this.shown = new Set(["loss"]);
    this.plot = svg("svg", { role: "img" });
    this.legend = h("div", { class: "legend", role: "group", "aria-label": "Parts of the loss" });
    this.readout = h("p", { class: "readout help" });
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.summarise());
    replace(this, this.plot, this.readout, this.legend);
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  /** All readings so far, in the shape of `/v1/jobs/{id}/metrics`. */
  load(metrics) {
    const points = (values) => values.flatMap((value, at) => (value === null ? [] : [[metrics.step[at], value]]));
    this.series = { loss: points(metrics.loss) };
    for (const [name, values] of Object.entries(metrics.terms)) this.series[name] = points(values);
    this.draw();
  }

  /** One reading more, from a progress event. */
  add({ loss, loss_step: step, terms = {} }) {
    if (step <= (this.series.loss.at(-1)?.[0] ?? 0)) return;
    for (const [name, value] of Object.entries({ loss, ...terms })) (this.series[name] ||= []).push([step, value]);
    this.draw();
  }

  get isEmpty() {
    return this.series.loss.length === 0;
  }

  draw() {
    const names = Object.keys(this.series);
    this.drawLegend(names);
    const visible = names.filter((name) => this.shown.has(name) && this.series[name].length);
    const all = visible.flatMap((name) => this.series[name]);
    this.width = this.plot.clientWidth;
    if (!all.length || !this.width) return replace(this.plot);
    this.scale(all);
    replace(this.plot, this.axes(), visible.map((name) => this.lines(name, names.indexOf(name))));
    this.summarise();
  }

  scale(points) {
    const steps = points.map(([step]) => step);
    const values = points.map(([, value]) => value);
    const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    this.last = steps.reduce((a, b) => Math.max(a, b));
    this.tick = roundTick((high - low || high || 1) / TICKS);
    this.low = Math.floor(low / this.tick) * this.tick;
    this.high = Math.ceil(high / this.tick) * this.tick;
    if (this.high === this.low) this.high += this.tick; // all of them are one, and a tick
  }

  x(step) {
    return PAD.left + (step / this.last) * (this.width - PAD.left - PAD.right);
  }

  y(value) {
    return HEIGHT - PAD.bottom - ((value - this.low) / (this.high - this.low)) * (HEIGHT - PAD.top - PAD.bottom);
  }

  axes() {
    const count = Math.round((this.high - this.low) / this.tick);
    const values = Array.from({ length: count + 1 }, (_, at) => this.low + at * this.tick);
    const steps = [0, 0.5, 1].map((part) => Math.round(part * this.last));
    return [
      values.map((value) => [
        svg("line", { class: "grid", x1: PAD.left, x2: this.width - PAD.right, y1: this.y(value),
          y2: this.y(value) }),
        svg("text", { x: PAD.left - 8, y: this.y(value) + 4, "text-anchor": "end" }, figure(value)),
      ]),
      steps.map((step, at) => svg("text",
        { x: this.x(step), y: HEIGHT - 8, "text-anchor": ["start", "middle", "end"][at] }, String(step))),
    ];
  }

  lines(name, index) {
    const points = thinned(this.series[name]);
    const smooth = smoothed(points);
    return [
      svg("polyline", { class: `raw line-${index % 5}`, points: this.places(points) }),
      svg("polyline", { class: `line-${index % 5}`, points: this.places(smooth) }),
    ];
  }

  places(points) {
    return points.map(([step, value]) => `${this.x(step).toFixed(1)},${this.y(value).toFixed(1)}`).join(" ");
  }

  drawLegend(names) {
    if (names.length < 2) return replace(this.legend);
    if (this.legend.childElementCount === names.length) return;
    replace(this.legend, names.map((name, index) => {
      const box = h("input", { type: "checkbox", checked: this.shown.has(name),
        onchange: () => this.toggle(name, box.checked) });
      return h("label", { class: `check line-${index % 5}` }, box, h("span", { class: "swatch" }), name);
    }));
  }

  toggle(name, isShown) {
    if (isShown) this.shown.add(name);
    else this.shown.delete(name);
    this.draw();
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    const room = this.width - PAD.left - PAD.right;
    const step = ((event.clientX - box.left - PAD.left) / room) * this.last;
    const told = [...this.shown].map((name) => {
      const near = nearest(this.series[name] || [], step);
      return near && `${name} ${figure(near[1])} at step ${near[0]}`;
    });
    write(this.readout, told.filter(Boolean).join(", "));
  }

  summarise() {
    const smooth = smoothed(thinned(this.series.loss));
    if (!smooth.length) return;
    const [first, last] = [smooth[0], smooth.at(-1)];
    const text = `Loss, averaged: ${figure(first[1])} at step ${first[0]}, ${figure(last[1])} at step ${last[0]}.`;
    this.plot.setAttribute("aria-label", text);
    write(this.readout, text);
  }
}
customElements.define("loss-curve", LossCurve);

/** 1, 2 or 5 times a power of ten, at least `size`. */
function roundTick(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return [1, 2, 5, 10].find((each) => each * power >= size) * power;
}

/** Means of neighbours, where there are more readings than pixels can show. */
function thinned(points) {
  const size = Math.ceil(points.length / MAX_POINTS);
  if (size <= 1) return points;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, at) => {
    const some = points.slice(at * size, (at + 1) * size);
    return [some.at(-1)[0], some.reduce((sum, [, value]) => sum + value, 0) / some.length];
  });
}

/** An exponential average without the pull of its first value (bias-corrected, as Adam's). */
function smoothed(points) {
  const keep = SMOOTHING * Math.min(1, points.length / 50);
  let sum = 0;
  return points.map(([step, value], at) => {
    sum = keep * sum + (1 - keep) * value;
    return [step, sum / (1 - keep ** (at + 1))];
  });
}

function nearest(points, step) {
  return points.reduce((best, each) => (!best || Math.abs(each[0] - step) < Math.abs(best[0] - step) ? each
    : best), null);
}
