// What screens are made of: panels, tables with their CSV, gauges, dialogs, and the states of what is loading.

import { Expired, Problem, Unreachable } from "./api.js";
import { make, replace, say } from "./dom.js";
import { csv, number, save } from "./format.js";

// What goes wrong when it is pressed is said.
export const button = (label, press, more = {}) =>
  make("button", { type: "button", "data-key": label, click: async () => {
    try {
      await press();
    } catch (error) {
      say(words(error));
    }
  }, ...more }, label);
export const link = (address, text, more = {}) => make("a", { href: address, "data-key": address, ...more }, text);
export const mark = (text, tone = "") => make("span", { class: `mark ${tone}` }, text);
export const place = (name, ref) => `#/${name}/${encodeURIComponent(ref)}`;

export function head(title, says, ...acts) {
  const words = make("div", {}, make("h1", { tabindex: "-1" }, title), says && make("p", { class: "soft" }, says));
  return make("div", { class: "head" }, words, acts.length > 0 && make("div", { class: "acts" }, acts));
}

export function panel(title, says, acts, ...content) {
  const words = make("div", {}, make("h2", {}, title), says && make("p", { class: "soft" }, says));
  return make("section", { class: "panel" }, make("header", {}, words, make("div", { class: "acts" }, acts)), content);
}

// Numbers at the head of a screen; each is [name, value, unit].
export const tiles = (numbers) =>
  make("dl", { class: "tiles" }, numbers.map(([name, value, unit]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value, " ", make("small", {}, unit))),
  ));

// What is known of one thing; each is [name, value], and what has no value is left out.
export const facts = (all) =>
  make("dl", { class: "facts" }, all.filter(([, value]) => value).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

export function gauge(used, most) {
  const part = most ? Math.min(1, used / most) : 1;
  const bar = make("i", { class: `fill-${part >= 1 ? "bad" : part >= 0.8 ? "warn" : "ok"}` });
  bar.style.width = `${part * 100}%`;
  return make("span", { class: "gauge", "aria-hidden": "true" }, bar);
}

// Columns are {label, value, cell?, number?, act?}: `value` of a row goes into the CSV, `cell` is what is shown of it; a
// column whose `cell` is null is only in the CSV.
function line(columns, row) {
  const shown = ({ value, cell, number: isNumber }) => {
    const raw = value?.(row);
    const made = cell ? cell(row) : isNumber && raw != null ? number(raw) : raw;
    return Array.isArray(made) ? make("span", {}, made) : made;
  };
  return make("tr", { role: "row" }, columns.map((column) =>
    make("td", { role: "cell", class: column.act ? "act" : column.number ? "num" : null, "data-label": column.act ? "" : column.label }, shown(column)),
  ));
}

export function table(caption, all, rows) {
  const columns = all.filter(({ cell }) => cell !== null);
  const heads = columns.map(({ label, number: isNumber, act }) =>
    make("th", { role: "columnheader", scope: "col", class: isNumber ? "num" : null }, act ? make("span", { class: "hidden" }, label) : label),
  );
  // In a narrow panel a wide table shows each row as a list of its cells. Roles, because another display would undo them.
  return make("table", { role: "table", class: columns.length > 2 ? "tall" : null },
    make("caption", { class: "hidden" }, caption),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads)),
    make("tbody", { role: "rowgroup" }, rows.map((row) => line(columns, row))),
  );
}

export function csvButton(title, columns, rows) {
  const kept = columns.filter((column) => column.value);
  const name = `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}Z.csv`;
  const lines = () => [kept.map((column) => column.label), ...rows().map((row) => kept.map((column) => column.value(row)))];
  return button("CSV", () => save(name, csv(lines())), { "aria-label": `CSV of ${title}`, "data-key": `CSV of ${title}` });
}

// A panel with a table: its rows, what it says without any, and further pages if there is a way to get them.
export function list({ title, says, acts = [], columns, rows, empty, next }) {
  const all = [...rows];
  const body = make("div", {}, rows.length ? table(title, columns, rows) : make("p", { class: "note" }, empty));
  const more = make("div", { class: "more" });
  const follow = (get) => {
    more.hidden = !get;
    if (!get) return;
    const act = button("Show more", async () => {
      act.disabled = true;
      try {
        const page = await get();
        all.push(...page.rows);
        replace(body, table(title, columns, all));
        follow(page.next);
        say(`${page.rows.length} more rows`);
      } finally {
        act.disabled = false;
      }
    });
    replace(more, act);
  };
  follow(next);
  return panel(title, says, [acts, all.length > 0 && csvButton(title, columns, () => all)], body, more);
}

