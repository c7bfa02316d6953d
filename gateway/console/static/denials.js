// What limits denied: by day, limit, action and user.

import { api } from "./api.js";
import { chart } from "./chart.js";
import { count, number, unitOf } from "./format.js";
import { person } from "./names.js";
import { filters, head, list, loaded, tiles } from "./parts.js";
import { days, fillDays } from "./series.js";

const TONES = ["warn", "idle", "bad", "ok"];
const OTHERS = "others";

const columns = [
  { label: "Limit", value: (row) => row.limit },
  { label: "Action", value: (row) => row.action },
  { label: "Denied (requests)", number: true, value: (row) => row.count },
];
const users = [
  { label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) },
  { label: "Denied (requests)", number: true, value: (row) => row.count },
];

export function denials(view, { from, to }) {
  const form = filters(view, "denials", [
    { name: "from", label: "From", type: "date", value: from },
    { name: "to", label: "To", type: "date", value: to },
  ]);
  const found = loaded(view, async () => {
    const report = await api.get("/api/admin/denials", { from, to }, view.signal);
    fillDays(form, report);
    const top = await api.get("/api/admin/usage/top", { counter: "denials", period: report.to.slice(0, 7), limit: 20 }, view.signal);
    const [most] = report.limits, zone = report.time_zone;
    return [
      tiles([
        ["Denied", number(report.total), unitOf(report.total, "requests")],
        ["Limit that denied most", most?.limit ?? "none", most ? count(most.count, "requests") : ""],
        ["Action that was denied most", report.actions[0]?.action ?? "none", report.actions[0] ? count(report.actions[0].count, "requests") : ""],
      ]),
      report.total > 0 && daily(report, zone),
      list({ title: "By limit and action", says: `${report.from} to ${report.to}, days in ${zone}.`, columns, rows: pairs(report.items), empty: "No limit denied anything in this time." }),
      list({ title: "Users who were denied most", says: `The month ${top.period} in ${zone}.`, columns: users, rows: top.items, empty: "No user was denied anything." }),
    ];
  });
  return [head("Denials", "Requests that a limit or a quota denied."), form, found.body];
}

// As many limits as there are colours; if there are more, those that denied least are one series.
function daily({ from, to, limits, items }, zone) {
  const own = limits.slice(0, limits.length > TONES.length ? TONES.length - 1 : TONES.length).map(({ limit }) => limit);
  const names = own.length < limits.length ? [...own, OTHERS] : own;
  const byDay = new Map(days(from, to).map((date) => [date, {}]));
  for (const { date, limit, count: times } of items) {
    const values = byDay.get(date), key = own.includes(limit) ? limit : OTHERS;
    values[key] = (values[key] ?? 0) + times;
  }
  const points = [...byDay].map(([date, values]) => ({ at: date, label: date, tick: date.slice(5), values }));
  const series = names.map((name, index) => ({ key: name, label: name, tone: TONES[index] }));
  return chart({ title: "Denied requests by limit", says: `By day in ${zone}.`, unit: "requests", zone, series, points });
}

function pairs(items) {
  const sums = new Map();
  for (const { limit, action, count: times } of items) {
    const row = sums.get(`${limit} ${action}`) ?? { limit, action, count: 0 };
    sums.set(`${limit} ${action}`, { ...row, count: row.count + times });
  }
  return [...sums.values()].sort((one, other) => other.count - one.count);
}
