// The health of the installation: workers, Redis, 100ms and its webhooks.

import { api } from "./api.js";
import { make } from "./dom.js";
import { number, plain, since, span, time, unitOf } from "./format.js";
import { facts, head, link, list, loaded, mark, panel, tiles } from "./parts.js";

const AGAIN_S = 5;
const MIB = 1024 * 1024;
// States of a circuit breaker: what they mean for requests.
const STATES = { closed: ["works", "good"], "half-open": ["is tried again", "warn"], open: ["fails", "bad"] };
const UNKNOWN = "not known"; // a lost master of a cluster has it
const state = (name) => mark(...(STATES[name] ?? [name]));
const said = (value, yes, no) => (value == null ? "not said by the server" : value ? mark(yes, "good") : mark(no, "bad"));
const ago = (at, never) => (at ? [time(at), ` UTC, ${since(at)} ago`] : never);

const workers = [
  { label: "Worker", value: (one) => `${one.host} ${one.pid}`, cell: (one) => [make("span", { class: "id" }, one.host), ` process ${one.pid}`] },
  { label: "Version", value: (one) => one.version },
  { label: "Started (UTC)", value: (one) => one.started_at, cell: (one) => time(one.started_at) },
  { label: "Seen", value: (one) => one.seen_at, cell: (one) => `${since(one.seen_at)} ago` },
  { label: "Event loop late (ms)", number: true, value: (one) => one.lag_ms },
  { label: "Redis", value: (one) => one.redis, cell: (one) => state(one.redis) },
  { label: "100ms", value: (one) => one.upstream, cell: (one) => state(one.upstream) },
  { label: "Chores", value: (one) => (one.leads == null ? UNKNOWN : one.leads ? "performs them" : "") },
];

export function health(view) {
  const { body, again } = loaded(view, async () => {
    const { version, workers: alive, redis, upstream, webhooks } = await api.get("/api/admin/status", {}, view.signal);
    return [
      tiles([
        alive ? ["Workers alive", number(alive.length), unitOf(alive.length, "processes")] : ["Workers alive", UNKNOWN, ""],
        ["Round trip to Redis", span(redis.answered_in_ms / 1000), "measured just now"],
        ["Memory of Redis", number(Math.round(redis.memory_bytes / MIB)), redis.most_memory_bytes ? `MiB of ${number(Math.round(redis.most_memory_bytes / MIB))} MiB` : "MiB, no limit"],
        ...(webhooks ? [
          ["Webhooks waiting", number(webhooks.waiting), unitOf(webhooks.waiting, "events")],
          ["Dead letters", number(webhooks.dead_letters), unitOf(webhooks.dead_letters, "events")],
        ] : [["Webhooks waiting", UNKNOWN, ""], ["Dead letters", UNKNOWN, ""]]),
      ]),
      list({ title: "Workers", says: `The one that answered is version ${version}. As of ${plain(new Date().toISOString())} UTC, every ${AGAIN_S} s.`, columns: workers, rows: alive ?? [], empty: alive ? "No worker has said that it is alive." : "A master of Redis does not answer, and it has the list." }),
      make("div", { class: "two" },
        panel("Redis", `${redis.server} ${redis.version}`, [], facts([
          ["Append-only file", said(redis.aof, "on", "off: a crash loses data")],
          ["Its last write", said(redis.aof_ok, "succeeded", "failed")],
          ["Do not answer", redis.silent.length > 0 && mark(redis.silent.join(", "), "bad")],
        ])),
        panel("100ms", "As the last calls of all workers went.", [], facts(upstream ? [
          ["State", state(upstream.state)],
          ["Last answer", ago(upstream.last_answer_at, "none yet")],
          ["Last failure", ago(upstream.last_failure_at, "none")],
        ] : [["State", UNKNOWN]])),
        panel("Webhooks", "Events of 100ms.", [link("#/webhooks", "Details")], facts(webhooks ? [
          ["State", webhooks.enabled ? mark("received", "good") : mark("off", "warn")],
          ["Last event", ago(webhooks.last_at, "none yet")],
          ["Lag", span(webhooks.lag_ms / 1000)],
        ] : [["State", UNKNOWN]])),
      ),
    ];
  });
  view.every(AGAIN_S, again);
  return [head("Health", "Workers, Redis, 100ms and its webhooks."), body];
}
