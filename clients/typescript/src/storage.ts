/** Where a login is kept between calls. In memory by default; the application decides whether it outlives a reload. */

import type { User } from "./shapes.js";

/** A login. Whoever has it is the user: keep it out of logs. */
export interface Session {
  readonly accessToken: string;
  readonly refreshToken: string;
  readonly sessionId: string;
  readonly user: User;
  /** From then on the access token is renewed before it is used; ms since 1970, by this machine's clock. */
  readonly renewAtMs: number;
  /** From then on the gateway refuses it. */
  readonly expiresAtMs: number;
}

/** The client asks it before every call, so that tabs which share one never use each other's spent tokens. */
export interface SessionStorage {
  get(): Session | null | Promise<Session | null>;
  set(session: Session): void | Promise<void>;
  clear(): void | Promise<void>;
}

/** What localStorage, sessionStorage and React Native's AsyncStorage have in common. */
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

/** Keep the login in a key-value store, as JSON under one key. What cannot be read counts as no login. */
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

/** Return what a storage gave, if it is a login. A token that is no header value would be shown in fetch's error. */
export function checked(session: Session | null): Session | null {
  const { accessToken, refreshToken, sessionId, renewAtMs, expiresAtMs }: Partial<Session> = session ?? {};
  const tokens = [accessToken, refreshToken].every((token) => typeof token === "string" && TOKEN.test(token));
  const times = [renewAtMs, expiresAtMs].every((time) => typeof time === "number");
  return tokens && times && typeof sessionId === "string" ? session : null;
}
