/* Models and LoRAs: what can be drawn with, from where, and what each fits. */

import { all, download, patch, remove, upload } from "../api.js";
import { h, prose, reconcile, replace, write } from "../dom.js";
import { ask, confirm } from "../elements/dialog.js";
import { dropZone } from "../elements/drop-zone.js";
import { toast } from "../elements/toast.js";
import { Uploads } from "../elements/uploads.js";
import { guarded, tolerate } from "../live.js";
import { bytes, figure, nameOf, short, timeAgo, titleOf } from "../words.js";

const MOST = 400;
const COLUMNS = ["Model", "Layout", "Parameters", "Size", "Predicts", "Licence", "Here"];
const JOBS_LOOKED_AT = 400;

export async function show(view, { signal }) {
  const page = new Models(signal);
  view.append(...page.parts());
  await page.load();
}

class Models {
  constructor(signal) {
    this.signal = signal;
  }

  parts() {
    this.bases = h("tbody", {});
    this.loras = h("ul", { class: "files" });
    this.students = h("ul", { class: "files" });
    this.noLoras = h("p", { class: "empty" }, "There is none yet. ",
      h("a", { href: "#/new/fine_tune" }, "Train one"), " or import one above.");
    this.noStudents = h("p", { class: "empty" }, "There is none yet. ",
      h("a", { href: "#/new/distill" }, "Distil one"), ".");
    this.uploads = new Uploads();
    const zone = dropZone({ label: "Import LoRAs",
      help: "or drop .safetensors here, of diffusers, kohya or peft", accept: ".safetensors",
      take: (files) => this.take(files) });
    return [
      h("header", { class: "top" }, h("h1", {}, "Models and LoRAs")),
      h("section", {}, h("h2", {}, "LoRAs"), zone, this.uploads, this.noLoras, this.loras),
      h("section", {}, h("h2", {}, "Students made here"), this.noStudents, this.students),
      h("section", {}, h("h2", {}, "Base models"),
        h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Base models" },
          h("table", {},
            h("thead", {}, h("tr", {}, COLUMNS.map((each) => h("th", { scope: "col" }, each)))), this.bases)),
        h("p", { class: "help" }, "The administrator adds a model of your own with ",
          h("code", {}, "stillroom models add NAME PATH"), ".")),
    ];
  }

  async load() {
    const { signal } = this;
    const [models, loras, students] = await Promise.all([
      all("/v1/models", {}, { signal }), all("/v1/artifacts", { kind: "lora" }, { signal, most: MOST }),
      all("/v1/artifacts", { kind: "unet" }, { signal, most: MOST }),
    ]);
    replace(this.bases, models.map(baseRow));
    this.copies = new Map(loras.filter(isCopy).map((each) => [each.job, each]));
    this.list(this.loras, loras.filter((each) => !isCopy(each)));
    this.list(this.students, students);
    this.noLoras.hidden = loras.length > 0;
    this.noStudents.hidden = students.length > 0;
  }

  list(place, artifacts) {
    reconcile(place, artifacts, {
      key: (each) => each.id,
      make: (each) => this.row(each),
      update: (row, each) => write(row.querySelector("strong"), nameOf(each)),
    });
  }

  row(artifact) {
    const { rank, trigger, warnings = [] } = artifact.metadata;
    const told = [artifact.layout, artifact.format, rank && `rank ${rank}`,
      artifact.base && `trained on ${artifact.base}`, trigger && `trigger ${trigger}`, bytes(artifact.bytes)];
    const act = (work) => guarded(work, this.signal);
    const uses = h("div", {});
    const used = h("details", { ontoggle: act(() => used.open && this.tellUses(artifact, uses)) },
      h("summary", {}, "Where it is used"), uses);
    const copy = artifact.role === "lora" && this.copies.get(artifact.job);
    const use = artifact.kind === "lora" ? "lora" : "base";
    return h("li", {},
      h("span", {}, h("strong", {}, nameOf(artifact)), h("small", {}, told.filter(Boolean).join(" · ")),
        h("small", {}, timeAgo(artifact.created_at),
          artifact.job ? [" by ", h("a", { href: `#/jobs/${artifact.job}` }, `job ${short(artifact.job)}`)]
          : ", imported"),
        warnings.map(({ detail }) => h("small", { class: "hint" }, prose(detail))), used),
      h("a", { class: "button", href: `#/new/generate?${use}=${artifact.id}` }, "Draw with it"),
      h("button", { type: "button", onclick: act(() => download(artifact.id)) }, "Download"),
      copy && h("button", { type: "button", title: "The same for ComfyUI, A1111, Forge and InvokeAI",
        onclick: act(() => download(copy.id)) }, "Download for ComfyUI"),
      h("button", { type: "button", onclick: act(() => this.rename(artifact)) }, "Rename"),
      h("button", { type: "button", onclick: act(() => this.remove(artifact)) }, "Delete"));
  }

  /** The server does not keep who used what, so the newest jobs are asked. */
  async tellUses(artifact, place) {
    replace(place, h("p", { class: "help" }, "Looking through jobs"));
    const jobs = await all("/v1/jobs", {}, { signal: this.signal, most: JOBS_LOOKED_AT });
    const using = jobs.filter(({ spec }) => names(spec, artifact.id));
    replace(place, using.length
      ? h("ul", {}, using.map((job) => h("li", {}, h("a", { href: `#/jobs/${job.id}` }, titleOf(job)),
        weightIn(job.spec, artifact.id))))
      : h("p", { class: "help" }, `None of the newest ${JOBS_LOOKED_AT} jobs names it.`));
  }

  take(files) {
    const send = async (some, tell) => {
      const brought = await upload("/v1/artifacts", "file", some, tell);
      return { items: [{ filename: brought.name, problems: brought.warnings }] };
    };
    this.uploads.send(files, send)
      .then(() => this.load())
      .catch((error) => tolerate(error, this.signal));
  }

  async rename(artifact) {
    const name = await ask("Rename", "Name", nameOf(artifact));
    if (!name) return;
    await patch(`/v1/artifacts/${artifact.id}`, { name });
    await this.load();
  }

  async remove(artifact) {
    if (!(await confirm(`Delete ${nameOf(artifact)}?`, "Delete it"))) return;
    const copy = artifact.role === "lora" && this.copies.get(artifact.job);
    for (const each of [artifact, copy].filter(Boolean)) await remove(`/v1/artifacts/${each.id}`);
    toast("It is deleted");
    await this.load();
  }
}

/** The same LoRA once more, in the form that other programs read. */
function isCopy(artifact) {
  return artifact.role === "lora_kohya";
}

function names(spec, id) {
  return [spec.base, spec.init_from, spec.student?.weights,
    ...(spec.loras || []).map((use) => use.artifact)].includes(id);
}

function weightIn({ loras = [] }, id) {
  const use = loras.find((each) => each.artifact === id);
  return use ? `, weight ${figure(use.weight)}` : "";
}

function baseRow(model) {
  return h("tr", {},
    h("th", { scope: "row" }, model.id), h("td", {}, model.layout),
      h("td", { class: "number" },
      `${(model.parameters / 1e6).toLocaleString("en", { maximumFractionDigits: 0 })} M`),
    h("td", { class: "number" }, `${model.native_size} px`),
      h("td", {}, model.prediction_type.replaceAll("_", " ")), h("td", {}, model.licence),
    h("td", {}, model.available ? "yes" : h("details", {}, h("summary", {}, "no"),
      h("p", {}, prose(model.why_not)))));
}
