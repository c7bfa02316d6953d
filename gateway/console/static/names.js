// Names of users. Most answers of the API bring them; the audit trail has only ids, whose names are asked for.

import { api } from "./api.js";
import { make } from "./dom.js";
import { link, place } from "./parts.js";

const known = new Map();
const MOST_ASKED = 25;

export function learn(id, name) {
  if (id && name) known.set(id, name);
}

// A link to a user by id, with their name if it is known by now.
export function person(id, name = "") {
  learn(id, name);
  if (!id) return make("span", { class: "soft" }, "nobody");
  if (id === "cli") return make("span", { class: "soft" }, "command line");
  return link(place("users", id), known.get(id) ?? id, { class: known.has(id) ? null : "id", "data-user": id });
}

export const nameOf = (id) => known.get(id) ?? "";

// Asks for the names of the ids on the page that are not known, and shows them.
export async function resolve(within) {
  if (!api.may("users:manage")) return;
  const links = [...within.querySelectorAll("a[data-user]")].filter((one) => !known.has(one.dataset.user));
  const ids = [...new Set(links.map((one) => one.dataset.user))].slice(0, MOST_ASKED);
  await Promise.all(ids.map(async (id) => {
    const answer = await api.get(`/api/admin/users/${encodeURIComponent(id)}`).catch(() => null);
    learn(id, answer?.user.username);
  }));
  for (const one of links) {
    if (!known.has(one.dataset.user)) continue;
    one.textContent = known.get(one.dataset.user);
    one.classList.remove("id");
  }
}
