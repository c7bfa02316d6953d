// Usage of everybody by day, user, room, ..., and who used most.

import { api } from "./api.js";
import { chart, OUTCOMES } from "./chart.js";
import { make } from "./dom.js";
import { day, daysAgo, minutes, number, save, sum } from "./format.js";
import { person } from "./names.js";
import { button, filters, head, link, list, loaded, place } from "./parts.js";
import { days, outcomes } from "./series.js";

const METERED = new Set(["minutes", "owned"]);
const GROUPS = [["action", "action"], ["day", "day"], ["user", "user"], ["room", "room"], ["template", "template"]];
const COUNTERS = [["tokens.mint.ok", "join tokens", "tokens"], ["rooms.create.ok", "rooms created", "rooms"], ["minutes", "minutes in rooms", "min"], ["owned", "minutes in their rooms", "min"], ["denials", "denied requests", "requests"]];

const KEYS = {
  day: [{ label: "Day (UTC)", value: (row) => row.date }],
  user: [{ label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) }],
  room: [
    { label: "Room", value: (row) => row.room_name || row.room_id, cell: (row) => link(place("rooms", row.room_id), row.room_name || row.room_id) },
    { label: "Room id", value: (row) => row.room_id, cell: (row) => make("span", { class: "id" }, row.room_id) },
  ],
  action: [],
  template: [{ label: "Template", value: (row) => row.template }],
};

function columns(group, currency) {
  const found = [
    ...KEYS[group],
    { label: "Action", value: (row) => row.action },
    { label: "Ok", number: true, value: (row) => row.ok, cell: (row) => (METERED.has(row.action) ? minutes : number)(row.ok) },
    { label: "Unit", value: (row) => (METERED.has(row.action) ? "minutes" : "requests") },
    { label: "Denied (requests)", number: true, value: (row) => sum(row.denied) },
    { label: "Refused (requests)", number: true, value: (row) => sum(row.refused) },
    { label: "Failed (requests)", number: true, value: (row) => row.failed },
  ];
  if (currency) found.push({ label: `Price (${currency})`, number: true, value: (row) => row.money, cell: (row) => row.money ?? "" });
  return found;
}

export function usage(view, { from = daysAgo(29), to = day(new Date()), group_by = "action", counter = "tokens.mint.ok", period = "month" }) {
  const form = filters(view, "usage", [
    { name: "from", label: "From (UTC day)", type: "date", value: from },
    { name: "to", label: "To (UTC day)", type: "date", value: to },
    { name: "group_by", label: "By", options: GROUPS, value: group_by },
    { name: "counter", label: "Top users by", options: COUNTERS.map(([key, text]) => [key, text]), value: counter },
    { name: "period", label: "Top of", options: [["month", "this month (UTC)"], ["day", "today (UTC)"]], value: period },
  ]);
  const charts = loaded(view, async () => {
    const report = await api.get("/api/admin/usage", { from, to, group_by: "day" }, view.signal);
    return make("div", { class: "two" }, daily(report));
  });
  const top = loaded(view, () => leaders(counter, period, view.signal));
  const page = async (cursor) => {
    const found = await api.get("/api/admin/usage", { from, to, group_by, limit: 100, cursor }, view.signal);
    return { rows: found.items, currency: found.currency, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const rows = loaded(view, async () => {
    const { rows, currency, next } = await page();
    const whole = button("CSV of all pages", () => file({ from, to, group_by }), { "aria-label": "CSV of all pages of the report" });
    return list({ title: `Usage by ${group_by}`, says: `${from} to ${to}, UTC days.`, acts: [whole], columns: columns(group_by, currency), rows, next, empty: "Nothing was used in this time." });
  });
  return [head("Usage", "Requests and participant-minutes of everybody."), form, charts.body, rows.body, top.body];
}

function daily({ from, to, items }) {
  const points = days(from, to).map((date) => {
    const rows = items.filter((row) => row.date === date);
    const values = { ...outcomes(rows.filter((row) => !METERED.has(row.action))), minutes: rows.find((row) => row.action === "minutes")?.ok ?? 0 };
    return { at: date, label: date, tick: date.slice(5), values };
  });
  return [
    chart({ title: "Requests by outcome", says: "Per UTC day.", unit: "requests", series: OUTCOMES, points }),
    chart({ title: "Participant-minutes", says: "Per UTC day.", unit: "min", whole: false, series: [{ key: "minutes", label: "In rooms", tone: "ok" }], points }),
  ];
}

async function leaders(counter, period, signal) {
  const today = day(new Date());
  const report = await api.get("/api/admin/usage/top", { counter, period: period === "day" ? today : today.slice(0, 7), limit: 20 }, signal);
  const [, text, unit] = COUNTERS.find(([key]) => key === counter) ?? [counter, counter, "requests"];
  const found = [
    { label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) },
    { label: `Count (${unit})`, number: true, value: (row) => row.count, cell: (row) => (unit === "min" ? minutes : number)(row.count) },
  ];
  if (report.currency && METERED.has(counter)) found.push({ label: `Price (${report.currency})`, number: true, value: (row) => row.money, cell: (row) => row.money ?? "" });
  return list({ title: `Top users by ${text}`, says: `${report.period}, UTC.`, columns: found, rows: report.items, empty: "Nobody has any." });
}

// The gateway's own file has all pages, not only those that are shown.
async function file(query) {
  const response = await api.open("/api/admin/usage", { ...query, format: "csv" });
  save(`usage-by-${query.group_by}-${query.from}-to-${query.to}-utc.csv`, await response.text());
}
