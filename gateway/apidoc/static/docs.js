// Shows /openapi.json. All content is inserted as text, never as HTML; nothing is loaded from another host.
"use strict";

const at = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== undefined && child !== ""));
  return element;
}

// `words` in backticks become code.
const prose = (text = "") => text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
const paragraphs = (text = "") => text.split(/\n\n+/).map((part) => make("p", {}, prose(part)));
// A long path may break after a slash.
const broken = (path) => path.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);
const nameOf = (reference) => reference.$ref.split("/").pop();
const RULES = { minimum: "at least", maximum: "at most", maxLength: "length at most", maxItems: "items at most", default: "default" };

function table(head, rows) {
  if (rows.length === 0) return [];
  const line = (cells, tag) => make("tr", {}, cells.map((cell) => make(tag, {}, cell)));
  const body = rows.map((cells) => line(cells, "td"));
  return [make("div", { class: "wide" }, make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, body)))];
}

class Page {
  constructor(api) {
    this.api = api;
    this.operations = Object.entries(api.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, one]) => ({ method, path, one })),
    );
  }

  seen(place) {
    if (!place.$ref) return place;
    return place.$ref.split("/").slice(1).reduce((found, part) => found[part], this.api);
  }

  show() {
    document.title = `${this.api.info.title}: the API`;
    at("version").textContent = this.api.info.version;
    at("main").append(...paragraphs(this.api.info.description));
    for (const tag of this.api.tags) {
      const mine = this.operations.filter(({ one }) => one.tags.includes(tag.name));
      const section = make("section", {}, make("h2", {}, tag.name), make("p", { class: "soft" }, tag.description));
      section.append(...mine.map((operation) => this.operation(operation)));
      at("main").append(section);
      const links = mine.map(({ method, path, one }) =>
        make("li", {}, make("a", { href: `#${one.operationId}` }, this.method(method), make("span", {}, broken(path)))),
      );
      at("nav").append(make("section", {}, make("h2", {}, tag.name), make("ul", {}, links)));
    }
    this.schemas();
  }

  method(name) {
    return make("span", { class: `method ${name}` }, name.toUpperCase());
  }

  operation({ method, path, one }) {
    const head = make("summary", {}, this.method(method), make("span", { class: "path" }, path));
    head.append(make("span", { class: "says" }, prose(one.summary)));
    const body = make("div", {}, one.description ? paragraphs(one.description) : []);
    body.append(make("p", {}, make("strong", {}, "Allowed to: "), prose(`${one["x-who"]}.`)));
    const parameters = (one.parameters ?? []).map((each) => this.seen(each));
    body.append(...this.parameters(parameters), ...this.body(one.requestBody), ...this.example(method, path, one));
    body.append(make("h3", {}, "Responses"), ...this.answers(one.responses));
    return make("details", { id: one.operationId }, head, body);
  }

  parameters(all) {
    const rows = all.map(({ name, in: place, required, schema, description }) => [
      make("code", {}, name), `${place}${required ? ", required" : ""}`, this.type(schema), prose(description),
    ]);
    return rows.length ? [make("h3", {}, "Parameters"), ...table(["name", "in", "type", "description"], rows)] : [];
  }

  body(request) {
    if (!request) return [];
    const schema = request.content["application/json"].schema;
    return [make("h3", {}, "Body (JSON)"), ...this.fields(this.seen(schema), "required")];
  }

  fields({ properties, required }, needed) {
    const rows = Object.entries(properties).map(([name, rules]) => [
      make("code", {}, name), required.includes(name) ? "yes" : "no", this.type(rules), prose(rules.description),
    ]);
    return table(["field", needed, "type", "description"], rows);
  }

  example(method, path, { requestBody, security }) {
    const words = [`curl -X ${method.toUpperCase()} '${location.origin}${path}'`];
    if (security) words.push(`-H "Authorization: Bearer $TOKEN"`);
    if (requestBody) {
      const example = requestBody.content["application/json"].example ?? {};
      words.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(example).replaceAll("'", "'\\''")}'`);
    }
    return [make("h3", {}, "Example"), make("pre", { tabindex: "0" }, make("code", {}, words.join(" \\\n  ")))];
  }

  answers(responses) {
    const rows = Object.entries(responses).map(([status, place]) => {
      const { description, content, headers } = this.seen(place);
      const schema = Object.values(content ?? {})[0]?.schema;
      const fields = schema?.allOf ? [] : Object.keys(headers).flatMap((name) => [" ", make("code", {}, name)]);
      return [status, schema ? this.type(schema.allOf?.[0] ?? schema) : "", [...prose(description), ...fields]];
    });
    return table(["status", "body", "codes of a refusal, header fields of a success"], rows);
  }

  type(rules) {
    if (rules.$ref) return make("a", { href: `#schema-${nameOf(rules)}` }, nameOf(rules));
    const span = make("span", {});
    if (rules.anyOf) rules.anyOf.forEach((kind, index) => span.append(index ? " or " : "", this.type(kind)));
    else if (rules.const !== undefined) span.append(make("code", {}, String(rules.const)));
    else if (rules.enum) span.append(...rules.enum.slice(0, 60).flatMap((one) => [make("code", {}, String(one)), " "]));
    else if (rules.type === "array") span.append("list of ", this.type(rules.items));
    else if (rules.type === "object" && rules.additionalProperties) span.append("object of ", this.type(rules.additionalProperties));
    else span.append(rules.format ?? rules.type);
    for (const [rule, words] of Object.entries(RULES)) if (rules[rule] != null) span.append(`, ${words} ${rules[rule]}`);
    return span;
  }

  schemas() {
    const section = make("section", {}, make("h2", {}, "Structures"));
    for (const [name, schema] of Object.entries(this.api.components.schemas)) {
      const head = make("summary", {}, make("span", { class: "path" }, name));
      const body = make("div", {}, paragraphs(schema.description), this.fields(schema, "always"));
      section.append(make("details", { id: `schema-${name}` }, head, body));
    }
    at("main").append(section);
  }
}

