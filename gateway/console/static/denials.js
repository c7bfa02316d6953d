// What limits denied: by day, limit, action and user.

import { api } from "./api.js";
import { chart } from "./chart.js";
import { day, daysAgo, number, sum } from "./format.js";
import { person } from "./names.js";
import { filters, head, list, loaded, tiles } from "./parts.js";
import { days } from "./series.js";

const TONES = ["warn", "idle", "bad", "ok"];

const columns = [
  { label: "Limit", value: (row) => row.limit },
  { label: "Action", value: (row) => row.action },
  { label: "Denied (requests)", number: true, value: (row) => row.count },
];

export function denials(view, { from = daysAgo(29), to = day(new Date()) }) {
  const form = filters(view, "denials", [
    { name: "from", label: "From (UTC day)", type: "date", value: from },
    { name: "to", label: "To (UTC day)", type: "date", value: to },
  ]);
  const found = loaded(view, async () => {
    const [report, top] = await Promise.all([
      api.get("/api/admin/usage", { from, to, group_by: "day" }, view.signal),
      api.get("/api/admin/usage/top", { counter: "denials", period: to.slice(0, 7), limit: 20 }, view.signal),
    ]);
    const rows = byLimit(report.items);
    const limits = [...new Set(rows.map((row) => row.limit))];
    const shown = limits.slice(0, TONES.length - (limits.length > TONES.length ? 1 : 0));
    const series = shown.map((limit, index) => ({ key: limit, label: limit, tone: TONES[index] }));
    if (shown.length < limits.length) series.push({ key: "", label: "others", tone: TONES.at(-1) });
    const points = days(report.from, report.to).map((date) => {
      const values = {};
      for (const { date: on, denied } of report.items) {
        if (on !== date) continue;
        for (const [limit, count] of Object.entries(denied)) {
          const key = shown.includes(limit) ? limit : "";
          values[key] = (values[key] ?? 0) + count;
        }
      }
      return { at: date, label: date, tick: date.slice(5), values };
    });
    const all = sum(rows.map((row) => row.count));
    const asked = sum(report.items.filter((row) => !("seconds" in row)).map((row) => row.ok + sum(row.denied) + sum(row.refused) + row.failed));
    return [
      tiles([["Denied", number(all), all === 1 ? "request" : "requests"], ["Of all counted requests", asked ? number(Math.round((all / asked) * 10_000) / 100) : "0", "%"], ["Limits that denied", number(limits.length), limits.length === 1 ? "limit" : "limits"]]),
      series.length > 0 && chart({ title: "Denied requests by limit", says: "Per UTC day.", unit: "requests", series, points }),
      list({ title: "By limit and action", says: `${from} to ${to}, UTC days.`, columns, rows, empty: "No limit denied anything in this time." }),
      list({
        title: "Users who were denied most", says: `${top.period}, UTC.`, rows: top.items, empty: "Nobody was denied.",
        columns: [
          { label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) },
          { label: "Denied (requests)", number: true, value: (row) => row.count },
        ],
      }),
    ];
  });
  return [head("Denials", "Requests that a limit or a quota denied."), form, found.body];
}

function byLimit(items) {
  const counts = new Map();
  for (const { action, denied } of items)
    for (const [limit, count] of Object.entries(denied)) {
      const key = `${limit}\n${action}`;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  const rows = [...counts].map(([key, count]) => ({ limit: key.split("\n")[0], action: key.split("\n")[1], count }));
  return rows.sort((one, other) => other.count - one.count);
}
