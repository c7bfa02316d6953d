// Names of users: what an answer says of them shows wherever the page has only their ids.

import { make } from "./dom.js";
import { link, place } from "./parts.js";

const known = new Map();

export function learn(id, name) {
  if (!id || !name || known.get(id) === name) return;
  known.set(id, name);
  for (const one of document.querySelectorAll(`a[data-user="${CSS.escape(id)}"]`)) {
    one.textContent = name;
    one.classList.remove("id");
  }
}

// A link to a user by id, with their name if it is known by now.
export function person(id, name = "") {
  learn(id, name);
  if (!id) return make("span", { class: "soft" }, "–");
  if (id === "cli") return make("span", { class: "soft" }, "command line");
  return link(place("users", id), known.get(id) ?? id, { class: known.has(id) ? null : "id", "data-user": id });
}
