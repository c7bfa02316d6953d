/** Cookie mode. Tabs are clients of one process here; test_typescript_client.py has those of a browser. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import {
  GatewayProblem,
  GatewayUnreachable,
  type HMSServiceClass,
  type HMSServiceOptions,
  memoryStorage,
} from "@hms-gateway/client";
import { BASE_URL, FakeGateway, USER, problem } from "./fake.js";

const MINUTE_MS = 60_000;

let made = 0;

/** A gateway in cookie mode, and the browser's cookie for it. */
class CookieGateway extends FakeGateway {
  /** The number of the refresh token that the browser holds; 0: none. */
  cookie = 0;
  session = "s1";
  /** Each gateway has its own address: tabs of one share a channel. */
  readonly baseUrl = `http://gateway-${++made}.test/api`;

  constructor() {
    super();
    this.on("POST /auth/login", () => this.#given());
    this.on("POST /auth/refresh", () => (this.cookie > 0 ? this.#given() : problem(400, "invalid_grant")));
    this.on("POST /auth/logout", () => {
      this.cookie = 0;
      return { status: 204 };
    });
  }

  #given(): { body: unknown } {
    const { refresh_token, ...body } = this.tokens();
    this.cookie = Number(String(refresh_token).slice("refresh-".length));
    return { body: { ...body, session_id: this.session } };
  }

  tab(options: Partial<HMSServiceOptions> = {}): HMSServiceClass {
    const send: typeof fetch = (input, init) => this.fetch(String(input).replace(this.baseUrl, BASE_URL), init);
    return this.client({ baseUrl: this.baseUrl, fetch: send, cookies: true, ...options });
  }

  async tabLoggedIn(options: Partial<HMSServiceOptions> = {}): Promise<HMSServiceClass> {
    const tab = this.tab(options);
    await tab.login("ada", "correct horse battery staple");
    return tab;
  }
}

function refused(code: string): (error: unknown) => boolean {
  return (error) => error instanceof GatewayProblem && error.code === code;
}

/** Wait until the tabs have heard what was said. */
const heard = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

/** Give this process the locks of a browser, which Node 20 lacks. They are handed over in a later task, as there. */
function provideLocks(): void {
  const tails = new Map<string, Promise<unknown>>();
  const request = <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const before = tails.get(name);
    const mine = before ? before.then(heard).then(work) : work();
    tails.set(name, mine.catch(() => undefined));
    return mine;
  };
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
}

const navigatorBefore = Object.getOwnPropertyDescriptor(globalThis, "navigator");
afterEach(() => {
  if (navigatorBefore) Object.defineProperty(globalThis, "navigator", navigatorBefore);
  else Reflect.deleteProperty(globalThis, "navigator");
});

test("only login, refresh and logout ask for the cookie and send it", async () => {
  const gateway = new CookieGateway();
  const tab = await gateway.tabLoggedIn();
  await tab.me();
  await tab.refresh();
  await tab.logout();
  const seen = gateway.asked.map(({ path, headers, credentials, keepalive }) => [
    path,
    headers["x-gateway-session"],
    credentials,
    keepalive,
  ]);
  assert.deepEqual(seen, [
    ["/auth/login", "cookie", "include", true],
    ["/auth/me", undefined, undefined, undefined],
    ["/auth/refresh", "cookie", "include", true],
    ["/auth/logout", "cookie", "include", true],
  ]);
  assert.deepEqual(gateway.asked[2]?.body, {}, "no token in the body");
  assert.deepEqual(gateway.last().body, { scope: "current" });
});

test("after a reload the first call takes up the login, and asks once", async () => {
  const gateway = new CookieGateway();
  gateway.cookie = 7; // of the page before
  const tab = gateway.tab();
  const users = await Promise.all([tab.currentUser(), tab.currentUser(), tab.me().then(({ user }) => user)]);
  assert.deepEqual(users, [USER, USER, USER]);
  assert.equal(gateway.times("POST /auth/refresh"), 1);
});

test("without a cookie there is no login, and the gateway is asked once", async () => {
  const gateway = new CookieGateway();
  const lost: string[] = [];
  const tab = gateway.tab({ onSessionLost: ({ code }) => lost.push(code) });
  assert.equal(await tab.currentUser(), null);
  await assert.rejects(tab.me(), refused("no_session"));
  assert.equal(gateway.asked.length, 1);
  assert.deepEqual(lost, []);
  await tab.login("ada", "correct horse battery staple");
  assert.deepEqual(await tab.currentUser(), USER);
});

test("whether there is a login stays unknown while the gateway is away", async () => {
  const gateway = new CookieGateway();
  gateway.cookie = 7;
  gateway.on("POST /auth/refresh", () => Promise.reject(new TypeError("fetch failed")));
  const tab = gateway.tab();
  await assert.rejects(tab.currentUser(), GatewayUnreachable);
  await assert.rejects(tab.me(), GatewayUnreachable);
  gateway.on("POST /auth/refresh", () => ({ body: { ...gateway.tokens(), refresh_token: undefined } }));
  assert.deepEqual(await tab.currentUser(), USER);
});

test("a login during the start is not replaced by an older cookie", async () => {
  const gateway = new CookieGateway();
  const tab = gateway.tab();
  gateway.on("POST /auth/refresh", async () => {
    gateway.session = "s2";
    await tab.login("grace", "another password");
    return { body: { ...gateway.tokens(), refresh_token: undefined } };
  });
  await tab.currentUser();
  await tab.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
});

test("tabs share a login, its renewals and its end", async () => {
  const gateway = new CookieGateway();
  const [one, other] = [await gateway.tabLoggedIn(), gateway.tab()];
  await one.refresh();
  await heard();
  gateway.nowMs += 11 * MINUTE_MS;
  await one.me();
  await heard();
  await other.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-3");
  assert.equal(gateway.times("POST /auth/refresh"), 2, "none of them by the other tab");
  await other.logout();
  await heard();
  await assert.rejects(one.me(), refused("no_session"));
  await one.login("ada", "correct horse battery staple");
  await heard();
  assert.deepEqual(await other.currentUser(), USER);
});

test("tabs that start or renew at the same time send one refresh", async () => {
  provideLocks();
  const gateway = new CookieGateway();
  gateway.cookie = 7;
  const given = { body: { ...gateway.tokens(), refresh_token: undefined } };
  gateway.on("POST /auth/refresh", async () => (await heard(), given));
  const tabs = Array.from({ length: 5 }, () => gateway.tab());
  await Promise.all(tabs.map((tab) => tab.me()));
  assert.equal(gateway.times("POST /auth/refresh"), 1);
  gateway.nowMs += 11 * MINUTE_MS;
  gateway.on("POST /auth/refresh", async () => (await heard(), { body: { ...gateway.tokens(), refresh_token: undefined } }));
  await Promise.all(tabs.map((tab) => tab.me()));
  assert.equal(gateway.times("POST /auth/refresh"), 2);
});

test("a call is never sent with the login of another user in another tab", async () => {
  const gateway = new CookieGateway();
  const tab = await gateway.tabLoggedIn();
  gateway.session = "s2"; // the browser's cookie is another one now, and no channel has said so
  gateway.nowMs += 11 * MINUTE_MS;
  await assert.rejects(tab.me(), refused("no_session"));
  assert.equal(gateway.times("GET /auth/me"), 0);
  await tab.me(); // a new call, as the user whose login the browser has
  assert.equal(gateway.last().headers["authorization"], "Bearer access-2");
});

test("a refused cookie ends the login in all tabs and calls the listener of one", async () => {
  const gateway = new CookieGateway();
  const lost: string[] = [];
  const onSessionLost = ({ code }: GatewayProblem): void => void lost.push(code);
  const [one, other] = [await gateway.tabLoggedIn({ onSessionLost }), gateway.tab({ onSessionLost })];
  await one.refresh();
  await heard();
  gateway.cookie = 0;
  gateway.nowMs += 11 * MINUTE_MS;
  await assert.rejects(one.me(), refused("invalid_grant"));
  await heard();
  assert.equal(await other.currentUser(), null);
  assert.deepEqual(lost, ["invalid_grant"]);
});

test("logout removes the cookie even if the page knows of no login, and can be repeated", async () => {
  const gateway = new CookieGateway();
  gateway.cookie = 7;
  const tab = gateway.tab();
  gateway.on("POST /auth/logout", () => Promise.reject(new TypeError("fetch failed")));
  await assert.rejects(tab.logout(), GatewayUnreachable);
  assert.equal(await tab.currentUser(), null, "forgotten here at least");
  for (const code of ["invalid_grant", "invalid_token", "token_expired"]) {
    gateway.on("POST /auth/logout", problem(code === "invalid_grant" ? 400 : 401, code));
    await tab.logout();
  }
  assert.equal(gateway.times("POST /auth/logout"), 4);
  assert.equal(gateway.times("POST /auth/refresh"), 0, "a user who has logged out is not logged in again");
});

test("a guest's login is kept in the cookie, too", async () => {
  const gateway = new CookieGateway();
  const { refresh_token: _, ...login } = gateway.tokens();
  gateway.on("POST /invites/c0de/accept", { body: { room: { id: "a" }, relation: "participant", login } });
  const tab = gateway.tab();
  await tab.acceptInvite("c0de");
  assert.equal(gateway.last().headers["x-gateway-session"], "cookie");
  await tab.me();
  assert.equal(gateway.last().headers["authorization"], "Bearer access-1");
});

test("a gateway that ignores cookie mode is not used with it, nor one that insists on it", async () => {
  const old = new FakeGateway();
  const tab = old.client({ cookies: true, baseUrl: BASE_URL });
  await assert.rejects(tab.login("ada", "x"), (error) => {
    assert.ok(error instanceof GatewayProblem);
    assert.doesNotMatch(JSON.stringify(error) + error.message, /refresh-\d|access-\d/);
    return error.code === "unexpected_answer";
  });
  const other = new FakeGateway();
  other.on("POST /auth/login", { body: { ...other.tokens(), refresh_token: undefined } });
  await assert.rejects(other.client().login("ada", "x"), refused("unexpected_answer"));
  assert.throws(() => old.client({ cookies: true, storage: memoryStorage() }), /^TypeError: cookies: /);
});

test("without channels and locks, as in React Native, each page has its own tokens", async () => {
  const channel = Object.getOwnPropertyDescriptor(globalThis, "BroadcastChannel");
  Object.defineProperty(globalThis, "BroadcastChannel", { value: undefined, configurable: true });
  Object.defineProperty(globalThis, "navigator", { value: { product: "ReactNative" }, configurable: true });
  try {
    const gateway = new CookieGateway();
    const [one, other] = [await gateway.tabLoggedIn(), gateway.tab()];
    await Promise.all([one.me(), other.me()]);
    assert.equal(gateway.times("POST /auth/refresh"), 1);
  } finally {
    if (channel) Object.defineProperty(globalThis, "BroadcastChannel", channel);
  }
});
