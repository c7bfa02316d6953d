// The official SDK against the emulator, through its public API only. Each step asserts. The last line is printed if all succeed.
//
//   node sdk.cjs ACCESS_KEY APP_SECRET TEMPLATE_ID EMULATOR_URL [BASE_URL]
//
// The SDK's base URL is hard-coded. Without BASE_URL the caller redirects it with https_proxy in the environment,
// because its axios sends plain HTTP to such a proxy. With BASE_URL one line below does.
"use strict";
const assert = require("node:assert/strict");
const { SDK } = require("@100mslive/server-sdk");

const [accessKey, appSecret, templateId, emulatorUrl, baseUrl] = process.argv.slice(2);
const sdk = new SDK(accessKey, appSecret);
if (baseUrl) sdk.api.axios.defaults.baseURL = baseUrl;

const all = async (iterator) => {
  const found = [];
  for await (const item of iterator) found.push(item);
  return found;
};
const refusal = (code, message) => (error) => {
  assert.equal(error.code, code);
  assert.equal(error.message, message);
  return true;
};
const join = async (roomId, role, userId, peerId) => {
  const { token } = await sdk.auth.getAuthToken({ roomId, role, userId });
  const reply = await fetch(`${emulatorUrl}/emulator/peers`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token, peer_id: peerId, name: userId }),
  });
  assert.equal(reply.status, 200, await reply.clone().text());
  return reply.json();
};

async function rooms() {
  const made = await sdk.rooms.create({ name: "Sdk.Room", description: "first", template_id: templateId, region: "eu" });
  assert.match(made.id, /^[0-9a-f]{24}$/);
  assert.equal(made.name, "Sdk.Room");
  assert.ok(made.created_at instanceof Date && !Number.isNaN(made.created_at.valueOf()));
  assert.equal((await sdk.rooms.create()).enabled, true); // the SDK sends {}
  assert.equal((await sdk.rooms.retrieveById(made.id)).description, "first");
  assert.equal((await sdk.rooms.retrieveByName("sdk.room")).id, made.id);
  assert.equal((await sdk.rooms.update(made.id, { description: "second" })).description, "second");
  assert.equal((await sdk.rooms.retrieveById(made.id)).description, "second");
  await assert.rejects(sdk.rooms.retrieveById("f".repeat(24)), refusal(404, "Room not found"));
  await assert.rejects(sdk.rooms.retrieveByName("nobody"), /No Room found/);

  const names = Array.from({ length: 23 }, (_, n) => `page-${n}`);
  for (const name of names) await sdk.rooms.create({ name });
  const listed = await all(sdk.rooms.list()); // three pages of ten
  assert.deepEqual(listed.slice(0, 23).map((room) => room.name), [...names].reverse());
  assert.equal(new Set(listed.map((room) => room.id)).size, 25);
  assert.deepEqual((await all(sdk.rooms.list({ limit: 20 }))).map((room) => room.id), listed.map((room) => room.id));

  const shut = await sdk.rooms.create({ name: "shut" });
  assert.equal((await sdk.rooms.enableOrDisable(shut.id, false)).enabled, false);
  assert.deepEqual((await all(sdk.rooms.list({ enabled: false }))).map((room) => room.id), [shut.id]);
  await assert.rejects(sdk.rooms.retrieveByName("shut"), /No Room found/); // disabled rooms are not listed
  assert.equal((await sdk.rooms.enableOrDisable(shut.id, true)).enabled, true);
  return made;
}

async function codes(room) {
  const made = await sdk.roomCodes.create(room.id);
  assert.deepEqual(made.map((code) => code.role).sort(), ["guest", "host"]);
  const listed = await all(sdk.roomCodes.list(room.id));
  for (const code of listed) assert.deepEqual(made.find((one) => one.code === code.code), code);
  assert.equal(listed.length, made.length);
  assert.deepEqual((await sdk.roomCodes.create(room.id)).map((code) => code.code), made.map((code) => code.code));
  const more = await sdk.roomCodes.createForRole(room.id, "guest");
  assert.equal((await all(sdk.roomCodes.list(room.id, { role: "guest" }))).length, 2);
  assert.equal((await sdk.roomCodes.enableOrDisable(more.code, false)).enabled, false);
  assert.deepEqual((await all(sdk.roomCodes.list(room.id, { enabled: false }))).map((code) => code.code), [more.code]);
  await assert.rejects(sdk.roomCodes.createForRole(room.id, "nobody"), refusal(404, "Role not found"));
}

async function activeRooms(room) {
  await assert.rejects(sdk.activeRooms.retrieve(room.id), refusal(404, "session not found"));
  const host = await join(room.id, "host", "hanna", "peer-of-hanna");
  await join(room.id, "guest", "gus", "peer-of-gus");
  await join(room.id, "guest", "greta", "peer-of-greta");
  const active = await sdk.activeRooms.retrieve(room.id);
  assert.equal(active.session.id, host.session_id);
  assert.deepEqual(active.session.peers, ["peer-of-hanna", "peer-of-gus", "peer-of-greta"]);
  const peers = await sdk.activeRooms.retrieveActivePeers(room.id);
  assert.deepEqual(Object.keys(peers), active.session.peers);
  const peer = await sdk.activeRooms.retrievePeerDetails(room.id, "peer-of-hanna");
  assert.deepEqual(Object.values(peer.tracks).map((track) => track.type), ["audio", "video"]);
  const changed = await sdk.activeRooms.updatePeer(room.id, "peer-of-gus", { name: "Gus", role: "host", metadata: "{}" });
  assert.deepEqual([changed.name, changed.role, changed.metadata], ["Gus", "host", "{}"]);
  await sdk.activeRooms.sendMessage(room.id, { message: "hello" });
  await sdk.activeRooms.removePeer(room.id, { peer_id: "peer-of-gus", reason: "noise" });
  await sdk.activeRooms.removePeer(room.id, { role: "guest" });
  assert.deepEqual(Object.keys(await sdk.activeRooms.retrieveActivePeers(room.id)), ["peer-of-hanna"]);
  return active.session.id;
}

async function sessions(room, sessionId) {
  assert.equal((await sdk.sessions.retrieveActiveByRoom(room.id)).id, sessionId);
  await sdk.activeRooms.end(room.id, { reason: "over", lock: true });
  await assert.rejects(sdk.sessions.retrieveActiveByRoom(room.id), /No active Session/);
  assert.equal((await sdk.rooms.retrieveById(room.id)).enabled, false);
  const ended = await sdk.sessions.retrieveById(sessionId);
  assert.equal(ended.active, false);
  assert.deepEqual(Object.values(ended.peers).map((peer) => peer.user_id), ["hanna", "gus", "greta"]);
  for (const peer of Object.values(ended.peers)) assert.ok(Date.parse(peer.left_at) >= Date.parse(peer.joined_at));
  await sdk.rooms.enableOrDisable(room.id, true);
  for (let n = 0; n < 11; n++) {
    await join(room.id, "host", "hanna");
    await sdk.activeRooms.end(room.id, {});
  }
  const listed = await all(sdk.sessions.list({ room_id: room.id })); // two pages
  assert.equal(listed.length, 12);
  assert.equal(listed.at(-1).id, sessionId);
  assert.deepEqual(await all(sdk.sessions.list({ active: true })), []);
}

(async () => {
  const room = await rooms();
  await codes(room);
  await sessions(room, await activeRooms(room));
  process.stdout.write("every call did what its documentation says\n");
})().catch((error) => {
  process.stderr.write(`${error?.stack ?? JSON.stringify(error)}\n`);
  process.exit(1);
});
