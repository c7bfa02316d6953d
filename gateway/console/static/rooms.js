// Rooms with people in them now, and all rooms.

import { api } from "./api.js";
import { make } from "./dom.js";
import { number, plain, since, time, unitOf } from "./format.js";
import { followPeople } from "./live.js";
import { person } from "./names.js";
import { filters, head, link, list, loaded, mark, place, tiles } from "./parts.js";

export const people = [
  { label: "Person", value: (one) => one.username || one.user_id, cell: (one) => person(one.user_id, one.username) },
  { label: "Role at 100ms", value: (one) => one.role },
  { label: "Since (UTC)", value: (one) => one.since, cell: (one) => time(one.since) },
  { label: "For", cell: (one) => since(one.since) },
];

const live = [
  { label: "Room", value: (room) => room.room_id, cell: (room) => link(place("rooms", room.room_id), room.name || room.room_id) },
  { label: "Owner", value: (room) => room.owner, cell: (room) => person(room.owner_id, room.owner) },
  { label: "People", number: true, value: (room) => room.people.length },
  { label: "Since (UTC)", value: (room) => room.since, cell: (room) => time(room.since) },
  { label: "For", cell: (room) => since(room.since) },
];

const all = [
  { label: "Room", value: (room) => room.name, cell: (room) => link(place("rooms", room.id), room.name || room.id) },
  { label: "Id", value: (room) => room.id, cell: (room) => make("span", { class: "id" }, room.id) },
  { label: "Owner", value: (room) => room.owner || room.owner_id, cell: (room) => person(room.owner_id, room.owner) },
  { label: "Access", value: (room) => room.access },
  { label: "State", value: (room) => (room.enabled ? "enabled" : "locked"), cell: (room) => state(room) },
  { label: "Created (UTC)", value: (room) => room.created_at, cell: (room) => time(room.created_at) },
];

export const state = (room) => (room.enabled ? mark("enabled", "good") : mark("locked", "warn"));

// A page of an owner's rooms may be empty although others follow.
async function page(owner, signal, cursor) {
  const found = await api.get("/api/rooms", { owner, limit: owner ? 100 : 50, cursor }, signal);
  const next = found.next_cursor ? () => page(owner, signal, found.next_cursor) : null;
  return next && !found.rooms.length ? next() : { rows: found.rooms, next };
}

// All rooms, or those of an owner.
export function stored(view, owner, words) {
  return loaded(view, async () => list({ says: "The newest first.", columns: all.filter(({ label }) => !owner || label !== "Owner"), ...words, ...(await page(owner, view.signal)) })).body;
}

export function rooms(view, { owner = "" }) {
  const now = loaded(view, async () => {
    const { all_rooms, all_people, rooms } = await api.get("/api/admin/rooms/live", { limit: 100 }, view.signal);
    const shown = rooms.length < all_rooms ? `The ${rooms.length} with the most people, of ${number(all_rooms)}. ` : "";
    return [
      tiles([["People in rooms now", number(all_people), unitOf(all_people, "people")], ["Rooms in use", number(all_rooms), unitOf(all_rooms, "rooms")]]),
      list({
        title: "Live now", says: `${shown}As of ${plain(new Date().toISOString())} UTC; follows what 100ms reports.`,
        columns: live, rows: rooms, empty: "There is no one in a room. People appear here when 100ms reports that they have joined.",
      }),
    ];
  });
  const search = filters(view, "rooms", [{ name: "owner", label: "Owned by (user name or id)", type: "search", value: owner, maxlength: 256, grow: true }], "Search");
  const words = owner ? { title: `Rooms of ${owner}`, empty: "This user owns no room." } : { title: "All rooms", empty: "No room has been created yet." };
  if (api.may("usage:read-any")) followPeople(view, now.again);
  return [head("Rooms", "Who is in which room, and every room there is."), api.may("usage:read-any") && now.body, search, stored(view, owner, words)];
}
