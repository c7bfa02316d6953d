import assert from "node:assert/strict";
import { test } from "node:test";
import { GatewayProblem, type HMSServiceClass } from "@hms-gateway/client";
import { type Answer, FakeGateway, ROOM, USER, problem } from "./fake.js";

const ID = ROOM.id;
const MEMBER = { user_id: "u2", username: "bo", display_name: "Bo", relation: "viewer" };
const INVITE = {
  id: "0123456789abcdef0123456789abcdef",
  relation: "viewer",
  uses_left: 5,
  expires_at: "2026-01-02T00:00:00.000Z",
  guests: true,
  by: "u1",
};

interface Method {
  readonly call: (client: HMSServiceClass) => Promise<unknown>;
  readonly route: string;
  readonly body?: unknown;
  readonly answer: Answer;
  readonly result?: unknown;
}

/** What each method sends, and what it makes of the answer. */
const METHODS: Record<string, Method> = {
  getRoom: {
    call: (client) => client.getRoom(ID),
    route: `GET /rooms/${ID}`,
    answer: { body: { room: { ...ROOM, relation: "owner" } } },
    result: { ...ROOM, relation: "owner" },
  },
  updateRoom: {
    call: (client) => client.updateRoom(ID, { name: "New", enabled: false }),
    route: `PATCH /rooms/${ID}`,
    body: { name: "New", enabled: false },
    answer: { body: { room: ROOM } },
    result: ROOM,
  },
  endRoom: {
    call: (client) => client.endRoom(ID, { lock: true, reason: "over" }),
    route: `POST /rooms/${ID}/end`,
    body: { lock: true, reason: "over" },
    answer: { status: 202, body: { ended: true, locked: true } },
    result: { ended: true, locked: true },
  },
  mintToken: {
    call: (client) => client.mintToken(ID),
    route: `POST /rooms/${ID}/token`,
    body: {},
    answer: { body: { success: true, token: "joined", role: "guest" } },
    result: { success: true, token: "joined", role: "guest" },
  },
  memberPage: {
    call: (client) => client.memberPage(ID, { limit: 5, cursor: "x/y=" }),
    route: `GET /rooms/${ID}/members?limit=5&cursor=x%2Fy%3D`,
    answer: { body: { members: [MEMBER], next_cursor: null } },
    result: { members: [MEMBER], next_cursor: null },
  },
  setMember: {
    call: (client) => client.setMember(ID, "bo", "viewer"),
    route: `PUT /rooms/${ID}/members/bo`,
    body: { relation: "viewer" },
    answer: { body: { member: MEMBER, removed: 1 } },
    result: { member: MEMBER, removed: 1 },
  },
  banMember: {
    call: (client) => client.banMember(ID, "u2"),
    route: `DELETE /rooms/${ID}/members/u2`,
    answer: { status: 204 },
  },
  createInvite: {
    call: (client) => client.createInvite(ID, { relation: "viewer", maxUses: 5, expiresInS: 3600, guests: true }),
    route: `POST /rooms/${ID}/invites`,
    body: { relation: "viewer", max_uses: 5, expires_in_s: 3600, guests: true },
    answer: { status: 201, body: { code: "c0de", invite: INVITE } },
    result: { code: "c0de", invite: INVITE },
  },
  "createInvite with the gateway's defaults": {
    call: (client) => client.createInvite(ID),
    route: `POST /rooms/${ID}/invites`,
    body: {},
    answer: { status: 201, body: { code: "c0de", invite: INVITE } },
    result: { code: "c0de", invite: INVITE },
  },
  invites: {
    call: (client) => client.invites(ID),
    route: `GET /rooms/${ID}/invites`,
    answer: { body: { invites: [INVITE] } },
    result: [INVITE],
  },
  revokeInvite: {
    call: (client) => client.revokeInvite(ID, INVITE.id),
    route: `DELETE /rooms/${ID}/invites/${INVITE.id}`,
    answer: { status: 204 },
  },
  acceptInvite: {
    call: (client) => client.acceptInvite("c/de"),
    route: "POST /invites/c%2Fde/accept",
    body: {},
    answer: { body: { room: ROOM, relation: "viewer", login: null } },
    result: { room: ROOM, relation: "viewer" },
  },
  sessions: {
    call: (client) => client.sessions(),
    route: "GET /auth/sessions",
    answer: { body: { sessions: [{ id: "s1" }] } },
    result: [{ id: "s1" }],
  },
  changePassword: {
    call: (client) => client.changePassword("old", "new"),
    route: "POST /auth/password",
    body: { current_password: "old", new_password: "new" },
    answer: { status: 204 },
  },
  usage: {
    call: (client) => client.usage(),
    route: "GET /usage",
    answer: { body: { user_id: "u1", limits: [], quotas: [], leases: [], blocked_until: null, usage: {} } },
    result: { user_id: "u1", limits: [], quotas: [], leases: [], blocked_until: null, usage: {} },
  },
};

for (const [name, { call, route, body, answer, result }] of Object.entries(METHODS)) {
  test(`${name} is ${route.replace(ID, "{id}")}`, async () => {
    const gateway = new FakeGateway();
    const client = await gateway.loggedIn();
    gateway.on(route, answer);
    assert.deepEqual(await call(client), result);
    const asked = gateway.last();
    assert.equal(`${asked.method} ${asked.path}`, route);
    assert.deepEqual(asked.body, body);
    assert.equal(asked.headers["authorization"], "Bearer access-1");
    assert.equal(asked.headers["content-type"], /^(GET|DELETE) /.test(route) ? undefined : "application/json");
  });
}

