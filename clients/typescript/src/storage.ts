/** Storage of the login between calls. In memory by default; the application decides whether it survives a reload. */

import type { User } from "./shapes.js";

/** A login. It gives full access as the user: keep it out of logs. */
export interface Session {
  readonly accessToken: string;
  /** Absent in cookie mode, where the browser keeps it in a cookie. */
  readonly refreshToken?: string;
  readonly sessionId: string;
  readonly user: User;
  /** The time after which the access token is renewed before use, in ms since 1970 by the local clock. */
  readonly renewAtMs: number;
  /** The time after which the gateway refuses the access token. */
  readonly expiresAtMs: number;
}

/** The client reads it before every call, so that tabs that share one never use outdated tokens. */
export interface SessionStorage {
  get(): Session | null | Promise<Session | null>;
  set(session: Session): void | Promise<void>;
  clear(): void | Promise<void>;
}

/** The common methods of localStorage, sessionStorage and React Native's AsyncStorage. */
export interface KeyValueStore {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** Keep the login until the page or the process ends. */
export function memoryStorage(): SessionStorage {
  let held: Session | null = null;
  return {
    get: () => held,
    set: (session) => {
      held = session;
    },
    clear: () => {
      held = null;
    },
  };
}

/** Keep the login in a key-value store, as JSON under one key. An unreadable value counts as no login. */
export function keyValueStorage(store: KeyValueStore, key = "hms-gateway.session"): SessionStorage {
  return {
    async get() {
      const text = await store.getItem(key);
      try {
        return text === null ? null : (JSON.parse(text) as Session);
      } catch {
        return null;
      }
    },
    set: (session) => store.setItem(key, JSON.stringify(session)),
    clear: () => store.removeItem(key),
  };
}

const TOKEN = /^[\x21-\x7e]+$/;

/** Return whether a text can be a header value. An error of fetch would reveal a token that is none. */
export function isToken(value: unknown): value is string {
  return typeof value === "string" && TOKEN.test(value);
}

/** Return the stored value if it is a login. */
export function checked(session: Session | null, byCookie: boolean): Session | null {
  const { accessToken, refreshToken, sessionId, renewAtMs, expiresAtMs }: Partial<Session> = session ?? {};
  const tokens = isToken(accessToken) && (byCookie || isToken(refreshToken));
  const times = [renewAtMs, expiresAtMs].every((time) => typeof time === "number");
  return tokens && times && typeof sessionId === "string" ? session : null;
}
