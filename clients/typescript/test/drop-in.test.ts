import assert from "node:assert/strict";
import { test } from "node:test";
import { HMSServiceClass, type HMSServiceOptions, createHMSService } from "@hms-gateway/client";
import { FakeGateway, ROOM } from "./fake.js";
import type { CreateRoomOptions, HMSServiceClass as SeedClass } from "./seed/hms-service.js";

const MAKERS = [createHMSService, (options: HMSServiceOptions) => new HMSServiceClass(options)];

/** As an application of the seed's uses it. */
async function application(service: Pick<SeedClass, "createRoom" | "getAuthToken">): Promise<string> {
  const options: CreateRoomOptions = { name: "Stand-up" };
  const response = await service.createRoom(options);
  if (!response.success || !response.room) throw new Error(response.error);
  return await service.getAuthToken(response.room.id, "host");
}

test("an application of the seed runs with this client", async () => {
  const gateway = new FakeGateway();
  const client = await gateway.loggedIn();
  gateway.on("POST /rooms", { status: 201, body: { success: true, room: ROOM } });
  gateway.on(`POST /rooms/${ROOM.id}/token`, { body: { success: true, token: "joined" } });
  assert.equal(await application(client), "joined"); // that it compiles is half of the test
});

test("a base URL works with and without a trailing slash", async () => {
  const asked: string[] = [];
  const fetch: typeof globalThis.fetch = async (input) => {
    asked.push(String(input));
    return new Response("", { status: 500 });
  };
  const addresses = ["https://gateway.test/api", "HTTPS://gateway.test/api/", "http://[::1]:8000", "http://10.0.2.2:8000/"];
  for (const make of MAKERS) {
    for (const baseUrl of addresses) await assert.rejects(make({ fetch, baseUrl }).login("ada", "secret"));
  }
  const paths = ["https://gateway.test/api", "HTTPS://gateway.test/api", "http://[::1]:8000", "http://10.0.2.2:8000"];
  assert.deepEqual(asked, [...paths, ...paths].map((path) => `${path}/auth/login`));
});

for (const [what, options] of Object.entries({
  "no options": undefined,
  "no base URL": {},
  "an unset variable": { baseUrl: undefined },
  "an empty base URL": { baseUrl: "" },
  "no text": { baseUrl: 8000 },
  "a path": { baseUrl: "/api" },
  "no scheme": { baseUrl: "gateway.test/api" },
  "another scheme": { baseUrl: "ws://gateway.test/api" },
  "no host": { baseUrl: "https:///api" },
  "a query": { baseUrl: "https://gateway.test/api?x=" },
  "a fragment": { baseUrl: "https://gateway.test/api#x" },
  "a space": { baseUrl: "https://gateway.test/api " },
  "a password": { baseUrl: "https://ada:geheim@gateway.test/api" },
})) {
  test(`a client of ${what} is refused at once, with the option's name and without its value`, () => {
    for (const make of MAKERS) {
      const refused = { name: "TypeError", message: /^baseUrl must be .*https:\/\/ address(?!.*geheim)/ };
      assert.throws(() => make(options as HMSServiceOptions), refused);
    }
  });
}
