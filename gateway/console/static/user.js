// One user: their limits with reset, override and block, their sessions, rooms, use and history.

import { api } from "./api.js";
import { entries } from "./audit.js";
import { make, replace, say } from "./dom.js";
import { count, number, plain, span, time } from "./format.js";
import { learn } from "./names.js";
import { after, ask, button, facts, gauge, head, link, list, loaded, mark, place } from "./parts.js";
import { stored } from "./rooms.js";
import { series } from "./series.js";
import { status } from "./users.js";

const LASTS = [[3600, "1 hour"], [28_800, "8 hours"], [86_400, "1 day"], [604_800, "7 days"], [2_592_000, "30 days"]].map(([seconds, text]) => [String(seconds), text]);
const reason = { name: "reason", label: "Reason", hint: "Kept in the audit trail.", required: true, maxlength: 200 };
const lasts = { name: "lasts_s", label: "For", options: LASTS, value: "3600" };

export function user(view, _, ref) {
  const whole = loaded(view, async () => {
    const one = await account(ref, view.signal);
    learn(one.id, one.username);
    view.title(`${one.username} · Users`);
    const parts = [];
    const header = make("div", { class: "body" });
    const other = one.display_name !== one.username && one.display_name;
    const redraw = (limits) => replace(header, head(one.username, [other, other && " · ", make("span", { class: "id" }, one.id)], acts(one, limits, whole.again, again)), about(one, limits));
    let again = () => {};
    redraw(null);
    parts.push(header);
    if (api.may("limits:manage")) {
      const part = limits(view, one, redraw);
      again = part.again;
      parts.push(part.body);
    }
    if (api.may("users:manage")) parts.push(sessions(view, one));
    if (api.may("usage:read-any")) parts.push(used(view, one), now(view, one));
    if (api.may("rooms:read-any")) parts.push(stored(view, one.id, { title: "Rooms they own", empty: "They own no room." }));
    if (api.may("audit:read")) parts.push(history(view, one));
    return parts;
  });
  return whole.body;
}

// Without `users:manage` the account is not readable; the answers about limits and usage have its name.
async function account(ref, signal) {
  const id = encodeURIComponent(ref);
  if (api.may("users:manage")) return (await api.get(`/api/admin/users/${id}`, {}, signal)).user;
  if (api.may("limits:manage")) return (await api.get(`/api/admin/limits/${id}`, {}, signal)).user;
  const { user_id, username } = await api.get(`/api/admin/usage/users/${id}`, {}, signal);
  return { id: user_id, username };
}

function about(one, limits) {
  const rows = [["Roles", one.roles?.join(", ")], ["Status", one.status && status(one)], ["Created", one.created_at && [time(one.created_at), " UTC"]]];
  if (limits) rows.push(["Blocked", limits.blocked_until ? [mark("blocked", "bad"), " until ", time(limits.blocked_until), " UTC"] : "no"]);
  return facts(rows);
}

function acts(one, limits, again, limitsAgain) {
  const path = `/api/admin/limits/${one.id}`;
  const found = [];
  if (limits && one.id !== api.user.id) {
    const block = () => ask({
      title: `Block ${one.username}?`, says: "Every request of theirs is denied.", fields: [lasts, reason], action: "Block", risky: true,
      act: (given) => api.put(`${path}/override`, { block: true, lasts_s: Number(given.lasts_s), reason: given.reason }),
      done: after(limitsAgain, `${one.username} is blocked.`),
    });
    const unblock = () => ask({
      title: `Unblock ${one.username}?`, action: "Unblock", act: () => api.delete(`${path}/override`, { name: "*" }),
      done: after(limitsAgain, `${one.username} is no longer blocked.`),
    });
    found.push(limits.blocked_until ? button("Unblock", unblock) : button("Block", block, { class: "risky" }));
  }
  return api.may("users:manage") ? [...found, ...accountActs(one, again)] : found;
}

