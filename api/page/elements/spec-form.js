/* A form made of a spec's schema: labels, help, bounds and defaults are the server's own. Which
 * fields come first, and in which group the others are folded, is said by a layout. */

import { choose, h, newId, prose, replace } from "../dom.js";

export class SpecForm extends HTMLElement {
  /**
   * `schemas` are those of /openapi.json, `name` the spec's. `layout` is `{first: [field], groups:
   * {title: [field]}}`. `widgets` make controls of our own for fields that need one: each is a
   * function that returns an element with `value`. `labels` and `helps` are our words where the
   * schema's are not for this place. `hidden` tells by the form's value which fields have no say.
   */
  constructor({ schemas, name, layout, widgets, labels, helps, hidden }) {
    super();
    this.schemas = schemas;
    this.schema = schemas[name];
    this.layout = layout;
    this.widgets = widgets;
    this.labels = labels;
    this.helps = helps;
    this.hiddenIn = hidden;
    this.fields = new Map();
  }

  connectedCallback() {
    if (this.fields.size) return;
    const add = (names) => names.map((name) => this.field(name));
    const first = h("div", { class: "fields" }, add(this.layout.first));
    const groups = Object.entries({ ...this.layout.groups, More: this.unplaced });
    replace(this, first,
      groups.filter(([, names]) => names.length).map(([title, names]) =>
        h("details", { class: "group" }, h("summary", {}, title), h("div", { class: "fields" }, add(names)))));
    this.addEventListener("input", () => this.hide());
    this.addEventListener("change", () => this.hide());
    this.hide();
  }

  /** Fields of which the layout does not know yet. What takes null alone is not built. */
  get unplaced() {
    const placed = new Set([this.layout.first, ...Object.values(this.layout.groups)].flat());
    return Object.keys(this.schema.properties).filter((name) => !placed.has(name)
      && this.schema.properties[name].type !== "null");
  }

  field(name) {
    const field = fieldOf(this, name, this.schema, `/spec/${name}`);
    this.fields.set(name, field);
    return field.element;
  }

  /** The spec: what is empty is left out, for the server to fill in. */
  get value() {
    return valueOf([...this.fields].filter(([, field]) => !field.element.hidden));
  }

  /** What of `spec` the form knows. */
  set value(spec) {
    for (const [name, field] of this.fields) if (name in spec) field.write(spec[name]);
    this.hide();
  }

  hide() {
    const hidden = new Set(this.hiddenIn(this.value));
    for (const [name, { element }] of this.fields) element.hidden = hidden.has(name);
  }

  /** Labels of what must be filled in and is not, or cannot be read. */
  get missing() {
    const required = this.schema.required.filter((name) => !this.fields.get(name).element.hidden);
    const empty = required.filter((name) => !(name in this.value));
    const unreadable = this.unreadable.map((place) => place.dataset.field);
    return [...new Set([...empty, ...unreadable])].map((name) => this.label(name));
  }

  /** Fields whose number is none: a browser says that nothing is in them, which means their default. */
  get unreadable() {
    const bad = [...this.querySelectorAll("input")].filter((input) => input.validity.badInput);
    return bad.filter((input) => !input.closest("[hidden]")).map((input) => input.closest("[data-pointer]"));
  }

  label(name) {
    if (this.labels[name]) return this.labels[name];
    const words = name.replaceAll("_", " ");
    return words[0].toUpperCase() + words.slice(1);
  }

  help(name, { description = "" }) {
    const text = this.helps[name] ?? description;
    return prose(text.replaceAll(/(\. )?\bnull\b/g, (_, stop) => (stop ? ". Empty" : "Empty")));
  }

  /** Says each refusal beside its field; returns those that belong to none. */
  explain(errors) {
    const places = [...this.querySelectorAll("[data-pointer]")];
    for (const place of places) mark(place, "");
    for (const place of this.unreadable) mark(place, "This is not a number.");
    return errors.filter(({ pointer, detail }) => {
      const place = places.filter((each) => within(pointer, each.dataset.pointer)).at(-1);
      if (!place || place.closest("[hidden]")) return true;
      mark(place, detail);
      place.closest("details")?.setAttribute("open", "");
      return false;
    });
  }
}
customElements.define("spec-form", SpecForm);

function within(pointer, field) {
  return pointer === field || pointer.startsWith(`${field}/`);
}

function mark(place, detail) {
  const problem = place.querySelector(":scope > .problem");
  const input = place.querySelector(".control");
  replace(problem, detail && prose(detail));
  if (detail) input?.setAttribute("aria-invalid", "true");
  else input?.removeAttribute("aria-invalid");
}

