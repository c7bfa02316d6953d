/** What the tabs of a browser share in cookie mode: one login, and one renewal at a time. */

import type { Session, SessionStorage } from "./storage.js";

const MOST_MS = 100; // that a renewal waits for the channel

/**
 * Keep the login in memory, the same in all tabs of the page's origin.
 *
 * The channel carries access tokens. Every script of the origin could ask the gateway for one itself.
 */
export function tabStorage(name: string): SessionStorage {
  // React Native and old browsers have no channel: there each page keeps its own.
  if (typeof BroadcastChannel !== "function") return memoryOf(() => {});
  const [channel, echo] = [new BroadcastChannel(name), new BroadcastChannel(name)];
  // Node would run on for them.
  for (const one of [channel, echo]) (one as { unref?: () => void }).unref?.();
  const storage = memoryOf(async (session) => {
    // The second channel hears it when the other tabs do. Only then the lock of a renewal may pass to one of them.
    const heard = new Promise<void>((resolve) => {
      echo.onmessage = () => resolve();
      setTimeout(resolve, MOST_MS);
    });
    channel.postMessage(session);
    await heard;
  });
  channel.onmessage = ({ data }: MessageEvent<Session | null>) => storage.hear(data);
  return storage;
}

/** Memory that tells others what is put into it, and takes what they tell. */
function memoryOf(say: (session: Session | null) => void | Promise<void>): SessionStorage & { hear: typeof say } {
  let held: Session | null = null;
  const put = (session: Session | null): void | Promise<void> => {
    held = session;
    return say(session);
  };
  return { get: () => held, set: put, clear: () => put(null), hear: (session) => void (held = session) };
}

/** Run `work` while no other tab runs work of this name. Without locks the gateway lets tabs race for 30 s. */
export function alone<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
  return locks ? (locks.request(name, work) as Promise<T>) : work();
}
