// A user's or a room's use per day, as charts.

import { chart, OUTCOMES } from "./chart.js";
import { make } from "./dom.js";
import { count, sum } from "./format.js";

const METERED = new Set(["minutes", "owned"]);
const DAY_MS = 86_400_000;

// Every day from the first to the last, also those on which nothing happened.
export function days(first, last) {
  const all = [];
  for (let at = Date.parse(first); at <= Date.parse(last); at += DAY_MS) all.push(new Date(at).toISOString().slice(0, 10));
  return all;
}

export function outcomes(rows) {
  const values = { ok: 0, denied: 0, refused: 0, failed: 0 };
  for (const { ok, denied, refused, failed } of rows) {
    values.ok += ok;
    values.denied += sum(denied);
    values.refused += sum(refused);
    values.failed += failed;
  }
  return values;
}

// Shows the days of a report in the form that asked for it.
export function fillDays(form, { from, to }) {
  for (const [name, date] of Object.entries({ from, to })) form.elements[name].value ||= date;
}

// Its argument is a report: {from, to, time_zone, items: [{date, usage: {action: counts}, people_peak}]}.
export function series({ from, to, time_zone: zone, items }) {
  const by = new Map(items.map((item) => [item.date, item]));
  const points = days(from, to).map((date) => {
    const usage = by.get(date)?.usage ?? {};
    const requests = Object.entries(usage).filter(([action]) => !METERED.has(action)).map(([, counts]) => counts);
    const values = { ...outcomes(requests), minutes: usage.minutes?.ok ?? 0, owned: usage.owned?.ok ?? 0 };
    return { at: date, label: date, tick: date.slice(5), values };
  });
  const peak = Math.max(0, ...items.map((item) => item.people_peak));
  const owned = points.some(({ values }) => values.owned);
  const own = { key: "minutes", label: "In rooms", tone: "ok" };
  const says = `Last ${points.length} days, by day in ${zone}.`;
  return make("div", { class: "two" },
    chart({ title: "Requests", says, unit: "requests", zone, series: OUTCOMES, points }),
    chart({ title: "Participant-minutes", says: peak ? `${says} At most ${count(peak, "people")} at once.` : says, unit: "min", zone, whole: false, series: [own], points }),
    owned && chart({ title: "Minutes in their rooms", says: "Of all people in rooms that they own.", unit: "min", zone, whole: false, series: [{ key: "owned", label: "All people", tone: "ok" }], points }),
  );
}