function valueOf(fields) {
  const given = fields.map(([name, field]) => [name, field.read()]);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** What `anyOf` and `$ref` amount to: the schema that a value other than null has. */
function plain(form, schema) {
  const choices = schema.anyOf || [schema];
  const some = choices.filter((each) => each.type !== "null");
  const inner = some[0]?.$ref ? form.schemas[some[0].$ref.split("/").pop()] : some[0];
  return { ...inner, ...schema, choices: some, isOptional: some.length < choices.length,
    properties: inner?.properties };
}

/** Of one property: `element` with label, help and place for a refusal, `read` and `write`. */
function fieldOf(form, name, owner, pointer) {
  const schema = plain(form, owner.properties[name]);
  if (schema.properties && !form.widgets[name]) return groupOf(form, name, schema, pointer);
  const control = form.widgets[name] ? own(form.widgets[name]()) : controlOf(schema);
  const id = newId("field");
  const isNeeded = owner === form.schema && owner.required.includes(name);
  control.input.id = id;
  control.input.classList.add("control");
  control.input.setAttribute("aria-describedby", `${id}-help ${id}-problem`);
  const words = [form.label(name), isNeeded && h("span", { class: "needed" }, " needed")];
  const isOne = control.input.matches("input, select, textarea");
  const label = isOne ? h("label", { for: id }, words) : h("p", { class: "label", id: `${id}-label` }, words);
  if (!isOne) {
    control.input.setAttribute("role", "group");
    control.input.setAttribute("aria-labelledby", label.id);
  }
  const element = h("div", { class: `field ${control.kind}`, "data-pointer": pointer, "data-field": name },
    label, control.input,
    h("p", { class: "help", id: `${id}-help` }, form.help(name, schema)),
    h("p", { class: "problem", id: `${id}-problem` }));
  return { ...control, element };
}

function own(input) {
  const read = () => (input.value === "" || input.value?.length === 0 ? undefined : input.value);
  const write = (value) => {
    if (input.matches("select")) choose(input, value ?? "");
    else input.value = value ?? "";
  };
  return { kind: "own", input, read, write };
}

/** A field that is an object: a set of fields, with a switch where it may be left out. */
function groupOf(form, name, schema, pointer) {
  const inner = Object.keys(schema.properties)
    .filter((each) => schema.properties[each].type !== "null")
    .map((each) => [each, fieldOf(form, each, schema, `${pointer}/${each}`)]);
  const id = newId("group");
  const isUsual = schema.isOptional && Boolean(schema.default);
  const toggle = h("input", { type: "checkbox", id, class: "control", checked: isUsual });
  const box = h("div", { class: "fields" }, inner.map(([, field]) => field.element));
  const show = () => { box.hidden = schema.isOptional && !toggle.checked; };
  toggle.addEventListener("change", show);
  show();
  const element = h("fieldset", { "data-pointer": pointer, "data-field": name },
    h("legend", {}, schema.isOptional ? h("label", { class: "check", for: id }, toggle, form.label(name))
      : form.label(name)),
    h("p", { class: "help" }, form.help(name, schema)),
    box, h("p", { class: "problem" }));
  return {
    element,
    read: () => (box.hidden ? (isUsual ? null : undefined) : valueOf(inner)),
    write: (value) => {
      toggle.checked = value !== null;
      for (const [each, field] of inner) if (value && each in value) field.write(value[each]);
      show();
    },
  };
}

function controlOf(schema) {
  if (schema.enum) return choiceOf(schema, schema.enum);
  if (schema.choices.length > 1
    && schema.choices.some((each) => each.type === "boolean")) return choiceOf(schema, ["auto", true, false]);
  if (schema.type === "boolean") return switchOf(schema);
  const { type } = schema.choices[0];
  if (type === "integer" || type === "number") return numberOf(schema, schema.choices[0]);
  if (type === "array") return listOf(schema.choices[0].items);
  return textOf(schema.choices[0]);
}

const WORDS = new Map([[true, "on"], [false, "off"]]);

function choiceOf(schema, values) {
  const input = h("select", {}, values.map((value, at) =>
    h("option", { value: at, selected: value === schema.default },
      WORDS.get(value) || value.replaceAll("_", " "))));
  return { kind: "short", input, read: () => values[input.value],
    write: (value) => { input.value = values.indexOf(value); } };
}

function switchOf(schema) {
  const input = h("input", { type: "checkbox", checked: schema.default });
  return { kind: "switch", input, read: () => input.checked, write: (value) => { input.checked = value; } };
}

function numberOf(schema, bounds) {
  const input = h("input", {
    type: "number", inputmode: bounds.type === "integer" ? "numeric" : "decimal",
    min: bounds.minimum ?? bounds.exclusiveMinimum, max: bounds.maximum ?? bounds.exclusiveMaximum,
    step: bounds.multipleOf || (bounds.type === "integer" ? 1 : "any"),
    placeholder: /Default:? (\d+)/.exec(schema.description || "")?.[1] || "auto", value: schema.default,
  });
  return {
    kind: "short", input,
    read: () => (input.value === "" ? undefined : Number(input.value)),
    write: (value) => { input.value = value ?? ""; },
  };
}

/** One a line; numbers may also stand in one line. */
function listOf(items) {
  const isText = items.type === "string";
  const input = h("textarea", { rows: 2 });
  const read = () => {
    const parts = input.value.split(isText ? "\n" : /[\s,]+/).filter((part) => part.trim());
    return parts.length ? parts.map((part) => (isText ? part : Number(part))) : undefined;
  };
  return { kind: isText ? "long" : "short", input, read,
    write: (value) => { input.value = isText ? lines(value ?? []) : (value ?? []).join(", "); } };
}

/** Texts one a line: a break inside of one is a space to those who read it. */
export function lines(texts) {
  return texts.map((text) => text.replaceAll(/\s*\n\s*/g, " ")).join("\n");
}

function textOf({ maxLength }) {
  const input = h("textarea", { rows: maxLength > 200 ? 3 : 1, maxlength: maxLength });
  return {
    kind: maxLength > 200 ? "long" : "middle", input,
    read: () => (input.value.trim() === "" ? undefined : input.value),
    write: (value) => { input.value = value ?? ""; },
  };
}
