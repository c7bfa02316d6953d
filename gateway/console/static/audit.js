// The audit trail with filters.

import { api } from "./api.js";
import { make } from "./dom.js";
import { plain, time } from "./format.js";
import { person } from "./names.js";
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
  { label: "By", value: (one) => one.by_name || one.by, cell: (one) => person(one.by, one.by_name) },
  { label: "About", value: (one) => one.subject_name || one.subject, cell: (one) => (one.subject ? person(one.subject, one.subject_name) : "") },
  { label: "Details", value: detail, cell: (one) => make("span", { class: "id" }, shown(one)) },
];
// On its own screen an entry has its request, too: a column of the CSV, but shown with the details.
const whole = [
  ...entries.slice(0, -1),
  { ...entries.at(-1), cell: (one) => make("span", { class: "id" }, [shown(one), one.request_id && `request=${one.request_id}`].filter(Boolean).join(" ")) },
  { label: "Request", value: (one) => one.request_id, cell: null },
];

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
    return list({ title: "Entries", says: "The newest first.", columns: whole, rows, next, empty: "No entry matches." });
  });
  return [head("Audit trail", "Who did what, to whom, and when."), form, trail.body];
}
