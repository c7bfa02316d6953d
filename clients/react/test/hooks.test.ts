/** The hooks in a document of happy-dom, against a scripted gateway. */

import assert from "node:assert/strict";
import { after, afterEach, beforeEach, mock, test } from "node:test";

import { GatewayProblem } from "@hms-gateway/client";
import { GatewayProvider, type GatewayState, type RoomToken, useGateway, useRoomToken } from "@hms-gateway/react";
import { Window } from "happy-dom";
import { StrictMode, act, createElement } from "react";
import { type Root, createRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";

const USER = { id: "u1", username: "ada", display_name: "Ada", roles: ["host"] };
const window = new Window();
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });
after(() => window.close());

type Answer = readonly [status: number, body: object];
let answers: Record<string, Answer[]>;
let asked: string[];
let root: Root;
let seen: { gateway: GatewayState; token: RoomToken };

function Probe({ room, role, enabled }: { room?: string; role?: string; enabled?: boolean }) {
  seen = { gateway: useGateway(), token: useRoomToken(room, { role, enabled }) };
  return null;
}

async function answer(input: unknown): Promise<Response> {
  const path = new URL(String(input)).pathname.replace("/api", "");
  asked.push(path);
  const left = answers[path] ?? [];
  const [status, body] = (left.length > 1 ? left.shift() : left[0]) ?? [500, {}];
  return new Response(status === 204 ? null : JSON.stringify(body), { status });
}

async function show(props: object, strict = false): Promise<void> {
  const options = { baseUrl: "https://gw.example/api", fetch: answer as typeof fetch, retry: false as const };
  const tree = createElement(GatewayProvider, { options }, createElement(Probe, props));
  await act(async () => root.render(strict ? createElement(StrictMode, null, tree) : tree));
}

async function pass(ms: number): Promise<void> {
  await act(async () => {
    mock.timers.tick(ms);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  });
}

const login = (): Answer => [
  200,
  { access_token: "a", refresh_token: "r", token_type: "Bearer", expires_in: 36000, session_id: "s", user: USER },
];
const minted = (token: string, lastsS: number): Answer => [
  200,
  { token, room_id: "1", role: "guest", user_id: "u1", expires_at: new Date(Date.now() + lastsS * 1000).toISOString() },
];
const refused = (status: number, code: string): Answer => [status, { code, detail: `It is ${code}.` }];

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.UTC(2026, 10, 29) });
  answers = { "/auth/login": [login()], "/auth/logout": [[204, {}]] };
  asked = [];
  root = createRoot(window.document.createElement("div") as unknown as HTMLElement);
});
afterEach(async () => {
  await act(async () => root.unmount());
  mock.timers.reset();
});

test("a login is shown, and so is its end", async () => {
  await show({});
  assert.equal(seen.gateway.status, "signed-out");
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  assert.equal(seen.gateway.status, "signed-in");
  assert.equal(seen.gateway.user?.display_name, "Ada");
  await act(async () => await seen.gateway.logout());
  assert.deepEqual([seen.gateway.status, seen.gateway.user, seen.gateway.lost], ["signed-out", null, null]);
});

test("a refused login is thrown and changes nothing", async () => {
  await show({});
  answers["/auth/login"] = [refused(401, "invalid_credentials")];
  await act(async () => {
    await assert.rejects(seen.gateway.login("ada", "wrong"), (error) => (error as GatewayProblem).code === "invalid_credentials");
  });
  assert.equal(seen.gateway.status, "signed-out");
});

test("a login that the gateway has ended is lost, with the reason", async () => {
  answers["/rooms/1/token"] = [refused(401, "invalid_token")];
  answers["/auth/refresh"] = [refused(400, "invalid_grant")];
  await show({ room: "1" });
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  await pass(0);
  assert.equal(seen.gateway.status, "signed-out");
  assert.equal(seen.gateway.lost?.code, "invalid_grant");
  assert.equal(seen.token.status, "idle");
});

test("a token is renewed a minute before it expires, and kept meanwhile", async () => {
  answers["/rooms/1/token"] = [minted("first", 600), minted("second", 600 + 540)];
  await show({ room: "1" });
  assert.equal(seen.token.status, "idle");
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  await pass(0);
  assert.deepEqual([seen.token.status, seen.token.token, seen.token.role], ["ready", "first", "guest"]);
  await pass(539_000);
  assert.equal(seen.token.token, "first");
  await pass(2_000);
  assert.equal(seen.token.token, "second");
  assert.equal(asked.filter((path) => path.endsWith("/token")).length, 2);
});

test("a renewal without an answer is tried again while the old token is good; a refusal ends it", async () => {
  answers["/rooms/1/token"] = [minted("first", 600), refused(503, "unavailable"), refused(403, "forbidden")];
  await show({ room: "1" });
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  await pass(0);
  await pass(541_000);
  assert.equal(seen.token.token, "first", "the renewal failed, and the token is still good");
  await pass(15_000);
  assert.deepEqual([seen.token.status, seen.token.token], ["failed", null]);
  assert.equal((seen.token.error as GatewayProblem).code, "forbidden");
});

test("a refusal is shown until it is retried", async () => {
  answers["/rooms/1/token"] = [refused(403, "role_not_allowed"), minted("now", 600)];
  await show({ room: "1", role: "host" });
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  await pass(0);
  assert.deepEqual([seen.token.status, seen.token.error?.message], ["failed", "It is role_not_allowed."]);
  await act(async () => seen.token.retry());
  await pass(0);
  assert.equal(seen.token.token, "now");
});

test("strict mode costs one mint; another room costs another; waiting costs none", async () => {
  answers["/rooms/1/token"] = [minted("one", 600)];
  answers["/rooms/2/token"] = [minted("two", 600)];
  await show({ room: "1", enabled: false }, true);
  await act(async () => void (await seen.gateway.login("ada", "a password")));
  await pass(0);
  assert.deepEqual(asked, ["/auth/login"]);
  await show({ room: "1" }, true);
  await pass(0);
  await show({ room: "2" }, true);
  await pass(0);
  assert.equal(seen.token.token, "two");
  assert.deepEqual(asked, ["/auth/login", "/rooms/1/token", "/rooms/2/token"]);
  await show({}, true);
  assert.equal(seen.token.status, "idle");
});

test("on a server nothing is asked", () => {
  const options = { baseUrl: "https://gw.example/api", fetch: answer as typeof fetch };
  renderToString(createElement(GatewayProvider, { options }, createElement(Probe, { room: "1" })));
  assert.deepEqual([seen.gateway.status, seen.token.status, asked.length], ["loading", "idle", 0]);
});

test("outside a provider the hook says what is missing", () => {
  assert.throws(() => renderToString(createElement(Probe, {})), /below a <GatewayProvider>/);
});
