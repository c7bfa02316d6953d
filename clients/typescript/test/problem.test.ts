import assert from "node:assert/strict";
import { test } from "node:test";
import { GatewayProblem } from "@hms-gateway/client";
import { type Answer, FakeGateway, ROOM, problem } from "./fake.js";

async function problemFor(answer: Answer): Promise<GatewayProblem> {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn({ retry: false });
  gateway.on("GET /auth/me", answer);
  try {
    await client.me();
  } catch (error) {
    assert.ok(error instanceof GatewayProblem);
    return error;
  }
  throw new Error("nothing was refused");
}

test("a problem document becomes an error with all its fields", async () => {
  const errors = [{ field: "name", rule: "must have at most 100 characters" }];
  const found = await problemFor(problem(400, "invalid_request", { errors }));
  assert.equal(found.name, "GatewayProblem");
  assert.equal(found.message, "Refused: invalid_request.");
  assert.equal(found.detail, found.message);
  assert.equal(found.status, 400);
  assert.equal(found.code, "invalid_request");
  assert.equal(found.title, "Title");
  assert.equal(found.requestId, "0123456789abcdef01234567");
  assert.deepEqual(found.errors, errors);
  assert.deepEqual(found.reasons, []);
  assert.equal(found.retryAfterS, undefined);
});

test("optional fields of a problem are kept", async () => {
  const weak = await problemFor(problem(422, "weak_password", { reasons: ["is too short", "is common"] }));
  assert.deepEqual(weak.reasons, ["is too short", "is common"]);
  const role = await problemFor(problem(403, "role_not_allowed", { allowed_roles: ["guest"] }));
  assert.deepEqual(role.allowedRoles, ["guest"]);
  const forbidden = await problemFor(problem(403, "forbidden", { missing_permission: "rooms:create" }));
  assert.equal(forbidden.missingPermission, "rooms:create");
});

test("a denial has its limits and its wait", async () => {
  const headers = {
    "retry-after": "42",
    "ratelimit-policy": '"tokens.mint";q=30;w=30, "api";q=60;w=30',
    ratelimit: '"tokens.mint";r=0;t=42, "api";r=58;t=29',
  };
  const found = await problemFor(problem(429, "quota_exceeded", { "violated-policies": ["tokens.mint"] }, headers));
  assert.equal(found.code, "quota_exceeded");
  assert.deepEqual(found.violatedPolicies, ["tokens.mint"]);
  assert.equal(found.retryAfterS, 42);
  assert.equal(found.rateLimits[0]?.policy, "tokens.mint");
  assert.equal(found.rateLimits[0]?.remaining, 0);
});

test("an error page of a proxy becomes a problem that repeats none of its text", async () => {
  const found = await problemFor({ status: 502, text: "<h1>Bad gateway</h1> Authorization: Bearer access-1" });
  assert.equal(found.status, 502);
  assert.equal(found.code, "unexpected_answer");
  assert.doesNotMatch(JSON.stringify(found) + found.message, /h1|access-1/);
});

test("fields of the wrong type are left out", async () => {
  const odd = { errors: [null, { field: 1 }, { field: "a", rule: "b" }], reasons: "x", allowed_roles: [1, "guest"] };
  const found = await problemFor(problem(400, "invalid_request", odd));
  assert.deepEqual(found.errors, [{ field: "a", rule: "b" }]);
  assert.deepEqual(found.reasons, []);
  assert.deepEqual(found.allowedRoles, ["guest"]);
});

test("a success with another server's body is not accepted as an answer", async () => {
  for (const text of ["<html>Sign in to the hotel's network</html>", "", "[]", '"ok"', "{}"]) {
    const found = await problemFor({ status: 200, text });
    assert.equal(found.code, "unexpected_answer");
  }
});

test("createRoom returns its refusal, as the seed's does", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", problem(403, "forbidden"));
  const answer = await client.createRoom();
  assert.equal(answer.success, false);
  assert.equal(answer.error, "Refused: forbidden.");
  assert.equal(answer.problem?.code, "forbidden");
  gateway.on("POST /rooms", () => Promise.reject(new TypeError("fetch failed")));
  const lost = await client.createRoom({ idempotencyKey: "mine" });
  assert.equal(lost.success, false);
  assert.equal(lost.error, "POST /rooms: the gateway cannot be reached");
  assert.equal(lost.problem, undefined);
  assert.equal(lost.idempotencyKey, "mine");
  assert.equal((await gateway.client().createRoom()).problem?.code, "no_session");
});

test("getAuthToken throws where the seed's returns undefined", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  for (const answer of [problem(403, "role_not_allowed"), { body: { success: true } }]) {
    gateway.on(`POST /rooms/${ROOM.id}/token`, answer);
    await assert.rejects(client.getAuthToken(ROOM.id, "host"), GatewayProblem);
  }
});
