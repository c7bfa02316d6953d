// The stream of what changes, read with fetch: an EventSource cannot send the Authorization header.

import { api, Expired, Problem } from "./api.js";

const WAIT_MS = 5000;

const pause = (signal) => new Promise((done) => {
  const timer = setTimeout(done, WAIT_MS);
  signal.addEventListener("abort", () => (clearTimeout(timer), done()));
});
const seen = (signal) => document.hidden && new Promise((done) => {
  for (const [target, event] of [[document, "visibilitychange"], [signal, "abort"]]) target.addEventListener(event, done, { once: true });
});

// Calls `change` with every event until the view ends, and `live` when the stream begins and breaks. A stream ends with
// its access token, so the next one follows at once, with the next token. A hidden page has none, because a browser opens
// only six connections to a host (HTTP/1.1), for all of its tabs.
export async function follow(view, change, live = () => {}) {
  while (!view.signal.aborted) {
    await seen(view.signal);
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    let ended = "";
    try {
      const response = await api.open("/api/admin/live", {}, AbortSignal.any([view.signal, hidden.signal]));
      for await (const [name, data] of events(response.body)) {
        if (view.signal.aborted) return;
        if (name === "end") ended = data.reason;
        else live(true), change(data);
      }
    } catch (error) {
      if (view.signal.aborted || error instanceof Expired) return;
      if (error instanceof Problem && error.status === 403) return live(false);
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (ended === "token_expired" || hidden.signal.aborted) continue;
    live(false);
    await pause(view.signal);
  }
}

const AGAIN_S = 10; // one person may have come when another one left

// Calls `again` when people have come or left, and now and then.
export function followPeople(view, again) {
  let before = "";
  follow(view, ({ people_now, rooms_now }) => {
    const numbers = `${people_now} ${rooms_now}`;
    if (before && numbers !== before) again();
    before = numbers;
  });
  view.every(AGAIN_S, again);
}

async function* events(body) {
  let text = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const parts = (text + chunk.value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/:\s?(.*)/s)));
      if (fields.data) yield [fields.event ?? "message", JSON.parse(fields.data)];
    }
  }
}
