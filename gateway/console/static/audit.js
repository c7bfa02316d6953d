// The audit trail with filters.

import { api } from "./api.js";
import { make } from "./dom.js";
import { plain, time } from "./format.js";
import { nameOf, person } from "./names.js";
import { filters, head, list, loaded } from "./parts.js";

const detail = ({ details }) => Object.entries(details).filter(([, value]) => value !== "").map(([name, value]) => `${name}=${value}`).join(" ");
// Epochs are shown as times.
const EPOCHS = { exp: 1000, until_us: 0.001 };
function shown({ details }) {
  const times = Object.entries(details).map(([name, value]) => [name.replace("_us", ""), EPOCHS[name] ? `${plain(new Date(value * EPOCHS[name]).toISOString())} UTC` : value]);
  return detail({ details: Object.fromEntries(times) });
}

export const entries = [
  { label: "At (UTC)", value: (one) => one.at, cell: (one) => time(one.at) },
  { label: "Action", value: (one) => one.action },
  { label: "By", value: (one) => nameOf(one.by) || one.by, cell: (one) => person(one.by) },
  { label: "About", value: (one) => nameOf(one.subject) || one.subject, cell: (one) => (one.subject ? person(one.subject) : "") },
  { label: "Details", value: detail, cell: (one) => make("span", { class: "id" }, shown(one)) },
];
const request = { label: "Request", value: (one) => one.request_id, cell: (one) => make("span", { class: "id" }, one.request_id) };

// A browser's field for times has no time zone; here it is always UTC.
const utc = (local) => (local ? `${local.length === 16 ? `${local}:00` : local}Z` : "");

export function audit(view, { user = "", action = "", from = "", to = "" }) {
  const form = filters(view, "audit", [
    { name: "user", label: "By or about user", value: user, maxlength: 256 },
    { name: "action", label: "Action", value: action, placeholder: "login, limits.reset, …", pattern: "[a-z][a-z._\\-]{0,40}" },
    { name: "from", label: "From (UTC)", type: "datetime-local", value: from },
    { name: "to", label: "To (UTC)", type: "datetime-local", value: to },
  ]);
  const page = async (cursor) => {
    const found = await api.get("/api/admin/audit", { user, action, from: utc(from), to: utc(to), limit: 50, cursor }, view.signal);
    return { rows: found.items, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const trail = loaded(view, async () => {
    const { rows, next } = await page();
    return list({ title: "Entries", says: "The newest first.", columns: [...entries, request], rows, next, empty: "No entry matches." });
  });
  return [head("Audit trail", "Who did what, to whom, and when."), form, trail.body];
}
