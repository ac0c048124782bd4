"use strict";

/* Renders /openapi.json. Everything is set as text, never as markup. */

const METHODS = ["get", "post", "put", "patch", "delete"];

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function schemaName(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(schemaName).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${schemaName(schema.items)}`;
  return schema.type || "anything";
}

function bounds(schema) {
  const inner = (schema.anyOf || []).find((each) => each.type !== "null") || {};
  const all = { ...inner, ...schema };
  const words = {
    minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<",
    minLength: "characters ≥", maxLength: "characters ≤",
    minItems: "items ≥", maxItems: "items ≤", multipleOf: "multiple of", default: "default",
  };
  return Object.keys(words)
    .filter((key) => all[key] !== undefined && all[key] !== null)
    .map((key) => `${words[key]} ${JSON.stringify(all[key])}`)
    .join(", ");
}

function schemaLinks(schema) {
  const names = [...JSON.stringify(schema || {}).matchAll(/#\/components\/schemas\/([^"]+)/g)];
  const unique = [...new Set(names.map((match) => match[1]))];
  return unique.flatMap((name) => [
    element("a", { href: `#${name}` }, name),
    " ",
  ]);
}

function table(head, rows) {
  const cells = (row, kind) =>
    element("tr", {}, ...row.map((cell) => element(kind, {}, ...[cell].flat())));
  return element("table", {}, cells(head, "th"), ...rows.map((row) => cells(row, "td")));
}

function parameters(operation) {
  const found = operation.parameters || [];
  if (!found.length) return null;
  return table(
    ["parameter", "in", "type", "what"],
    found.map((each) => [
      element("code", {}, each.name),
      each.in,
      schemaName(each.schema),
      [bounds(each.schema), each.description].filter(Boolean).join(". "),
    ]),
  );
}

function body(operation) {
  const content = (operation.requestBody || {}).content;
  if (!content) return null;
  return element(
    "p", {}, "Body: ",
    ...Object.entries(content).flatMap(([type, media]) => [
      element("code", {}, type), " ", ...schemaLinks(media.schema),
    ]),
  );
}

function responses(operation) {
  return table(
    ["status", "what", "shape"],
    Object.entries(operation.responses).map(([status, response]) => [
      status,
      response.description,
      Object.values(response.content || {}).flatMap((media) => schemaLinks(media.schema)),
    ]),
  );
}

function operationView(path, method, operation) {
  return element(
    "details", {},
    element("summary", {},
      element("span", { className: "method" }, method),
      element("code", {}, path), " ",
      element("span", { className: "note" }, operation.summary || "")),
    operation.description ? element("p", {}, operation.description) : null,
    parameters(operation), body(operation), responses(operation),
  );
}

function schemaView(name, schema) {
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties || {}).map(([field, inner]) => [
    [element("code", {}, field), required.has(field) ? " *" : ""],
    [schemaName(inner), " ", ...schemaLinks(inner.items || {})],
    [bounds(inner), inner.description].filter(Boolean).join(". "),
  ]);
  return element(
    "details", { id: name },
    element("summary", {}, element("code", {}, name)),
    schema.description ? element("p", {}, schema.description) : null,
    table(["field (* needed)", "type", "what"], rows),
  );
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") target.open = true;
  if (target) target.scrollIntoView();
}

function render(document_) {
  const [about, ...rest] = document_.info.description.split("\n\n");
  document.getElementById("about").textContent = `${about} Version ${document_.info.version}.`;
  const groups = new Map();
  for (const [path, operations] of Object.entries(document_.paths)) {
    for (const method of METHODS.filter((each) => operations[each])) {
      const tag = (operations[method].tags || ["other"])[0];
      groups.set(tag, [...(groups.get(tag) || []), operationView(path, method, operations[method])]);
    }
  }
  const main = document.getElementById("operations");
  const index = document.getElementById("index");
  for (const [tag, views] of groups) {
    index.append(element("a", { href: `#${tag}` }, tag));
    main.append(element("h2", { id: tag }, tag), ...views);
  }
  index.append(element("a", { href: "#codes" }, "codes"));
  main.append(element("h2", { id: "codes" }, "codes"), codes(rest.join("\n")));
  document.getElementById("schemas").append(
    element("h2", {}, "shapes"),
    ...Object.entries(document_.components.schemas).map(([name, schema]) => schemaView(name, schema)),
  );
  openTarget();
}

function codes(text) {
  const rows = [...text.matchAll(/^- `(\w+)`: (.*)$/gm)];
  return table(
    ["code", "what"],
    rows.map(([, code, what]) => [element("code", { id: code }, code), what]),
  );
}

addEventListener("hashchange", openTarget);
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(render)
  .catch((error) => {
    document.getElementById("operations").textContent = `/openapi.json cannot be read: ${error}`;
  });