// Shows only what contains every word of the search, on the page and in the list of routes.
function search() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const details of document.querySelectorAll("details")) {
    const text = details.textContent.toLowerCase();
    details.hidden = !words.every((word) => text.includes(word));
    found += details.hidden ? 0 : 1;
    const link = document.querySelector(`nav a[href="#${details.id}"]`);
    if (link) link.parentElement.hidden = details.hidden;
  }
  for (const section of document.querySelectorAll("section"))
    section.hidden = !section.querySelector("details:not([hidden]), li:not([hidden])");
  at("status").hidden = words.length === 0;
  at("status").textContent = found ? `${found} found` : "No route or structure contains all of these words.";
}

function openTarget() {
  const target = at(decodeURIComponent(location.hash.slice(1)));
  if (!(target instanceof HTMLDetailsElement)) return;
  if (target.hidden) {
    at("search").value = "";
    search();
  }
  target.open = true;
  target.scrollIntoView();
  target.querySelector("summary").focus({ preventScroll: true });
}

at("search").addEventListener("input", search);
at("all").addEventListener("click", () => {
  const open = at("all").getAttribute("aria-pressed") !== "true";
  for (const details of document.querySelectorAll("details:not([hidden])")) details.open = open;
  at("all").setAttribute("aria-pressed", String(open));
  at("all").textContent = open ? "Close all" : "Open all";
});
addEventListener("hashchange", openTarget);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target === at("search")) return;
  event.preventDefault();
  at("search").focus();
});

fetch("/openapi.json")
  .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`status ${response.status}`))))
  .then((api) => {
    new Page(api).show();
    at("status").hidden = true;
    openTarget();
  })
  .catch((error) => {
    at("status").textContent = `The API document cannot be shown (${error.message}).`;
  });
