import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import {
  GatewayProblem,
  GatewayUnreachable,
  type KeyValueStore,
  type Session,
  keyValueStorage,
  memoryStorage,
} from "@hms-gateway/client";
import { type Asked, FakeGateway, USER, problem } from "./fake.js";

const MINUTE_MS = 60_000;

/** A storage as slow as React Native's: every answer comes a turn later. */
function slowStore(): KeyValueStore & { readonly kept: Map<string, string> } {
  const kept = new Map<string, string>();
  const later = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));
  return {
    kept,
    getItem: async (key) => (await later(), kept.get(key) ?? null),
    setItem: async (key, value) => (await later(), void kept.set(key, value)),
    removeItem: async (key) => (await later(), void kept.delete(key)),
  };
}

function refused(code: string): (error: unknown) => boolean {
  return (error) => error instanceof GatewayProblem && error.code === code;
}

/** A gateway to which only the tokens of the last refresh are good. */
function strict(gateway: FakeGateway): void {
  gateway.on("GET /auth/me", (asked) =>
    asked.headers["authorization"] === `Bearer access-${1 + gateway.times("POST /auth/refresh")}`
      ? { body: { user: USER, permissions: [] } }
      : problem(401, "token_expired"),
  );
}

test("login sends the password once, and later calls send the access token", async () => {
  const gateway = new FakeGateway();
  const client = gateway.client();
  assert.deepEqual(await client.login("ada", "correct horse"), USER);
  assert.deepEqual(gateway.last().body, { username: "ada", password: "correct horse" });
  assert.equal(gateway.last().headers["authorization"], undefined);
  await client.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
  assert.deepEqual(await client.currentUser(), USER);
});

test("without a login nothing is sent", async () => {
  const gateway = new FakeGateway();
  const client = gateway.client();
  await assert.rejects(client.me(), refused("no_session"));
  await assert.rejects(client.refresh(), refused("no_session"));
  await client.logout();
  assert.deepEqual(gateway.asked, []);
});

for (const [kind, storage] of [
  ["memory", () => memoryStorage()],
  ["slow", () => keyValueStorage(slowStore())],
] as const) {
  test(`fifty parallel calls with a refused token make one refresh (${kind} storage)`, async () => {
    const gateway = new FakeGateway();
    const client = await gateway.loggedIn({ storage: storage() });
    gateway.on("POST /auth/refresh", () => ({ body: gateway.tokens() }));
    gateway.on("GET /auth/me", (asked) =>
      asked.headers["authorization"] === "Bearer access-2"
        ? { body: { user: USER, permissions: [] } }
        : problem(401, "token_expired"),
    );
    await Promise.all(Array.from({ length: 50 }, () => client.me()));
    assert.equal(gateway.times("POST /auth/refresh"), 1);
    assert.equal(gateway.times("GET /auth/me"), 100);
  });

  test(`fifty parallel calls with an expired token make one refresh before them (${kind} storage)`, async () => {
    const gateway = new FakeGateway();
    const client = await gateway.loggedIn({ storage: storage() });
    strict(gateway);
    gateway.nowMs += 11 * MINUTE_MS;
    await Promise.all(Array.from({ length: 50 }, () => client.me()));
    assert.equal(gateway.times("POST /auth/refresh"), 1);
    assert.equal(gateway.times("GET /auth/me"), 50);
  });
}

test("a token of an identity provider logs in", async () => {
  const gateway = new FakeGateway();
  gateway.on("POST /auth/exchange", () => ({ body: gateway.tokens() }));
  const client = gateway.client();
  assert.deepEqual(await client.exchange("eyJ.of.firebase"), USER);
  assert.deepEqual(gateway.last().body, { token: "eyJ.of.firebase" });
  await client.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
  gateway.on("POST /auth/exchange", problem(400, "invalid_grant"));
  await assert.rejects(client.exchange("expired"), refused("invalid_grant"));
  assert.deepEqual(await client.currentUser(), USER, "a refused token ends no login");
});

