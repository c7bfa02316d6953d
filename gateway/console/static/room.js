// One room: who is in it, its members and invites, what it used, and the means to end or lock it.

import { api } from "./api.js";
import { chart } from "./chart.js";
import { make } from "./dom.js";
import { count, plain, time } from "./format.js";
import { followPeople } from "./live.js";
import { person } from "./names.js";
import { after, ask, button, facts, head, list, loaded, mark } from "./parts.js";
import { people, state } from "./rooms.js";
import { series } from "./series.js";

const MOST = 500; // rooms in an answer of the API

const members = [
  { label: "Member", value: (one) => one.username || one.user_id, cell: (one) => person(one.user_id, one.username) },
  { label: "Display name", value: (one) => one.display_name },
  { label: "Relation", value: (one) => one.relation, cell: (one) => mark(one.relation, one.relation === "banned" ? "bad" : "") },
];

const invites = [
  { label: "Invite", value: (one) => one.id, cell: (one) => make("span", { class: "id" }, one.id) },
  { label: "Relation", value: (one) => one.relation },
  { label: "Uses left", number: true, value: (one) => one.uses_left },
  { label: "Guests", value: (one) => (one.guests ? "yes" : "no") },
  { label: "Made by", value: (one) => one.by, cell: (one) => person(one.by) },
  { label: "Expires (UTC)", value: (one) => one.expires_at, cell: (one) => time(one.expires_at) },
];

export function room(view, _, id) {
  const path = `/api/rooms/${encodeURIComponent(id)}`;
  const whole = loaded(view, async () => {
    const { room: one } = await api.get(path, {}, view.signal);
    view.title(`${one.name || one.id} · Rooms`);
    const runs = ["owner", "cohost"].includes(one.relation);
    const parts = [head(one.name || "Untitled room", [make("span", { class: "id" }, one.id), one.description && ` · ${one.description}`], acts(one, runs)), about(one)];
    if (api.may("usage:read-any")) parts.push(now(view, one, runs));
    parts.push(members_(view, one, runs), invites_(view, one, runs));
    if (api.may("usage:read-any")) parts.push(used(view, one));
    return parts;
  });

  function acts(one, runs) {
    if (!runs && !api.may("rooms:end-any")) return [];
    const unlock = () => ask({ title: "Unlock this room?", says: "Join tokens are issued again.", action: "Unlock", act: () => api.patch(path, { enabled: true }), done: after(whole.again, "The room is unlocked.") });
    return [!one.enabled && button("Unlock", unlock), button("End room", end, { class: "risky" })];
  }
  function end() {
    ask({
      title: "End this room?",
      says: "All people in it are removed.",
      fields: [
        { name: "reason", label: "Reason", hint: "Shown to those who are removed; kept in the audit trail.", maxlength: 200 },
        { name: "lock", type: "checkbox", label: "Lock it too, so that no one can join again" },
      ],
      action: "End room",
      risky: true,
      act: ({ reason, lock }) => api.post(`${path}/end`, { lock, reason: reason || null }),
      done: after(whole.again, ({ ended, locked }) => `${ended ? "All people are being removed" : "There was no one in the room"}${locked ? "; the room is locked" : ""}.`),
    });
  }
  return whole.body;
}

function about(one) {
  const rows = [["State", state(one)], ["Access", one.access], ["Template", one.template], ["Owner", person(one.owner_id)], ["Created", [time(one.created_at), " UTC"]]];
  return facts(rows);
}

function now(view, one, runs) {
  const columns = [...people];
  if (runs || api.may("rooms:end-any")) columns.push({ label: "Actions", act: true, cell: (each) => button("Remove", () => remove(one, each, again), { "data-key": `remove ${each.user_id}`, "aria-label": `Remove ${each.username || each.user_id}` }) });
  const { body, again } = loaded(view, async () => {
    const { rooms, all_rooms } = await api.get("/api/admin/rooms/live", { limit: MOST }, view.signal);
    const found = rooms.find(({ room_id }) => room_id === one.id)?.people ?? [];
    return list({
      title: `In the room now: ${count(found.length, "people")}`, says: `As of ${plain(new Date().toISOString())} UTC; follows what 100ms reports.`,
      columns, rows: found, empty: all_rooms > MOST ? `The room is not among the ${MOST} with the most people.` : "There is no one in this room.",
    });
  });
  followPeople(view, again);
  return body;
}

function remove(one, each, again) {
  ask({
    title: `Remove ${each.username || each.user_id} from the room?`,
    says: "They are removed now and may join again. To keep them out, block them or have the owner ban them.",
    fields: [{ name: "reason", label: "Reason", hint: "Shown to them; kept in the audit trail.", maxlength: 200 }],
    action: "Remove",
    risky: true,
    act: ({ reason }) => api.post(`/api/rooms/${one.id}/remove`, { user: each.user_id, reason: reason || null }),
    done: after(again, ({ removed }) => (removed ? "They are being removed." : "They were not in the room any more.")),
  });
}

function ban(one, each, again) {
  ask({
    title: `Ban ${each.username || each.user_id}?`,
    says: "They are removed and get no more tokens for this room.",
    action: "Ban",
    risky: true,
    act: () => api.delete(`/api/rooms/${one.id}/members/${encodeURIComponent(each.user_id)}`),
    done: after(again, "They are banned from this room."),
  });
}

function members_(view, one, runs) {
  const page = async (cursor) => {
    const found = await api.get(`/api/rooms/${one.id}/members`, { limit: 100, cursor }, view.signal);
    return { rows: found.members, next: found.next_cursor ? () => page(found.next_cursor) : null };
  };
  const columns = [...members];
  if (runs) columns.push({ label: "Actions", act: true, cell: (each) => !["owner", "banned"].includes(each.relation) && button("Ban", () => ban(one, each, again), { "data-key": `ban ${each.user_id}` }) });
  const { body, again } = loaded(view, async () => {
    const { rows, next } = await page();
    return list({ title: "Members", says: "Users with a stored relation, the owner first.", columns, rows, next, empty: "No user has a relation to this room." });
  });
  return body;
}

function invites_(view, one, runs) {
  const { body, again } = loaded(view, async () => {
    const found = await api.get(`/api/rooms/${one.id}/invites`, {}, view.signal);
    const revoke = (each) => ask({
      title: "Revoke this invite?", says: "Users who have accepted it keep their relation.", action: "Revoke", risky: true,
      act: () => api.delete(`/api/rooms/${one.id}/invites/${encodeURIComponent(each.id)}`),
      done: after(again, "The invite is revoked."),
    });
    const columns = [...invites];
    if (runs || api.may("rooms:end-any")) columns.push({ label: "Actions", act: true, cell: (each) => button("Revoke", () => revoke(each), { "data-key": `revoke ${each.id}`, "aria-label": `Revoke ${each.id}` }) });
    return list({ title: "Invites", says: "Those that can still be accepted.", columns, rows: found.invites, empty: "There is no open invite." });
  });
  return body;
}

function used(view, one) {
  return loaded(view, async () => {
    const report = await api.get(`/api/admin/usage/rooms/${one.id}`, {}, view.signal);
    return series(report);
  }).body;
}
