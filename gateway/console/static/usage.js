// Usage of all users by day, user, room, ..., and who used most.

import { api } from "./api.js";
import { chart, OUTCOMES } from "./chart.js";
import { make } from "./dom.js";
import { minutes, number, save, sum, today } from "./format.js";
import { person } from "./names.js";
import { button, filters, head, link, list, loaded, place } from "./parts.js";
import { days, fillDays, outcomes } from "./series.js";

const METERED = new Set(["minutes", "owned"]);
const GROUPS = [["action", "action"], ["day", "day"], ["user", "user"], ["room", "room"], ["template", "template"]];
const COUNTERS = [["tokens.mint.ok", "join tokens", "tokens"], ["rooms.create.ok", "rooms created", "rooms"], ["minutes", "minutes in rooms", "min"], ["owned", "minutes in their rooms", "min"], ["denials", "denied requests", "requests"]];

const KEYS = {
  day: [{ label: "Day", value: (row) => row.date }],
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

export function usage(view, { from, to, group_by = "action", counter = "tokens.mint.ok", period = "month" }) {
  const form = filters(view, "usage", [
    { name: "from", label: "From", type: "date", value: from },
    { name: "to", label: "To", type: "date", value: to },
    { name: "group_by", label: "By", options: GROUPS, value: group_by },
    { name: "counter", label: "Top users by", options: COUNTERS.map(([key, text]) => [key, text]), value: counter },
    { name: "period", label: "Top of", options: [["month", "this month"], ["day", "today"]], value: period },
  ]);
  // Without days the gateway reports the last 30, in its own time zone.
  const report = loaded(view, async () => {
    const daily = await api.get("/api/admin/usage", { from, to, group_by: "day" }, view.signal);
    fillDays(form, daily);
    const asked = { from: daily.from, to: daily.to, group_by };
    return [make("div", { class: "two" }, byDay(daily)), rows(view, asked, daily.time_zone), leaders(view, counter, period, daily.time_zone)];
  });
  return [head("Usage", "Requests and participant-minutes of all users."), form, report.body];
}

function byDay({ from, to, time_zone: zone, items }) {
  const points = days(from, to).map((date) => {
    const rows = items.filter((row) => row.date === date);
    const values = { ...outcomes(rows.filter((row) => !METERED.has(row.action))), minutes: rows.find((row) => row.action === "minutes")?.ok ?? 0 };
    return { at: date, label: date, tick: date.slice(5), values };
  });
  const says = `By day in ${zone}.`;
  return [
    chart({ title: "Requests by outcome", says, unit: "requests", zone, series: OUTCOMES, points }),
    chart({ title: "Participant-minutes", says, unit: "min", zone, whole: false, series: [{ key: "minutes", label: "In rooms", tone: "ok" }], points }),
  ];
}

function rows(view, asked, zone) {
  const page = async (cursor) => {
    const found = await api.get("/api/admin/usage", { ...asked, limit: 100, cursor }, view.signal);
    return { rows: found.items, currency: found.currency, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const whole = button("CSV of all pages", () => file(asked), { "aria-label": "CSV of all pages of the report" });
  return loaded(view, async () => {
    const { rows, currency, next } = await page();
    const group = asked.group_by;
    return list({ title: `Usage by ${group}`, says: `${asked.from} to ${asked.to}, days in ${zone}.`, acts: [whole], columns: columns(group, currency), rows, next, empty: "Nothing was used in this time." });
  }).body;
}

function leaders(view, counter, period, zone) {
  const [, text, unit] = COUNTERS.find(([key]) => key === counter) ?? [counter, counter, "requests"];
  return loaded(view, async () => {
    const asked = { counter, period: today(zone).slice(0, period === "day" ? 10 : 7), limit: 20 };
    const report = await api.get("/api/admin/usage/top", asked, view.signal);
    const found = [
      { label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) },
      { label: `Count (${unit})`, number: true, value: (row) => row.count, cell: (row) => (unit === "min" ? minutes : number)(row.count) },
    ];
    if (report.currency && METERED.has(counter)) found.push({ label: `Price (${report.currency})`, number: true, value: (row) => row.money, cell: (row) => row.money ?? "" });
    return list({ title: `Top users by ${text}`, says: `${report.period} in ${zone}.`, columns: found, rows: report.items, empty: "No user has any." });
  }).body;
}

// The gateway's own file has all pages, not only those that are shown.
async function file(query) {
  const response = await api.open("/api/admin/usage", { ...query, format: "csv" });
  const [, name] = response.headers.get("Content-Disposition").match(/filename="([^"]+)"/);
  save(name, await response.text());
}
