// Calls the API. Tokens are kept in memory only, so that a reload or a closed tab ends the login on this side.

const LOGIN = "/api/auth/login", REFRESH = "/api/auth/refresh", LOGOUT = "/api/auth/logout";
const EARLY_MS = 30_000; // a token is renewed this long before it expires

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
  user = null;
  permissions = new Set();

  may(permission) {
    return this.permissions.has(permission);
  }

  async login(username, password) {
    this.#keep(await this.#json(LOGIN, { method: "POST", body: { username, password } }));
    const me = await this.get("/api/auth/me");
    this.user = me.user;
    this.permissions = new Set(me.permissions);
  }

  async logout() {
    const session = this.#session;
    this.#forget();
    if (session) await this.#send(LOGOUT, { method: "POST", body: { refresh_token: session.refresh } });
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

  // However many calls need a new token, one asks for it: a refresh token works once.
  #renew() {
    this.#renewal ??= this.#exchange().finally(() => (this.#renewal = null));
    return this.#renewal;
  }

  async #exchange() {
    const before = this.#session;
    try {
      const pair = await this.#json(REFRESH, { method: "POST", body: { refresh_token: before.refresh } });
      if (this.#session === before) this.#keep(pair);
    } catch (error) {
      if (!(error instanceof Problem) || ![400, 401].includes(error.status)) throw error;
      if (this.#session === before) {
        this.#forget();
        this.dispatchEvent(new Event("expired"));
      }
      throw new Expired();
    }
  }

  async #json(path, options) {
    const response = await this.#send(path, options);
    return response.ok ? response.json() : this.#refuse(response);
  }

  async #refuse(response) {
    throw new Problem(response.status, await response.json().catch(() => ({})), response.headers.get("Retry-After"));
  }

  async #send(path, { method = "GET", query = {}, body, token, signal }) {
    const address = new URL(path, location.origin);
    for (const [key, value] of Object.entries(query)) if (value != null && value !== "") address.searchParams.set(key, value);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    try {
      const response = await fetch(address, { method, headers, body: body && JSON.stringify(body), signal, credentials: "omit", cache: "no-store" });
      this.dispatchEvent(new Event("reached"));
      return response;
    } catch (error) {
      if (signal?.aborted) throw error;
      this.dispatchEvent(new Event("unreachable"));
      throw new Unreachable();
    }
  }

  #keep({ access_token, refresh_token, expires_in }) {
    const early = Math.min(EARLY_MS, expires_in * 250);
    this.#session = { access: access_token, refresh: refresh_token, renewAt: Date.now() + expires_in * 1000 - early };
  }

  #forget() {
    this.#session = this.user = null;
    this.permissions = new Set();
  }
}

export const api = new Api();