test("calls during a refresh wait for it", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  strict(gateway);
  gateway.nowMs += 11 * MINUTE_MS;
  const staggered = Array.from({ length: 20 }, async (_, turns) => {
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    await client.me();
  });
  await Promise.all(staggered);
  assert.equal(gateway.times("POST /auth/refresh"), 1);
});

test("a token is renewed 30 seconds before it expires, not earlier", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.nowMs += 9 * MINUTE_MS;
  await client.me();
  assert.equal(gateway.times("POST /auth/refresh"), 0);
  gateway.nowMs += 31_000;
  await client.me();
  assert.equal(gateway.times("POST /auth/refresh"), 1);
  assert.equal(gateway.last().headers["authorization"], "Bearer access-2");
});

test("a token that is refused after the refresh is not refreshed again", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("GET /auth/me", problem(401, "invalid_token"));
  await assert.rejects(client.me(), refused("invalid_token"));
  assert.equal(gateway.times("POST /auth/refresh"), 1);
  assert.equal(gateway.times("GET /auth/me"), 2);
});

test("a wrong password does not cause a refresh", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/password", problem(401, "invalid_credentials"));
  await assert.rejects(client.changePassword("wrong", "new"), refused("invalid_credentials"));
  assert.equal(gateway.times("POST /auth/refresh"), 0);
});

test("a refused refresh token ends the login and calls the listener once", async () => {
  const gateway = new FakeGateway();
  const lost: GatewayProblem[] = [];
  const client = await gateway.loggedIn({ onSessionLost: (problem) => lost.push(problem) });
  gateway.on("GET /auth/me", problem(401, "invalid_token"));
  gateway.on("POST /auth/refresh", problem(400, "invalid_grant"));
  const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => client.me()));
  for (const outcome of outcomes) {
    assert.ok(outcome.status === "rejected" && refused("invalid_grant")(outcome.reason));
  }
  assert.deepEqual(
    lost.map(({ code }) => code),
    ["invalid_grant"],
  );
  assert.equal(gateway.times("POST /auth/refresh"), 1);
  await assert.rejects(client.me(), refused("no_session"));
  assert.equal(await client.currentUser(), null);
});

test("a refusal of an early refresh also ends the login", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/refresh", problem(400, "invalid_grant"));
  gateway.nowMs += 10 * MINUTE_MS - 20_000;
  await assert.rejects(client.me(), refused("invalid_grant"));
  assert.equal(gateway.times("GET /auth/me"), 0);
  assert.equal(await client.currentUser(), null);
});

test("a refresh that is refused after a logout does not call the listener", async () => {
  const gateway = new FakeGateway();
  const lost: GatewayProblem[] = [];
  const client = await gateway.loggedIn({ onSessionLost: (problem) => lost.push(problem) });
  gateway.on("POST /auth/refresh", async () => {
    await client.logout();
    return problem(400, "invalid_grant");
  });
  await assert.rejects(client.refresh(), refused("invalid_grant"));
  assert.deepEqual(lost, []);
});

test("a call refused after a refresh is repeated with the new token", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  const isSpent = (asked: Asked): boolean => asked.headers["authorization"] === "Bearer access-1";
  const spent = problem(401, "token_expired");
  gateway.on("GET /auth/me", (asked) => (isSpent(asked) ? spent : { body: { user: USER, permissions: [] } }));
  gateway.on("GET /auth/sessions", async (asked) => {
    if (!isSpent(asked)) return { body: { sessions: [] } };
    await client.me(); // is refused, refreshes, passes
    return spent;
  });
  assert.deepEqual(await client.sessions(), []);
  assert.equal(gateway.times("POST /auth/refresh"), 1);
});

