// Events of 100ms: whether they arrive, what became of them, and those that could not be understood.

import { api } from "./api.js";
import { make, say } from "./dom.js";
import { count, number, plain, since, span, time, unitOf } from "./format.js";
import { outgoing } from "./outgoing.js";
import { ask, button, head, list, loaded, tiles } from "./parts.js";

const LIVE_S = 5;
const MEANINGS = {
  received: "events", applied: "stays that they changed", unchanged: "stays that were known already (duplicates)",
  ignored: "events that say nothing about stays", recorder: "events about a recording", dead: "events that could not be understood",
  corrected: "stays that 100ms corrected afterwards",
};

export function webhooks(view) {
  const state = loaded(view, async () => {
    const now = await api.get("/api/admin/webhooks", {}, view.signal);
    const kinds = Object.entries(now.types).map(([type, events]) => ({ type, events })).sort((one, other) => other.events - one.events);
    return [
      !now.enabled && make("p", { class: "panel note" }, "Webhooks are off: HMS_WEBHOOK_SECRET is not set, so no minutes are counted."),
      tiles([
        ["Last event", now.last_at ? since(now.last_at) : "never", now.last_at ? "ago" : ""],
        ["Lag", span(now.lag_ms / 1000), "of the last events"],
        ["Waiting", number(now.waiting), unitOf(now.waiting, "events")],
        ["Duplicates", number(now.counts.unchanged ?? 0), "stays"],
        ["Dead letters", number(now.dead_letters), unitOf(now.dead_letters, "events")],
      ]),
      make("div", { class: "two" },
        list({
          title: "What became of them", says: now.last_at ? `The last event came at ${plain(now.last_at)} UTC.` : "No event has come yet.", rows: Object.entries(now.counts).map(([name, value]) => ({ name, value })), empty: "",
          columns: [{ label: "Counter", value: (row) => row.name, cell: (row) => MEANINGS[row.name] ?? row.name }, { label: "Count", number: true, value: (row) => row.value }],
        }),
        list({
          title: "By type", says: "Unknown types together as other.", rows: kinds, empty: "No event has come yet.",
          columns: [{ label: "Type", value: (row) => row.type }, { label: "Events", number: true, value: (row) => row.events }],
        }),
      ),
    ];
  });
  const page = async (cursor) => {
    const found = await api.get("/api/admin/webhooks/dead", { limit: 20, cursor }, view.signal);
    return { rows: found.items, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const replay = (letter) => ask({
    title: "Replay this event?", says: "It is processed again. If it cannot be understood this time either, it becomes a new dead letter.", action: "Replay",
    act: () => api.post(`/api/admin/webhooks/dead/${encodeURIComponent(letter.id)}/replay`),
    done: () => (say("The event is processed again."), setTimeout(() => (dead.again(), state.again()), 400)),
  });
  const columns = [
    { label: "Received (UTC)", value: (one) => one.received_at, cell: (one) => time(one.received_at) },
    { label: "Why", value: (one) => one.why, cell: (one) => make("div", {}, one.why, make("details", {}, make("summary", {}, `Body, ${count(one.bytes, "bytes")}`), make("pre", { tabindex: "0" }, one.body))) },
    { label: "Id", value: (one) => one.id, cell: (one) => make("span", { class: "id" }, one.id) },
  ];
  if (api.may("limits:manage")) columns.push({ label: "Actions", act: true, cell: (one) => button("Replay", () => replay(one), { "data-key": `replay ${one.id}`, "aria-label": `Replay ${one.id}` }) });
  const dead = loaded(view, async () => {
    const { rows, next } = await page();
    return list({ title: "Dead letters", says: "Events that could not be understood, the newest first; without addresses and tokens.", columns, rows, next, empty: "Every event was understood." });
  });
  view.every(LIVE_S, state.again);
  return [head("Webhooks", "Events by which 100ms reports who is in a room, and by which minutes are counted; and events for your own systems."), state.body, dead.body, outgoing(view)];
}
