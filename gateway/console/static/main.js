// The frame around the screens: login, navigation by the address's hash, and what is known of the connection.

import { api, BY_COOKIE, Problem } from "./api.js";
import { audit } from "./audit.js";
import { budgets } from "./budgets.js";
import { denials } from "./denials.js";
import { at, make, replace, say } from "./dom.js";
import { plain } from "./format.js";
import { failure, link, words } from "./parts.js";
import { health } from "./health.js";
import { overview } from "./overview.js";
import { room } from "./room.js";
import { rooms } from "./rooms.js";
import { usage } from "./usage.js";
import { user } from "./user.js";
import { users } from "./users.js";
import { webhooks } from "./webhooks.js";

// Each: the first part of the hash, its name, permissions of which one is enough, the screen, and that of one item.
const SCREENS = [
  { path: "overview", name: "Overview", needs: ["usage:read-any"], all: overview },
  { path: "rooms", name: "Rooms", needs: ["rooms:read-any"], all: rooms, one: room },
  { path: "users", name: "Users", needs: ["users:manage", "limits:manage", "usage:read-any"], all: users, one: user },
  { path: "usage", name: "Usage", needs: ["usage:read-any"], all: usage },
  { path: "denials", name: "Denials", needs: ["usage:read-any"], all: denials },
  { path: "budgets", name: "Budgets", needs: ["usage:read-any"], all: budgets },
  { path: "webhooks", name: "Webhooks", needs: ["usage:read-any"], all: webhooks },
  { path: "health", name: "Health", needs: ["usage:read-any"], all: health },
  { path: "audit", name: "Audit", needs: ["audit:read"], all: audit },
];
const [door, nameField, password, enterButton, wrong, doorSays] = ["door", "door-name", "door-password", "door-enter", "door-wrong", "door-says"].map(at);
const allowed = () => SCREENS.filter(({ needs }) => needs.some((one) => api.may(one)));

// One visit of a screen. It ends with the next one: `signal` is then aborted, and nothing repeats any more.
class View {
  #end = new AbortController();
  #waiting = 0;
  signal = this.#end.signal;

  end() {
    this.#end.abort();
  }

  reload() {
    show(false);
  }

  // For a screen that learns a better name than its address has.
  title(text) {
    if (!this.signal.aborted) title(text);
  }

  // Says that the screen is not complete before some work is done.
  async wait(work) {
    this.#waiting += 1;
    at("main").setAttribute("aria-busy", "true");
    await work;
    this.#waiting -= 1;
    if (this.#waiting || this.signal.aborted) return;
    at("main").removeAttribute("aria-busy");
    focusTitle();
  }

  // Repeats something while the page is visible.
  every(seconds, act) {
    const timer = setInterval(() => document.visibilityState === "visible" && act(), seconds * 1000);
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }
}
let view = new View();

function show(moved = true) {
  if (!api.user) return;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ref] = path.split("/").map(decoded);
  const screens = allowed();
  const screen = name ? screens.find((one) => one.path === name) : screens[0];
  const render = ref && screen?.one ? screen.one : screen?.all;
  view.end();
  at("main").removeAttribute("aria-busy");
  view = new View();
  replace(at("main"), render ? render(view, Object.fromEntries(new URLSearchParams(query)), ref) : failure(nothing(screens), null));
  title(ref ? `${ref} · ${screen?.name}` : (screen?.name ?? "Not found"));
  for (const one of at("nav").children) {
    if (one.hash === `#/${screen?.path}`) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  openMenu(false);
  if (!moved) return;
  scrollTo(0, 0);
  document.activeElement.blur();
  focusTitle();
}

// The title of a screen about one thing comes with the thing.
function focusTitle() {
  if (document.activeElement === document.body) at("main").querySelector("h1")?.focus({ preventScroll: true });
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const nothing = (screens) => (screens.length ? new Problem(404, { detail: "There is no such screen, or you may not see it." }) : new Problem(403, { detail: "Your account has none of an operator's permissions." }));

function title(text) {
  document.title = `${text} · 100ms gateway`;
}

function enter() {
  document.body.classList.remove("outside");
  at("who").textContent = `${api.user.username} (${api.user.roles.join(", ")})`;
  replace(at("nav"), allowed().map(({ path, name }) => link(`#/${path}`, name)));
  show();
}

function leave(says) {
  view.end();
  banner();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  document.body.classList.add("outside");
  replace(at("main"), door);
  doorSays.textContent = says;
  password.value = "";
  title("Sign in");
  (nameField.value ? password : nameField).focus();
}

door.addEventListener("submit", async (event) => {
  event.preventDefault();
  wrong.textContent = "";
  enterButton.disabled = true;
  try {
    await api.login(nameField.value, password.value);
    password.value = "";
    enter();
  } catch (error) {
    wrong.textContent = words(error);
    password.select();
  } finally {
    enterButton.disabled = false;
  }
});
at("leave").addEventListener("click", async () => {
  const ended = api.logout();
  leave("You have signed out.");
  await ended.catch(() => {
    if (BY_COOKIE) doorSays.textContent = "The gateway could not be reached: you are still signed in. Reload the page when it is back, and sign out again.";
    else say("The gateway could not be reached; the session ends by itself.");
  });
});
api.addEventListener("expired", () => leave("Your session has ended. Sign in to continue where you were."));

let lost = null;
// Shows that the gateway does not answer, until it does.
function banner() {
  clearInterval(lost?.timer);
  lost = null;
  at("banner").replaceChildren();
}
api.addEventListener("reached", () => {
  if (!lost) return;
  banner();
  say("Connected again.");
});
api.addEventListener("unreachable", () => {
  if (lost || !api.user) return;
  lost = { timer: setInterval(() => view.reload(), 5000) };
  const since = plain(new Date().toISOString());
  replace(at("banner"), make("strong", {}, "The gateway cannot be reached."), make("span", {}, `What you see is from before ${since} UTC. Trying again every 5 s.`));
});
addEventListener("offline", () => api.dispatchEvent(new Event("unreachable")));
addEventListener("online", () => api.user && view.reload());

function openMenu(open) {
  at("bar").classList.toggle("open", open);
  at("menu").setAttribute("aria-expanded", String(open));
}
at("menu").addEventListener("click", () => openMenu(!at("bar").classList.contains("open")));
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
addEventListener("hashchange", () => location.hash.startsWith("#/") && show());
addEventListener("keydown", (event) => event.key === "Escape" && openMenu(false));

const tick = () => (at("clock").textContent = `All times UTC, now ${new Date().toISOString().slice(11, 16)}`);
tick();
setInterval(tick, 5000);

// The form appears once it is known that the browser keeps no session.
async function begin() {
  const resumed = await api.resume().catch((error) => void (wrong.textContent = words(error)));
  door.hidden = false;
  if (resumed) enter();
  else nameField.focus();
}
begin();
