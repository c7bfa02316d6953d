// Calls the API. Scripts keep tokens in memory only: a reload ends the login on this side, unless the gateway lets the
// browser keep the session in a cookie, which no script can read (GATEWAY_COOKIES).

const LOGIN = "/api/auth/login", REFRESH = "/api/auth/refresh", LOGOUT = "/api/auth/logout";
const EARLY_MS = 30_000; // a token is renewed this long before it expires
export const BY_COOKIE = document.documentElement.dataset.session === "cookie";
const SHARED = "gateway-session"; // the tabs of a browser share one session: name of their channel and of their lock

// A refusal of the gateway: an RFC 9457 document.
export class Problem extends Error {
  constructor(status, document, retryAfter) {
    super(document.detail ?? `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = document.code ?? "";
    this.requestId = document.request_id ?? "";
    this.fields = document.errors ?? [];
    this.retryAfter = Number(retryAfter) || 0;
  }
}
export class Unreachable extends Error {
  constructor() {
    super("The gateway cannot be reached.");
  }
}
export class Expired extends Error {
  constructor() {
    super("Your session has ended.");
  }
}

class Api extends EventTarget {
  #session = null;
  #renewal = null;
  #tabs = BY_COOKIE ? new BroadcastChannel(SHARED) : null;
  #echo = BY_COOKIE ? new BroadcastChannel(SHARED) : null;
  user = null;
  permissions = new Set();

  constructor() {
    super();
    this.#tabs?.addEventListener("message", ({ data }) => this.#hear(data));
  }

  may(permission) {
    return this.permissions.has(permission);
  }

  async login(username, password) {
    this.#keep(await this.#json(LOGIN, { method: "POST", body: { username, password }, byCookie: BY_COOKIE }));
    await this.#introduce();
  }

  // Takes up the session that the browser keeps; tells whether there is one.
  async resume() {
    if (!BY_COOKIE) return false;
    try {
      await this.#renew();
    } catch (error) {
      if (error instanceof Expired) return false;
      throw error;
    }
    await this.#introduce();
    return true;
  }

  async #introduce() {
    const me = await this.get("/api/auth/me");
    this.user = me.user;
    this.permissions = new Set(me.permissions);
  }

  async logout() {
    const session = this.#session;
    this.#forget();
    this.#tell(null);
    if (session) await this.#send(LOGOUT, { method: "POST", body: { refresh_token: session.refresh }, byCookie: BY_COOKIE });
  }

  get = (path, query = {}, signal) => this.#asked(path, { query, signal });
  post = (path, body) => this.#asked(path, { method: "POST", body });
  put = (path, body) => this.#asked(path, { method: "PUT", body });
  patch = (path, body) => this.#asked(path, { method: "PATCH", body });
  delete = (path, query = {}) => this.#asked(path, { method: "DELETE", query });

  // A response whose body the caller reads: a stream or a file.
  async open(path, query, signal) {
    const response = await this.#authorized(path, { query, signal });
    return response.ok ? response : this.#refuse(response);
  }

  async #asked(path, options) {
    const response = await this.#authorized(path, options);
    if (!response.ok) return this.#refuse(response);
    return response.status === 204 ? null : response.json();
  }

  // Sends with a token that is still valid; once more if the gateway does not take it (the account has changed).
  async #authorized(path, options) {
    if (!this.#session) throw new Expired();
    if (Date.now() > this.#session.renewAt) await this.#renew();
    const used = this.#session?.access;
    const response = await this.#send(path, { ...options, token: used });
    if (response.status !== 401 || !this.#session) return response;
    if (this.#session.access === used) await this.#renew();
    return this.#send(path, { ...options, token: this.#session?.access });
  }

  // However many calls and tabs need a new token, one asks for it: a refresh token works once.
  #renew() {
    const before = this.#session;
    const exchange = () => this.#session === before && this.#exchange(before); // unless another tab has done it
    this.#renewal ??= (BY_COOKIE ? navigator.locks.request(SHARED, exchange) : exchange()).finally(() => (this.#renewal = null));
    return this.#renewal;
  }

  async #exchange(before) {
    try {
      const pair = await this.#json(REFRESH, { method: "POST", body: { refresh_token: before?.refresh }, byCookie: BY_COOKIE });
      if (this.#session !== before) return;
      if (!before || pair.session_id === before.id) return this.#keep(pair);
    } catch (error) {
      if (!(error instanceof Problem) || ![400, 401].includes(error.status)) throw error;
    }
    // Refused, or of another login, which began in another tab.
    if (before && this.#session === before) this.#expire();
    throw new Expired();
  }

  // Tells the other tabs. Done when a second channel of this tab hears it, as they do: then the lock may pass to one of them.
  #tell(session) {
    if (!BY_COOKIE) return null;
    this.#tabs.postMessage(session);
    return new Promise((done) => {
      this.#echo.onmessage = done;
      setTimeout(done, 100);
    });
  }

  // What another tab says: its tokens, or null once it has signed out.
  #hear(session) {
    if (this.#session ? session?.id === this.#session.id : session && this.#renewal) this.#session = session;
    else if (this.#session) this.#expire();
  }

  async #json(path, options) {
    const response = await this.#send(path, options);
    return response.ok ? response.json() : this.#refuse(response);
  }

  async #refuse(response) {
    throw new Problem(response.status, await response.json().catch(() => ({})), response.headers.get("Retry-After"));
  }

  async #send(path, { method = "GET", query = {}, body, token, signal, byCookie = false }) {
    const address = new URL(path, location.origin);
    for (const [key, value] of Object.entries(query)) if (value != null && value !== "") address.searchParams.set(key, value);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (byCookie) headers["X-Gateway-Session"] = "cookie";
    const credentials = byCookie ? "same-origin" : "omit";
    try {
      // `keepalive`: the browser keeps the next cookie even if the tab is closed meanwhile.
      const response = await fetch(address, { method, headers, body: body && JSON.stringify(body), signal, credentials, keepalive: byCookie, cache: "no-store" });
      this.dispatchEvent(new Event("reached"));
      return response;
    } catch (error) {
      if (signal?.aborted) throw error;
      this.dispatchEvent(new Event("unreachable"));
      throw new Unreachable();
    }
  }

  #keep({ access_token, refresh_token, expires_in, session_id }) {
    const early = Math.min(EARLY_MS, expires_in * 250);
    this.#session = { id: session_id, access: access_token, refresh: refresh_token, renewAt: Date.now() + expires_in * 1000 - early };
    return this.#tell(this.#session);
  }

  #expire() {
    this.#forget();
    this.dispatchEvent(new Event("expired"));
  }

  #forget() {
    this.#session = this.user = null;
    this.permissions = new Set();
  }
}

export const api = new Api();