export function words(error) {
  if (!(error instanceof Problem)) return error.message;
  const fields = error.fields.map(({ field, rule, message }) => `${field}: ${rule ?? message}`);
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  return [error.message, ...fields].join(" ") + wait;
}

// What is shown instead of content that could not be loaded.
export function failure(error, again) {
  const id = error.requestId ? make("p", { class: "soft" }, "Request ", make("code", {}, error.requestId)) : null;
  const title = error instanceof Unreachable ? "No connection" : error.status === 404 ? "Not found" : "This could not be loaded";
  return make("div", { class: "panel note failed", role: "alert" }, make("strong", {}, title), make("p", {}, words(error)), id, again && button("Try again", again));
}

// Shows what `load` returns: at first that it is loading, then the content or what went wrong. Returns a function that
// loads again in place; content stays if that fails, because the banner says that the gateway cannot be reached.
export function loaded(view, load) {
  const body = make("div", { class: "body" });
  let filled = false;
  const waiting = setTimeout(() => !filled && replace(body, make("p", { class: "note", role: "status" }, "Loading …")), 200);
  async function again() {
    if (filled && !body.isConnected) return; // what contained it has been loaded again
    try {
      const content = await load();
      if (view.signal.aborted) return;
      replace(body, content);
      filled = true;
    } catch (error) {
      if (view.signal.aborted || error instanceof Expired) return;
      if (!filled || !(error instanceof Unreachable)) replace(body, failure(error, again));
    } finally {
      clearTimeout(waiting);
    }
  }
  view.wait(again());
  return { body, again };
}

function field({ name, label, hint, options, value, type = "text", ...more }) {
  if (type === "checkbox") return make("label", { class: "tick" }, make("input", { name, type, checked: value }), label);
  const input = options
    ? make("select", { name }, options.map(([key, text]) => make("option", { value: key, selected: key === value }, text)))
    : make("input", { name, type, value, autocomplete: "off", ...more });
  return make("label", {}, label, input, hint && make("small", {}, hint));
}

function valuesOf(form) {
  return Object.fromEntries([...form.elements].filter(({ name }) => name).map((one) => [one.name, one.type === "checkbox" ? one.checked : one.value.trim()]));
}

// Asks before something is done, does it, and says what was done. A refusal is shown in the dialog, which stays open.
export function ask({ title, says, fields = [], action, leave = "Cancel", risky, act, done }) {
  const wrong = make("p", { class: "wrong", role: "alert" });
  const go = make("button", { class: risky ? "risky" : "primary" }, action);
  const cancel = make("button", { type: "button", click: () => dialog.close() }, leave);
  const form = make("form", {}, make("h2", { id: "asked" }, title), says && make("p", {}, says), fields.map(field), wrong, make("div", { class: "acts" }, cancel, go));
  const dialog = make("dialog", { "aria-labelledby": "asked", close: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      const result = await act(valuesOf(form));
      dialog.close();
      await done?.(result);
    } catch (error) {
      wrong.textContent = words(error);
      go.disabled = false;
      if (error instanceof Expired) dialog.close();
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("input, select") ?? cancel).focus();
}

// Loads what has changed, then says what was done.
export const after = (again, text) => async (result) => {
  await again();
  say(typeof text === "function" ? text(result) : text);
};

// A form whose values are the query of the address: a filtered screen can be linked to, and Back undoes a filter.
export function filters(view, path, fields, action = "Show") {
  const form = make("form", { class: "filters", role: "search" }, fields.map((one) => {
    const label = field(one);
    if (one.grow) label.classList.add("grow");
    return label;
  }), make("button", { class: "primary", "data-key": "filter" }, action));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = Object.entries(valuesOf(form)).filter(([, value]) => value !== "" && value !== false);
    const address = `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
    if (location.hash === address) view.reload();
    else location.hash = address;
  });
  return form;
}