function accountActs(one, again) {
  const path = `/api/admin/users/${one.id}`;
  const words = (text) => text.split(/[\s,]+/).filter(Boolean);
  const disable = one.status === "active";
  return [
    button("Edit", () => ask({
      title: `Edit ${one.username}`,
      fields: [
        { name: "display_name", label: "Display name", value: one.display_name, maxlength: 100 },
        { name: "roles", label: "Roles", value: one.roles.join(" "), hint: "Names of roles in the policy, separated by spaces.", required: true },
      ],
      action: "Save",
      act: (given) => api.patch(path, { display_name: given.display_name, roles: words(given.roles) }),
      done: after(again, "Saved."),
    })),
    button("Password link", () => ask({
      title: `Create a password link for ${one.username}?`, says: "With its code they can set a password once, without the old one.", action: "Create",
      act: () => api.post(`${path}/password-link`), done: passwordLink,
    })),
    button(disable ? "Disable" : "Enable", () => ask({
      title: `${disable ? "Disable" : "Enable"} ${one.username}?`, says: disable ? "They cannot log in, and their sessions end." : "They can log in again.", action: disable ? "Disable" : "Enable", risky: disable,
      act: () => api.patch(path, { status: disable ? "disabled" : "active" }), done: after(again, "Saved."),
    })),
    button("Delete", () => ask({
      title: `Delete ${one.username}?`, says: "Their name, password, roles and sessions are deleted. Their usage counters stay, under their id.", action: "Delete", risky: true,
      fields: [{ name: "name", label: "Type the user name to confirm", required: true }],
      act: async ({ name }) => {
        if (name !== one.username) throw new Error("That is another name.");
        await api.delete(path);
      },
      done: () => (say("The account is deleted."), (location.hash = "#/users")),
    }), { class: "risky" }),
  ];
}

function passwordLink({ token, expires_in }) {
  ask({
    title: "The code", says: `It works once, within ${span(expires_in)}, and is shown only now.`,
    fields: [{ name: "code", label: "Code", value: token, readonly: true }], action: "Copy", leave: "Close",
    act: () => copy(token), done: () => say("Copied."),
  });
}

async function copy(text) {
  if (!navigator.clipboard) throw new Error("This page was not loaded over HTTPS, so copy the code by hand.");
  await navigator.clipboard.writeText(text);
}

function limits(view, one, redraw) {
  const path = `/api/admin/limits/${one.id}`;
  const mine = one.id === api.user.id; // no one may change their own limits
  const reset = (names, text) => ask({
    title: `Reset ${text} of ${one.username}?`, says: "All units are available again. The usage counters stay.", action: "Reset",
    act: () => api.post(`${path}/reset`, { names }),
    done: after(again, (given) => `Reset. Used before: ${Object.entries(given.used).map(([name, used]) => `${name} ${number(used)}`).join(", ")} units.`),
  });
  const override = (row) => ask({
    title: `Override ${row.name} of ${one.username}`,
    fields: row.amount != null
      ? [{ name: "amount", label: `Amount (${row.unit} per ${row.period})`, type: "number", min: 1, value: row.amount, required: true }, lasts, reason]
      : [{ name: "rate", label: "Rate", value: row.rate, hint: "Count per window, such as 60/min.", required: true }, { name: "burst", label: "Burst (requests at once)", type: "number", min: 1, value: row.burst, required: true }, lasts, reason],
    action: "Override",
    act: ({ amount, rate, burst, lasts_s, reason }) => api.put(`${path}/override`, { name: row.name, lasts_s: Number(lasts_s), reason, ...(amount ? { amount: Number(amount) } : { rate, burst: Number(burst) }) }),
    done: after(again, `${row.name} is overridden.`),
  });
  const lift = (row) => ask({
    title: `Remove the override of ${row.name}?`, action: "Remove", act: () => api.delete(`${path}/override`, { name: row.name }),
    done: after(again, "The override is removed."),
  });
  const columns = [
    { label: "Limit", value: (row) => row.name, cell: (row) => [row.name, row.shadow && " ", row.shadow && mark("shadow")] },
    { label: "Kind", value: (row) => row.kind },
    { label: "Used", value: (row) => row.used, cell: (row) => make("span", {}, gauge(row.used, row.most), `${number(row.used)} of ${count(row.most, row.unit)}`) },
    { label: "Left", number: true, value: (row) => row.most - row.used, cell: (row) => count(Math.max(0, row.most - row.used), row.unit) },
    { label: "Full again (UTC)", value: (row) => row.again, cell: (row) => (row.used && row.again ? time(row.again) : "now") },
  ];
  if (!mine) columns.push({ label: "Actions", act: true, cell: (row) => row.kind !== "at once" && [button("Override", () => override(row), { "data-key": `override ${row.name}`, "aria-label": `Override ${row.name}` }), " ", button("Reset", () => reset([row.name], row.name), { "data-key": `reset ${row.name}`, "aria-label": `Reset ${row.name}` })] });
  const overridden = [
    { label: "Override of", value: (row) => row.name, cell: (row) => (row.block ? mark("block", "bad") : row.name) },
    { label: "Is now", value: numbers },
    { label: "Until (UTC)", value: (row) => row.until, cell: (row) => time(row.until) },
    { label: "Reason", value: (row) => row.reason },
  ];
  if (!mine) overridden.push({ label: "Actions", act: true, cell: (row) => button("Remove", () => lift(row), { "data-key": `lift ${row.name}`, "aria-label": `Remove the override of ${row.name}` }) });
  const { body, again } = loaded(view, async () => {
    const found = await api.get(path, {}, view.signal);
    redraw(found);
    const rows = rowsOf(found);
    return [
      list({ title: "Limits", says: `As of ${plain(new Date().toISOString())} UTC.`, acts: mine || !rows.length ? [] : [button("Reset all", () => reset(null, "all limits"))], columns, rows, empty: "Their roles have no limits." }),
      found.overrides.length > 0 && list({ title: "Overrides", says: "Other numbers for this user, for some time.", columns: overridden, rows: found.overrides, empty: "" }),
    ];
  });
  return { body, again };
}

