// The whole installation: who is online, requests by outcome, minutes and money, over an hour to a year.

import { api } from "./api.js";
import { chart, OUTCOMES } from "./chart.js";
import { make, replace } from "./dom.js";
import { count, minutes, number, today, unitOf } from "./format.js";
import { follow } from "./live.js";
import { person } from "./names.js";
import { head, link, list, loaded, mark, tiles } from "./parts.js";

const AGAIN_S = 60;
// Name of the range, what its steps are, and how the time of a step is written: whole, and below the chart. Minutes are
// in UTC, days and months in the zone that the answer names.
const RANGES = {
  "1h": ["1 h", "minute", (at) => at.slice(0, 16).replace("T", " "), (at) => at.slice(11, 16)],
  "24h": ["24 h", "5 minutes", (at) => at.slice(0, 16).replace("T", " "), (at) => at.slice(11, 16)],
  "30d": ["30 d", "day", (at) => at.slice(0, 10), (at) => at.slice(5, 10)],
  "12mo": ["12 months", "month", (at) => at.slice(0, 7), (at) => at.slice(0, 7)],
};
const SUMMED = ["ok", "denied", "refused", "failed", "seconds"];
const requests = (one) => one.ok + one.denied + one.refused + one.failed;
const percent = (part, whole) => (whole ? ((part / whole) * 100).toFixed(1) : "0.0");

export function overview(view, { range = "24h" }) {
  const [name, step, label, tick] = RANGES[range] ?? RANGES["24h"];
  const shown = RANGES[range] ? range : "24h";
  const pulse = make("span", { role: "status" }, mark("connecting"));
  const numbers = make("div", {});
  let totals, currency, now, points, charts, kept;

  const pointOf = (one) => ({ at: one.at, label: label(one.at), tick: tick(one.at), values: one });

  const found = loaded(view, async () => {
    const report = await api.get("/api/admin/overview", { range: shown }, view.signal);
    ({ totals, currency } = report);
    now ??= { people_now: report.people_now, rooms_now: report.rooms_now };
    points = report.points.map(pointOf);
    paint();
    if (charts) {
      charts.forEach((one) => one.show(points));
      return kept;
    }
    const zone = step.includes("minute") ? "UTC" : report.time_zone;
    const says = `Last ${name}, by ${step} in ${zone}.`;
    const inRooms = [{ key: "minutes", label: "In rooms", tone: "ok" }];
    charts = [
      chart({ title: "Requests by outcome", says, unit: "requests", zone, series: OUTCOMES, points }),
      chart({ title: "Participant-minutes", says, unit: "min", zone, whole: false, series: inRooms, points }),
    ];
    kept = make("div", { class: "body" }, numbers, make("div", { class: "two" }, charts), leaders(view, report.time_zone));
    return kept;
  });

  function paint() {
    const all = requests(totals);
    const [last] = now.points ?? [];
    replace(numbers, tiles([
      ["Online", number(now.people_now), `${unitOf(now.people_now, "people")} in ${count(now.rooms_now, "rooms")}`],
      last && ["Last minute", number(requests(last)), unitOf(requests(last), "requests")],
      ["Requests", number(all), `in ${name}`],
      ["Denied", percent(totals.denied, all), "% of requests"],
      ["Failed", percent(totals.failed, all), "% of requests"],
      ["Minutes in rooms", number(totals.minutes < 1000 ? totals.minutes : Math.round(totals.minutes)), `in ${name}`],
      currency && [`Price (${currency})`, totals.money, `in ${name}`],
    ].filter(Boolean)));
  }

  // In the last hour a step is a minute, so what comes is the newest steps; other ranges are read again now and then.
  function change(event) {
    now = event;
    if (!charts) return;
    if (shown === "1h") {
      for (const one of event.points) {
        const place = points.findIndex(({ at }) => at === one.at);
        if (place >= 0) points[place] = pointOf(one);
        else if (one.at > points.at(-1).at) points = [...points.slice(1), pointOf(one)];
      }
      for (const key of SUMMED) totals[key] = points.reduce((sum, { values }) => sum + values[key], 0);
      totals.minutes = Math.round((totals.seconds / 60) * 100) / 100;
      charts.forEach((one) => one.show(points));
    }
    paint();
  }

  follow(view, change, (live) => replace(pulse, live ? mark("live", "good") : mark("not live", "warn")));
  view.every(AGAIN_S, found.again);
  const ranges = Object.entries(RANGES).map(([key, [text]]) => link(`#/overview?range=${key}`, text, { "aria-current": key === shown ? "true" : null }));
  return [head("Overview", ["All requests, and all time in rooms. ", pulse], make("nav", { class: "choice", "aria-label": "Range" }, ranges)), found.body];
}

// Who used and was denied most in this month.
function leaders(view, zone) {
  const month = today(zone).slice(0, 7);
  const top = async (counter) => (await api.get("/api/admin/usage/top", { counter, period: month, limit: 5 }, view.signal)).items;
  const columns = (unit, written) => [
    { label: "User", value: (row) => row.username || row.user_id, cell: (row) => person(row.user_id, row.username) },
    { label: unit, number: true, value: (row) => row.count, cell: (row) => written(row.count) },
  ];
  return loaded(view, async () => {
    const [longest, denied] = await Promise.all([top("minutes"), top("denials")]);
    const says = `The month ${month} in ${zone}.`;
    return make("div", { class: "two" },
      list({ title: "Most minutes", says, columns: columns("In rooms (min)", minutes), rows: longest, empty: "There has been no one in a room." }),
      list({ title: "Most denials", says, columns: columns("Denied (requests)", number), rows: denied, empty: "No request was denied." }),
    );
  }).body;
}