test("createRoom without options sends an empty body, as the seed's does", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", { status: 201, body: { success: true, room: ROOM } });
  for (const options of [undefined, {}, { idempotencyKey: "mine" }]) {
    assert.equal((await client.createRoom(options)).room?.id, ID);
    assert.equal(gateway.last().body, undefined);
    assert.equal(gateway.last().headers["content-type"], "application/json");
  }
  assert.equal(gateway.last().headers["idempotency-key"], "mine");
});

test("createRoom sends its options, and a new key for each call", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", { status: 201, body: { success: true, room: ROOM } });
  const room = { name: "Stand-up", description: "every day", access: "invited", template: "default" } as const;
  await Promise.all(Array.from({ length: 20 }, () => client.createRoom(room)));
  const asked = gateway.asked.slice(1);
  for (const { body } of asked) assert.deepEqual(body, room);
  const keys = asked.map(({ headers }) => headers["idempotency-key"]);
  assert.equal(new Set(keys).size, 20);
  for (const key of keys) assert.match(key ?? "", /^[0-9a-f]{32}$/);
});

test("rooms fetches its pages on demand", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const room = (id: string): typeof ROOM => ({ ...ROOM, id });
  gateway.on("GET /rooms?limit=2", { body: { rooms: [room("a"), room("b")], next_cursor: "x/y=" } });
  gateway.on("GET /rooms?limit=2&cursor=x%2Fy%3D", { body: { rooms: [room("c")], next_cursor: null } });
  const seen: string[] = [];
  for await (const { id } of client.rooms(2)) {
    seen.push(id);
    if (id === "a") assert.equal(gateway.times("GET /rooms?limit=2&cursor=x%2Fy%3D"), 0);
  }
  assert.deepEqual(seen, ["a", "b", "c"]);
  gateway.on("GET /rooms", { body: { rooms: [], next_cursor: null } });
  assert.deepEqual(await client.roomPage(), { rooms: [], next_cursor: null });
});

test("register sends its fields and does not log in", async () => {
  const gateway = new FakeGateway();
  const client = gateway.client();
  gateway.on("POST /auth/register", { status: 201, body: { user: USER } });
  assert.deepEqual(await client.register({ username: "ada", password: "pw", displayName: "Ada" }), USER);
  assert.deepEqual(gateway.last().body, { username: "ada", password: "pw", display_name: "Ada" });
  assert.equal(await client.currentUser(), null);
  gateway.on("POST /auth/register", problem(422, "weak_password", { reasons: ["is too short"] }));
  await assert.rejects(client.register({ username: "ada", password: "pw" }), GatewayProblem);
});

test("an invite for guests logs the guest in", async () => {
  const gateway = new FakeGateway();
  const client = gateway.client();
  gateway.on("POST /invites/c0de/accept", () => ({
    body: { room: ROOM, relation: "viewer", login: gateway.tokens() },
  }));
  const accepted = await client.acceptInvite("c0de", { displayName: "Gast" });
  assert.deepEqual(accepted, { room: ROOM, relation: "viewer" }, "the tokens are the client's own");
  assert.equal(gateway.last().headers["authorization"], undefined);
  assert.deepEqual(gateway.last().body, { display_name: "Gast" });
  assert.deepEqual(await client.currentUser(), USER);
  await client.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
});

test("an invite that is not for guests does not log in", async () => {
  const gateway = new FakeGateway();
  const client = gateway.client();
  gateway.on("POST /invites/c0de/accept", problem(403, "invite_invalid"));
  await assert.rejects(client.acceptInvite("c0de"), (error: GatewayProblem) => error.code === "invite_invalid");
  assert.equal(await client.currentUser(), null);
});

test("members fetches its pages on demand", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const path = `GET /rooms/${ID}/members?limit=1`;
  gateway.on(path, { body: { members: [MEMBER], next_cursor: "next" } });
  gateway.on(`${path}&cursor=next`, { body: { members: [{ ...MEMBER, user_id: "u3" }], next_cursor: null } });
  const seen: string[] = [];
  for await (const { user_id } of client.members(ID, 1)) {
    seen.push(user_id);
    if (user_id === "u2") assert.equal(gateway.times(`${path}&cursor=next`), 0);
  }
  assert.deepEqual(seen, ["u2", "u3"]);
});

test("ending the current session forgets the login, ending another keeps it", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  for (const id of ["s1", "s2"]) gateway.on(`DELETE /auth/sessions/${id}`, { status: 204 });
  await client.endSession("s2");
  assert.deepEqual(await client.currentUser(), USER);
  await client.endSession("s1");
  assert.equal(await client.currentUser(), null);
});

test("an id cannot change the path", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  for (const id of ["", ".", ".."]) await assert.rejects(client.getAuthToken(id, "host"), TypeError);
  assert.equal(gateway.asked.length, 1);
  await assert.rejects(client.getRoom("../admin?x=#y"), GatewayProblem);
  assert.equal(gateway.last().path, "/rooms/..%2Fadmin%3Fx%3D%23y");
});