test("tokens of another tab are renewed for a call that was refused with them", async () => {
  const gateway = new FakeGateway();
  const storage = memoryStorage();
  let release = (): void => {};
  let gate: Promise<void> | undefined;
  const gated = { ...storage, get: async () => (await gate, storage.get()) };
  const client = await gateway.loggedIn({ storage: gated });
  let second: Promise<unknown> | undefined;
  let refusals = 0;
  gateway.on("GET /auth/me", async (asked) => {
    const token = asked.headers["authorization"];
    if (token === "Bearer access-1") {
      const held = await storage.get();
      if (held) await storage.set({ ...held, accessToken: "access-of-another-tab" });
      second = client.me();
      await new Promise((resolve) => setTimeout(resolve, 5)); // the second call is on its way
      gate = new Promise((resolve) => (release = resolve)); // the first one's renewal reads slowly
      return problem(401, "token_expired");
    }
    if (token === "Bearer access-of-another-tab" && refusals++ === 0) {
      await new Promise((resolve) => setTimeout(resolve, 20)); // the first one's renewal has begun
      setTimeout(release, 20); // and by then the second call has joined it
      return problem(401, "token_expired");
    }
    return { body: { user: USER, permissions: [] } };
  });
  await client.me();
  await second;
  assert.equal(gateway.times("POST /auth/refresh"), 1);
});

test("a network failure during the refresh keeps the login", async () => {
  const gateway = new FakeGateway();
  const lost: GatewayProblem[] = [];
  const client = await gateway.loggedIn({ onSessionLost: (problem) => lost.push(problem) });
  gateway.nowMs += 11 * MINUTE_MS;
  gateway.on("POST /auth/refresh", () => Promise.reject(new TypeError("fetch failed")));
  await assert.rejects(client.me(), GatewayUnreachable);
  assert.equal(gateway.times("POST /auth/refresh"), 2, "its answer may have been lost: asked again in time");
  assert.deepEqual(gateway.slept, [1000]);
  gateway.on("POST /auth/refresh", () => ({ body: gateway.tokens() }));
  await client.me();
  assert.deepEqual(lost, []);
});

test("the old token is used until it expires if an early refresh fails", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/refresh", problem(503, "unavailable"));
  gateway.nowMs += 10 * MINUTE_MS - 20_000;
  await client.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
  gateway.nowMs += 20_000;
  await assert.rejects(client.me(), refused("unavailable"));
});

test("tabs that share a storage use the tokens that one of them renewed", async () => {
  const gateway = new FakeGateway();
  const store = slowStore();
  const one = await gateway.loggedIn({ storage: keyValueStorage(store) });
  const other = gateway.client({ storage: keyValueStorage(store) });
  gateway.nowMs += 11 * MINUTE_MS;
  await one.me();
  await other.me();
  assert.equal(gateway.times("POST /auth/refresh"), 1);
  gateway.nowMs += 11 * MINUTE_MS;
  await other.me();
  assert.deepEqual(gateway.asked.at(-2)?.body, { refresh_token: "refresh-2" }, "never one that has been spent");
  await one.logout();
  await assert.rejects(other.me(), refused("no_session"));
});

test("logout ends the session with the refresh token and forgets it", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  await client.logout();
  assert.deepEqual(gateway.last().body, { refresh_token: "refresh-1", scope: "current" });
  assert.equal(gateway.last().headers["authorization"], undefined);
  await assert.rejects(client.me(), refused("no_session"));
});

test("logout of the other sessions keeps the login", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  await client.logout("others");
  assert.deepEqual(gateway.last().body, { refresh_token: "refresh-1", scope: "others" });
  await client.me();
});

test("logout without an answer forgets the login and throws", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/logout", () => Promise.reject(new TypeError("fetch failed")));
  await assert.rejects(client.logout(), GatewayUnreachable);
  assert.equal(await client.currentUser(), null);
});

test("logout of an ended session is no error", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/logout", problem(400, "invalid_grant"));
  await client.logout();
  assert.equal(await client.currentUser(), null);
});

test("a refresh does not restore the login after a logout", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/refresh", async () => {
    await client.logout();
    return { body: gateway.tokens() };
  });
  await assert.rejects(client.refresh(), refused("no_session"));
  assert.equal(await client.currentUser(), null);
});

