/** What React Native lacks is taken away before the client is loaded; node --test gives each file its own process. */

import assert from "node:assert/strict";
import { before, test } from "node:test";
import type { FakeGateway } from "./fake.js";

// React Native's URL is a stub and its AbortSignal an old polyfill (react-native issues 42042, 50015), Hermes has no
// crypto (hermes issue 915).
const MISSING = ["URL", "URLSearchParams", "DOMException", "crypto", "structuredClone", "TextEncoder", "btoa"];
let Gateway: typeof FakeGateway;

before(async () => {
  ({ FakeGateway: Gateway } = await import("./fake.js"));
  new Headers(); // Node loads its own, which need some of it, at first use
  for (const name of MISSING) Object.defineProperty(globalThis, name, { value: undefined, configurable: true });
  for (const name of ["timeout", "any"]) Object.defineProperty(AbortSignal, name, { value: undefined });
  Object.defineProperty(AbortSignal.prototype, "throwIfAborted", { value: undefined });
});

test("the client uses only what React Native has", async () => {
  const gateway = new Gateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", { status: 201, body: { success: true, room: { id: "a" } } });
  gateway.on("POST /rooms/a/token", { body: { success: true, token: "joined" } });
  const rooms = await Promise.all([client.createRoom(), client.createRoom({ name: "Stand-up" })]);
  assert.deepEqual(rooms.map(({ error }) => error), [undefined, undefined]);
  assert.equal(await client.getAuthToken("a", "guest"), "joined");
  gateway.nowMs += 3_600_000;
  await client.me();
  await client.logout();
});

test("idempotency keys differ without secure random numbers", async () => {
  const gateway = new Gateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", { status: 201, body: { success: true, room: { id: "a" } } });
  const made = await Promise.all(Array.from({ length: 50 }, () => client.createRoom()));
  assert.equal(new Set(made.map(({ idempotencyKey }) => idempotencyKey)).size, 50);
});
