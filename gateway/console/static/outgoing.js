// Events for operators' own systems: whether they reach them, and those that did not.

import { api } from "./api.js";
import { make, say } from "./dom.js";
import { number, time } from "./format.js";
import { after, ask, button, list, loaded, mark } from "./parts.js";

const AGAIN_S = 5;

const endpoints = [
  { label: "Endpoint", value: (one) => one.name, cell: (one) => [one.name, " ", make("span", { class: "soft" }, one.host)] },
  { label: "State", value: (one) => (one.gone_at ? "gone" : one.last_failure), cell: state },
  { label: "Delivered (events)", number: true, value: (one) => one.delivered },
  { label: "Waiting (events)", number: true, value: (one) => one.waiting },
  { label: "Failed (attempts)", number: true, value: (one) => one.failed },
  { label: "Given up (events)", number: true, value: (one) => one.dead },
  { label: "Last delivered (UTC)", value: (one) => one.last_delivered_at, cell: (one) => (one.last_delivered_at ? time(one.last_delivered_at) : "never") },
];

function state({ gone_at, last_failure, last_delivered_at }) {
  if (gone_at) return [mark("gone", "bad"), " since ", time(gone_at), " UTC"];
  if (last_failure) return [mark("fails", "bad"), ` ${last_failure}`];
  return last_delivered_at ? mark("works", "good") : mark("not used yet");
}

const undelivered = [
  { label: "Given up (UTC)", value: (one) => one.failed_at, cell: (one) => time(one.failed_at) },
  { label: "Endpoint", value: (one) => one.endpoint },
  { label: "Event", value: (one) => one.type },
  { label: "Why", value: (one) => one.why, cell: (one) => make("div", {}, one.why, make("details", {}, make("summary", {}, "Body"), make("pre", { tabindex: "0" }, one.body))) },
];

export function outgoing(view) {
  const manages = api.may("limits:manage");
  const test = async (name) => {
    const { delivered, status, failure, took_ms } = await api.post(`/api/admin/webhooks/out/${encodeURIComponent(name)}/test`);
    say(`${name}: ${delivered ? "delivered" : "not delivered"}, ${status ? `status ${status}` : failure} after ${number(took_ms)} ms.`);
    await to.again();
  };
  const replay = (letter) => ask({
    title: `Send ${letter.type} to ${letter.endpoint} again?`, says: "It is attempted as often as a new event.", action: "Send again",
    act: () => api.post(`/api/admin/webhooks/out/dead/${encodeURIComponent(letter.id)}/replay`),
    done: after(() => Promise.all([to.again(), dead.again()]), "The event is sent again."),
  });
  const to = loaded(view, async () => {
    const { items } = await api.get("/api/admin/webhooks/out", {}, view.signal);
    const acts = { label: "Actions", act: true, cell: (one) => button("Send a test", () => test(one.name), { "data-key": `test ${one.name}`, "aria-label": `Send a test to ${one.name}` }) };
    return list({ title: "To your own systems", says: "Endpoints of the policy, which receive events.", columns: manages ? [...endpoints, acts] : endpoints, rows: items, empty: "The policy has no endpoint." });
  });
  const page = async (cursor) => {
    const found = await api.get("/api/admin/webhooks/out/dead", { limit: 20, cursor }, view.signal);
    return { rows: found.items, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const dead = loaded(view, async () => {
    const { rows, next } = await page();
    const acts = { label: "Actions", act: true, cell: (one) => button("Send again", () => replay(one), { "data-key": `again ${one.id}`, "aria-label": `Send again ${one.id}` }) };
    return rows.length > 0 && list({ title: "Not delivered", says: "Events that were given up, the newest first.", columns: manages ? [...undelivered, acts] : undelivered, rows, next, empty: "" });
  });
  view.every(AGAIN_S, to.again);
  return [to.body, dead.body];
}