for (const next of [null, "s2"]) {
  test(`a refresh leaves the storage unchanged after another tab's logout (then: ${next ?? "no login"})`, async () => {
    const gateway = new FakeGateway();
    const storage = memoryStorage();
    const client = await gateway.loggedIn({ storage });
    const other = gateway.client({ storage });
    gateway.on("POST /auth/refresh", async () => {
      await other.logout();
      gateway.on("POST /auth/login", { body: { ...gateway.tokens(), session_id: next } });
      if (next) await other.login("grace", "another password");
      return { body: gateway.tokens() };
    });
    await assert.rejects(client.refresh(), refused("no_session"));
    assert.equal((await storage.get())?.sessionId ?? null, next);
  });
}

test("a late answer to a refresh does not replace newer tokens of another tab", async () => {
  const gateway = new FakeGateway();
  const storage = memoryStorage();
  const client = await gateway.loggedIn({ storage });
  const other = gateway.client({ storage });
  gateway.on("POST /auth/refresh", async (_, times) => {
    const body = gateway.tokens();
    if (times === 1) await other.refresh();
    return { body };
  });
  await client.refresh();
  assert.equal((await storage.get())?.refreshToken, "refresh-3");
});

test("a call of one user is never repeated as another user", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /auth/login", () => ({ body: { ...gateway.tokens(), session_id: "s2" } }));
  gateway.on("GET /auth/me", async () => {
    await client.login("grace", "another password");
    return problem(401, "invalid_token");
  });
  await assert.rejects(client.me(), refused("no_session"));
  assert.equal(gateway.times("GET /auth/me"), 1);
  assert.notEqual(await client.currentUser(), null);
});

test("a stored value is used only if it is a login", async () => {
  const good: Session = {
    accessToken: "access",
    refreshToken: "refresh",
    sessionId: "s1",
    user: USER,
    renewAtMs: Date.UTC(2030, 0),
    expiresAtMs: Date.UTC(2030, 0),
  };
  for (const [text, isLogin] of [
    [JSON.stringify(good), true],
    ["{", false],
    ["null", false],
    ["[]", false],
    [JSON.stringify({ ...good, accessToken: "line\nbreak" }), false],
    [JSON.stringify({ ...good, refreshToken: 7 }), false],
    [JSON.stringify({ ...good, expiresAtMs: "soon" }), false],
  ] as const) {
    const store = slowStore();
    store.kept.set("hms-gateway.session", text);
    const user = await new FakeGateway().client({ storage: keyValueStorage(store) }).currentUser();
    assert.equal(user !== null, isLogin, text);
  }
});

test("the client, its errors and their JSON contain no token or password", async () => {
  const gateway = new FakeGateway();
  const secret = "hunter2-hunter2";
  const client = gateway.client({
    fetch: async (input, init) => {
      if (String(input).endsWith("/auth/login")) return gateway.fetch(input, init);
      // as some wrappers of fetch do: the whole request within the error
      throw Object.assign(new TypeError(`cannot send ${JSON.stringify(init)}`), { config: init, cause: { init } });
    },
  });
  await client.login("ada", secret);
  const shown = [inspect(client, { depth: 9, showHidden: true }), JSON.stringify(client), String(client)];
  const calls = [() => client.me(), () => client.refresh(), () => client.acceptInvite("c0de"), () => client.logout()];
  for (const call of calls) {
    await assert.rejects(call, (error) => {
      shown.push(inspect(error, { depth: 9, showHidden: true }), JSON.stringify(error), String(error));
      return error instanceof GatewayUnreachable;
    });
  }
  const answer = await client.createRoom({ name: "x" });
  shown.push(inspect(answer, { depth: 9 }), JSON.stringify(answer));
  for (const text of shown) assert.doesNotMatch(text, /access-\d|refresh-\d|hunter2|c0de/);
});
