import assert from "node:assert/strict";
import { test } from "node:test";
import { GatewayProblem, GatewayUnreachable } from "@hms-gateway/client";
import { type Answer, FakeGateway, ROOM, USER, problem } from "./fake.js";

const MINT = `POST /rooms/${ROOM.id}/token`;

function limited(retryAfterS: number | string): Answer {
  return problem(429, "rate_limited", { "violated-policies": ["api"] }, { "retry-after": String(retryAfterS) });
}

function refusedOnce(refusal: Answer, answer: Answer): (asked: unknown, times: number) => Answer {
  return (_, times) => (times === 1 ? refusal : answer);
}

test("a 429 is repeated after its wait, also for a creation", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", refusedOnce(limited(3), { status: 201, body: { success: true, room: ROOM } }));
  const answer = await client.createRoom({ name: "Stand-up" });
  assert.equal(answer.room?.id, ROOM.id);
  assert.deepEqual(gateway.slept, [3000]);
  const keys = gateway.asked.slice(1).map((asked) => asked.headers["idempotency-key"]);
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1], "both are one creation");
});

test("a 429 is repeated at most twice and within ten seconds in total", async () => {
  for (const [retryAfterS, slept] of [
    [1, [1000, 1000]],
    [6, [6000]],
    [10, [10_000]],
    [11, []],
  ] as const) {
    const gateway = new FakeGateway();
    const client = await gateway.loggedIn();
    gateway.on("GET /auth/me", limited(retryAfterS));
    await assert.rejects(client.me(), (error) => {
      assert.ok(error instanceof GatewayProblem);
      assert.equal(error.code, "rate_limited");
      assert.equal(error.retryAfterS, retryAfterS);
      return true;
    });
    assert.deepEqual(gateway.slept, slept);
  }
});

test("repetitions can be configured and disabled", async () => {
  for (const [retry, times] of [
    [false, 1],
    [{ most: 0 }, 1],
    [{ most: 5, waitMs: 60_000 }, 6],
    [{ waitMs: 2000 }, 1],
  ] as const) {
    const gateway = new FakeGateway();
    const client = await gateway.loggedIn({ retry });
    gateway.on("GET /auth/me", limited(3));
    await assert.rejects(client.me(), GatewayProblem);
    assert.equal(gateway.times("GET /auth/me"), times);
  }
});

test("a refusal without Retry-After is not repeated", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  for (const [status, code] of [
    [429, "rate_limited"],
    [503, "unavailable"],
    [502, "upstream_error"],
  ] as const) {
    gateway.on("GET /auth/me", problem(status, code));
    await assert.rejects(client.me(), GatewayProblem);
  }
  assert.equal(gateway.times("GET /auth/me"), 3);
});

test("a 503 is repeated only for reads, mints and a creation with its key", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const away = problem(503, "unavailable", {}, { "retry-after": "1" });
  gateway.on("GET /auth/me", refusedOnce(away, { body: { user: USER, permissions: [] } }));
  gateway.on(MINT, refusedOnce(away, { body: { success: true, token: "joined" } }));
  gateway.on("POST /rooms", refusedOnce(away, { status: 201, body: { success: true, room: ROOM } }));
  gateway.on(`PATCH /rooms/${ROOM.id}`, away);
  await client.me();
  assert.equal(await client.getAuthToken(ROOM.id, "guest"), "joined");
  assert.equal((await client.createRoom()).success, true);
  assert.deepEqual(gateway.slept, [1000, 1000, 1000]);
  const keys = gateway.asked.filter(({ path }) => path === "/rooms").map(({ headers }) => headers["idempotency-key"]);
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1], "or there would be two rooms");
  await assert.rejects(client.updateRoom(ROOM.id, { name: "New" }), GatewayProblem);
  assert.equal(gateway.times(`PATCH /rooms/${ROOM.id}`), 1);
});

test("a creation is repeated for ten seconds while its first attempt is running", async () => {
  const underWay = problem(409, "idempotency_conflict", {}, { "retry-after": "1" });
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const room = { status: 201, body: { success: true, room: ROOM } };
  gateway.on("POST /rooms", (_, times) => (times <= 7 ? underWay : room));
  assert.equal((await client.createRoom({ idempotencyKey: "the-first-one" })).room?.id, ROOM.id);
  assert.deepEqual(gateway.slept, Array(7).fill(1000));
  const keys = gateway.asked.slice(1).map(({ headers }) => headers["idempotency-key"]);
  assert.deepEqual(keys, Array(8).fill("the-first-one"));

  gateway.on("POST /rooms", underWay);
  gateway.slept.length = 0;
  assert.equal((await client.createRoom()).problem?.code, "idempotency_conflict");
  assert.equal(gateway.slept.length, 10);

  const hasty = await gateway.loggedIn({ retry: false });
  gateway.slept.length = 0;
  assert.equal((await hasty.createRoom()).problem?.code, "idempotency_conflict");
  assert.deepEqual(gateway.slept, []);
});

test("a call follows no redirect, which would leak tokens and passwords", async () => {
  const asked: (RequestRedirect | undefined)[] = [];
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn({
    fetch: (input, init) => {
      asked.push(init?.redirect);
      return gateway.fetch(input, init);
    },
  });
  await client.me();
  await client.logout();
  assert.deepEqual(asked, ["error", "error", "error"]);
});

test("a Retry-After that is a date is used", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const at = new Date(gateway.nowMs + 4000).toUTCString();
  gateway.on("GET /auth/me", refusedOnce(limited(at), { body: { user: USER, permissions: [] } }));
  await client.me();
  assert.deepEqual(gateway.slept, [4000]);
});

test("a call without an answer ends at the timeout, even if fetch ignores the signal", async () => {
  const gateway = new FakeGateway();
  let aborted = false;
  const client = gateway.client({
    timeoutMs: 20,
    fetch: (_, init) => {
      init?.signal?.addEventListener("abort", () => (aborted = true));
      return new Promise(() => {});
    },
  });
  await assert.rejects(client.login("ada", "secret"), (error) => {
    assert.ok(error instanceof GatewayUnreachable);
    assert.equal(error.timedOut, true);
    assert.equal(error.message, "POST /auth/login: no answer within 20 ms");
    return true;
  });
  assert.equal(aborted, true);
});

test("a body that never ends is a timeout", async () => {
  const client = new FakeGateway().client({
    timeoutMs: 20,
    fetch: async () => new Response(new ReadableStream({ start: (body) => body.enqueue(new Uint8Array([123])) })),
  });
  await assert.rejects(client.login("ada", "secret"), GatewayUnreachable);
});