const numbers = ({ block, rate, burst, amount }) => (block ? "every request denied" : rate ? `${rate}, ${count(burst, "requests")} at once` : `${number(amount)} units per period`);

function rowsOf({ limits: rates, quotas, leases }) {
  return [
    ...rates.map((one) => ({ ...one, kind: one.rate, most: one.burst, used: one.burst - one.remaining, unit: "requests", again: one.full_again_at })),
    ...quotas.map((one) => ({ ...one, unit: one.unit === "minutes" ? "min" : one.unit, kind: `per ${one.period}, ${one.time_zone}`, most: one.amount, again: one.full_again_at })),
    ...leases.map((one) => ({ ...one, kind: "at once", most: one.most, used: one.held, unit: "rooms" })),
  ];
}

function sessions(view, one) {
  const path = `/api/admin/users/${one.id}/sessions`;
  const end = (each) => ask({
    title: `End this session of ${one.username}?`, says: each.current ? "It is the one that you are using." : "They are logged out there, at once.", action: "End session", risky: true,
    act: () => api.delete(`${path}/${each.id}`), done: after(again, "The session has ended."),
  });
  const endAll = () => ask({
    title: `End all sessions of ${one.username}?`, says: "They are logged out everywhere, at once.", action: "End all", risky: true,
    act: () => api.delete(path), done: after(again, ({ ended }) => `${count(ended, "sessions")} ended.`),
  });
  const columns = [
    { label: "Client", value: (row) => row.agent, cell: (row) => [row.agent || "not named", row.current && " ", row.current && mark("this one", "good")] },
    { label: "Address", value: (row) => row.address },
    { label: "Since (UTC)", value: (row) => row.created_at, cell: (row) => time(row.created_at) },
    { label: "Last used (UTC)", value: (row) => row.used_at, cell: (row) => time(row.used_at) },
    { label: "Until (UTC)", value: (row) => row.expires_at, cell: (row) => time(row.expires_at) },
    { label: "Actions", act: true, cell: (row) => button("End", () => end(row), { "data-key": `end ${row.id}`, "aria-label": `End session ${row.id}` }) },
  ];
  const { body, again } = loaded(view, async () => {
    const found = (await api.get(path, {}, view.signal)).sessions;
    return list({ title: "Sessions", says: "Where they are logged in, the newest first.", acts: found.length ? [button("End all", endAll)] : [], columns, rows: found, empty: "They are not logged in anywhere." });
  });
  return body;
}

function used(view, one) {
  return loaded(view, async () => series(await api.get(`/api/admin/usage/users/${one.id}`, {}, view.signal))).body;
}

function now(view, one) {
  const columns = [
    { label: "Room", value: (row) => row.room_id, cell: (row) => link(place("rooms", row.room_id), row.name || row.room_id) },
    { label: "They are", value: (row) => row.as },
    { label: "People", number: true, value: (row) => row.people.length },
    { label: "Since (UTC)", value: (row) => row.since, cell: (row) => time(row.since) },
  ];
  return loaded(view, async () => {
    const { rooms } = await api.get("/api/admin/rooms/live", { limit: 500 }, view.signal);
    const rows = rooms.map((room) => ({ ...room, as: [room.owner_id === one.id && "owner", room.people.some(({ user_id }) => user_id === one.id) && "in it"].filter(Boolean).join(", ") }));
    return list({ title: "Rooms now", says: "Rooms in use that they own or are in.", columns, rows: rows.filter((row) => row.as), empty: "They are in no room, and there is no one in a room of theirs." });
  }).body;
}

function history(view, one) {
  return loaded(view, async () => {
    const found = await api.get("/api/admin/audit", { user: one.id, limit: 10 }, view.signal);
    return list({ title: "History", says: "The last entries of the audit trail by or about them.", acts: [link(`#/audit?user=${one.id}`, "All entries")], columns: entries, rows: found.items, empty: "There is no entry about this user." });
  }).body;
}
