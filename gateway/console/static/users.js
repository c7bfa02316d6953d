// The list of accounts with a search. Without `users:manage` there is only the way to a user whose name is known.

import { api } from "./api.js";
import { make } from "./dom.js";
import { time } from "./format.js";
import { learn } from "./names.js";
import { ask, button, filters, head, link, list, loaded, mark, place } from "./parts.js";

const columns = [
  { label: "User", value: (one) => one.username, cell: (one) => link(place("users", one.username), one.username) },
  { label: "Display name", value: (one) => one.display_name },
  { label: "Roles", value: (one) => one.roles.join(" "), cell: (one) => one.roles.join(", ") },
  { label: "Status", value: (one) => one.status, cell: (one) => status(one) },
  { label: "Created (UTC)", value: (one) => one.created_at, cell: (one) => time(one.created_at) },
  { label: "Id", value: (one) => one.id, cell: (one) => make("span", { class: "id" }, one.id) },
];
export const status = (one) => mark(one.status, one.status === "active" ? "good" : "warn");

async function page(name, cursor) {
  const found = await api.get("/api/admin/users", { name, limit: 100, cursor });
  for (const one of found.users) learn(one.id, one.username);
  return { rows: found.users, next: found.next_cursor ? () => page(name, cursor = found.next_cursor) : null };
}

export function users(view, { name = "" }) {
  if (!api.may("users:manage")) return [head("Users", "Open a user by their name or id."), opener()];
  const search = filters(view, "users", [{ name: "name", label: "Name begins with", type: "search", value: name, maxlength: 64, grow: true }], "Search");
  const found = loaded(view, async () => {
    const { rows, next } = await page(name);
    const empty = name ? `No user's name begins with “${name}”.` : "There are no users.";
    return list({ title: name ? `Users named ${name}…` : "All users", says: "By name.", columns, rows, next, empty });
  });
  return [head("Users", "Accounts of this gateway.", button("Add user", add, { class: "primary" })), search, found.body];
}

function opener() {
  const input = make("input", { name: "user", type: "search", required: true, autocomplete: "off", maxlength: 256 });
  const form = make("form", { class: "filters", role: "search" }, make("label", { class: "grow" }, "Name or id", input), make("button", { class: "primary" }, "Open"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = place("users", input.value.trim());
  });
  return form;
}

function add() {
  ask({
    title: "Add a user",
    says: "They cannot log in until they have set a password: create a password link on their page.",
    fields: [
      { name: "username", label: "User name", required: true, minlength: 3, maxlength: 64, autocapitalize: "none", spellcheck: "false" },
      { name: "display_name", label: "Display name", maxlength: 100 },
      { name: "roles", label: "Roles", hint: "Names of roles in the policy, separated by spaces.", required: true },
    ],
    action: "Add",
    act: ({ username, display_name, roles }) => api.post("/api/admin/users", { username, roles: roles.split(/[\s,]+/).filter(Boolean), display_name: display_name || null }),
    done: ({ user }) => (location.hash = place("users", user.username)),
  });
}
