import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { GatewayProblem, memoryStorage } from "@hms-gateway/client";
import { FakeGateway, ROOM, problem } from "./fake.js";

const KEY = "gwk_q3n5ckz2ayxd_0123456789abcdefghijABCDEFGHIJ01234567";

test("a backend calls with its key, for itself and for users", async () => {
  const gateway = new FakeGateway();
  gateway.on("POST /rooms/a/token", { body: { success: true, token: "joined" } });
  const backend = gateway.client({ serviceKey: KEY });
  await backend.getRoom("a").catch(() => undefined);
  assert.equal(gateway.last().headers["authorization"], `Bearer ${KEY}`);
  assert.equal(gateway.last().headers["x-act-as"], undefined);
  const [ada, grace] = [backend.actAs("u1"), backend.actAs("u2")];
  assert.deepEqual(await Promise.all([ada, grace].map((user) => user.getAuthToken("a"))), ["joined", "joined"]);
  assert.deepEqual(gateway.asked.slice(-2).map(({ headers }) => headers["x-act-as"]).sort(), ["u1", "u2"]);
  await ada.actAs("u3").getAuthToken("a");
  assert.equal(gateway.last().headers["x-act-as"], "u3");
});

test("a call for a user keeps its own header fields, and retries as any other", async () => {
  const gateway = new FakeGateway();
  gateway.on("POST /rooms", (_, times) =>
    times === 1 ? problem(429, "rate_limited", {}, { "retry-after": "1" }) : { status: 201, body: { room: ROOM } },
  );
  const made = await gateway.client({ serviceKey: KEY, actAs: "u1" }).createRoom({ idempotencyKey: "once" });
  assert.equal(made.success, true);
  for (const { headers } of gateway.asked) {
    assert.deepEqual([headers["x-act-as"], headers["idempotency-key"]], ["u1", "once"]);
  }
  assert.equal(gateway.asked.length, 2);
});

test("a refused key is not renewed and does not end a login", async () => {
  const gateway = new FakeGateway();
  const lost: string[] = [];
  const backend = gateway.client({ serviceKey: KEY, onSessionLost: ({ code }) => lost.push(code) });
  gateway.on("GET /usage", problem(401, "invalid_token"));
  await assert.rejects(backend.usage(), (error) => error instanceof GatewayProblem && error.code === "invalid_token");
  assert.equal(gateway.asked.length, 1);
  assert.deepEqual(lost, []);
});

test("a key has no login", async () => {
  const gateway = new FakeGateway();
  const backend = gateway.client({ serviceKey: KEY });
  const calls = [
    () => backend.login("ada", "correct horse battery staple"),
    () => backend.exchange("token"),
    () => backend.refresh(),
    () => backend.logout(),
    () => backend.currentUser(),
  ];
  for (const call of calls) {
    await assert.rejects(call, (error) => error instanceof GatewayProblem && error.code === "no_session");
  }
  assert.deepEqual(gateway.asked, []);
});

test("an invite is accepted for the user, not as a guest", async () => {
  const gateway = new FakeGateway();
  gateway.on("POST /invites/c0de/accept", { body: { room: { id: "a" }, relation: "viewer", login: null } });
  const accepted = await gateway.client({ serviceKey: KEY, actAs: "u1" }).acceptInvite("c0de");
  assert.deepEqual(accepted, { room: { id: "a" }, relation: "viewer" });
  assert.equal(gateway.last().headers["x-act-as"], "u1");
});

test("options that contradict each other are refused, without the key in the error", () => {
  const gateway = new FakeGateway();
  for (const options of [
    { serviceKey: KEY, cookies: true },
    { serviceKey: KEY, storage: memoryStorage() },
    { serviceKey: "" },
    { serviceKey: `${KEY}\n` },
    { serviceKey: KEY, actAs: "" },
    { serviceKey: KEY, actAs: "u1\r\nX-Evil: 1" },
    { actAs: "u1" },
  ]) {
    assert.throws(
      () => gateway.client(options),
      (error) => error instanceof TypeError && !inspect(error).includes(KEY),
    );
  }
  assert.throws(() => gateway.client().actAs("u1"), TypeError);
});

test("a key is refused in a page", () => {
  Object.defineProperty(globalThis, "document", { value: {}, configurable: true });
  try {
    assert.throws(() => new FakeGateway().client({ serviceKey: KEY }), /^TypeError: serviceKey: .* web page$/);
  } finally {
    Reflect.deleteProperty(globalThis, "document");
  }
});

test("the client of a key does not show it", () => {
  const backend = new FakeGateway().client({ serviceKey: KEY });
  for (const text of [inspect(backend, { depth: 9, showHidden: true }), JSON.stringify(backend), String(backend)]) {
    assert.doesNotMatch(text, /gwk_/);
  }
});
