// Budgets of participant-minutes: what is used of them, and what will be when their periods end.

import { api } from "./api.js";
import { make } from "./dom.js";
import { minute, minutes, number, plain } from "./format.js";
import { person } from "./names.js";
import { gauge, head, list, loaded, mark } from "./parts.js";

const AGAIN_S = 30;
const WHOSE = { all: "whole installation", user: "user", owner: "rooms of" };
const percent = (one) => Math.round((one.forecast / one.amount) * 1000) / 10;
const tone = (one) => (percent(one) >= 100 ? "bad" : percent(one) >= 80 ? "warn" : "good");

const forecast = (one) => [
  minutes(one.forecast), " ", mark(`${percent(one).toFixed(1)} %`, tone(one)),
  one.runs_out_at && make("div", { class: "soft" }, "spent at ", minute(one.runs_out_at), " UTC"),
];

const columns = [
  { label: "Budget", value: (one) => one.name, cell: (one) => [one.name, one.shadow && " ", one.shadow && mark("shadow")] },
  { label: "Whose", value: (one) => `${WHOSE[one.scope]} ${one.username || one.user_id}`.trim(), cell: (one) => (one.scope === "all" ? WHOSE.all : [one.scope === "owner" && "rooms of ", person(one.user_id, one.username)]) },
  { label: "Used (%)", number: true, value: (one) => one.used_percent, cell: (one) => [gauge(one.used, one.amount), one.used_percent.toFixed(1)] },
  { label: "Used (min)", number: true, value: (one) => one.used, cell: (one) => `${minutes(one.used)} of ${number(one.amount)}` },
  { label: "Of (min)", value: (one) => one.amount, cell: null },
  { label: "Forecast (min)", number: true, value: (one) => one.forecast, cell: forecast },
  { label: "Runs out (UTC)", value: (one) => one.runs_out_at, cell: null },
  { label: "Period ends (UTC)", value: (one) => one.ends_at, cell: (one) => minute(one.ends_at) },
  { label: "When spent", value: (one) => one.on_exhausted, cell: (one) => (one.on_exhausted === "end" ? "rooms end" : "no tokens") },
];

export function budgets(view) {
  const { body, again } = loaded(view, async () => {
    const { items } = await api.get("/api/admin/budgets", { limit: 50 }, view.signal);
    return list({
      title: "Nearest to their end", says: `The forecast is what will be used if it goes on as since the period began. As of ${plain(new Date().toISOString())} UTC.`,
      columns, rows: items, empty: "The policy has no budgets of minutes.",
    });
  });
  view.every(AGAIN_S, again);
  return [head("Budgets", "How much of their participant-minutes users, owners of rooms and the installation have used."), body];
}
