import assert from "node:assert/strict";
import { test } from "node:test";
import { type RateLimit, parseRateLimits, parseRetryAfter } from "@hms-gateway/client";
import { FakeGateway, USER } from "./fake.js";

test("the gateway's fields are read, the tightest first", () => {
  const limits = parseRateLimits(
    '"tokens.mint";r=12;t=12, "api";r=58;t=29',
    '"tokens.mint";q=30;w=30, "api";q=60;w=30',
  );
  assert.deepEqual(limits, [
    { policy: "tokens.mint", remaining: 12, resetS: 12, quota: 30, windowS: 30 },
    { policy: "api", remaining: 58, resetS: 29, quota: 60, windowS: 30 },
  ]);
});

test("names are structured strings: quoted, escaped, with any separator in them", () => {
  const limits = parseRateLimits(
    String.raw`"a, b;r=9";r=1,	"say \"hi\" \\";r=2;t=3`,
    String.raw`"say \"hi\" \\";w=60;q=5`,
  );
  assert.deepEqual(limits, [
    { policy: "a, b;r=9", remaining: 1, resetS: undefined, quota: undefined, windowS: undefined },
    { policy: 'say "hi" \\', remaining: 2, resetS: 3, quota: 5, windowS: 60 },
  ]);
});

test("unknown parameters of any type are ignored", () => {
  const [limit] = parseRateLimits('"api";pk=:YWJj:;x;y=?0;z=tok/en;w="q;r=7"; r=4;d=-1.5;t=2', null);
  assert.deepEqual(limit, { policy: "api", remaining: 4, resetS: 2, quota: undefined, windowS: undefined });
});

test("a malformed field counts as missing (RFC 9651 section 4.2)", () => {
  for (const field of [
    '"api";r=1,',
    '"api;r=1',
    '"api";r=',
    '"api";R=1',
    '"api" r=1',
    '"api";r=1 "b";r=2',
    ',"api";r=1',
    '"é";r=1',
    "\"a\\b\";r=1",
  ]) {
    assert.deepEqual(parseRateLimits(field, null), [], field);
  }
  assert.deepEqual(parseRateLimits(null, null), []);
  assert.deepEqual(parseRateLimits("", ""), []);
});

test("an item that is not a string, or has no remaining units, is not a limit", () => {
  assert.deepEqual(
    parseRateLimits('limit;r=10, 5;r=1, "x";t=3, "y";r="7", "api";r=1', null).map(({ policy }: RateLimit) => policy),
    ["api"],
  );
});

test("a malformed policy does not affect the limits", () => {
  const [limit] = parseRateLimits('"api";r=1', '"api";q=60;;');
  assert.equal(limit?.remaining, 1);
  assert.equal(limit?.quota, undefined);
});

test("Retry-After is seconds or a date", () => {
  const nowMs = Date.UTC(2026, 0, 1);
  assert.equal(parseRetryAfter("7", nowMs), 7);
  assert.equal(parseRetryAfter(" 0 ", nowMs), 0);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:01:00 GMT", nowMs), 60);
  assert.equal(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", nowMs), 0);
  for (const field of [null, "", "soon", "1.5", "1e3", "-1"]) assert.equal(parseRetryAfter(field, nowMs), undefined);
});

test("the client keeps the limits and calls its listener", async () => {
  const gateway = new FakeGateway();
  const seen: (readonly RateLimit[])[] = [];
  const client = await gateway.loggedIn({ onRateLimits: (limits) => seen.push(limits) });
  assert.deepEqual(client.rateLimits, []);
  const headers = { ratelimit: '"api";r=58;t=29', "ratelimit-policy": '"api";q=60;w=30' };
  gateway.on("GET /auth/me", { body: { user: USER, permissions: [] }, headers });
  await client.me();
  const api = { policy: "api", remaining: 58, resetS: 29, quota: 60, windowS: 30 };
  assert.deepEqual(client.rateLimits, [api]);
  assert.deepEqual(seen, [[api]]);
  gateway.on("GET /auth/me", { body: { user: USER, permissions: [] } });
  await client.me();
  assert.deepEqual(client.rateLimits, [api], "an answer without the fields says nothing");
});
