/** What the tabs of a browser share in cookie mode: one login, and one renewal at a time. */

import type { Session, SessionStorage } from "./storage.js";

/**
 * Keep the login in memory, the same in all tabs of the page's origin.
 *
 * The channel carries access tokens. Every script of the origin could ask the gateway for one itself.
 */
export function tabStorage(name: string): SessionStorage {
  // React Native and old browsers have no channel: there each page keeps its own.
  const channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(name) : undefined;
  (channel as { unref?: () => void } | undefined)?.unref?.(); // in Node, which would run on for it
  let held: Session | null = null;
  const put = (session: Session | null): void => {
    held = session;
    channel?.postMessage(session);
  };
  channel?.addEventListener("message", ({ data }: MessageEvent<Session | null>) => {
    held = data;
  });
  return { get: () => held, set: put, clear: () => put(null) };
}

/** Run `work` while no other tab runs work of this name. Without locks the gateway lets tabs race for 30 s. */
export function alone<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
  return locks ? (locks.request(name, work) as Promise<T>) : work();
}
