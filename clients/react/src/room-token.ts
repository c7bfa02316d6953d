/** A join token for one room, renewed before it expires. */

import type { GatewayProblem, GatewayUnreachable, MintedToken } from "@hms-gateway/client";
import { useCallback, useEffect, useRef, useState } from "react";

import { useGateway } from "./gateway.js";

export interface RoomTokenOptions {
  /** A role of the 100ms template; by default the least privileged that the user may have. */
  readonly role?: string | undefined;
  /** `false` waits, for example until the user has chosen a camera. A token costs the user one mint. */
  readonly enabled?: boolean | undefined;
}

export interface RoomToken {
  /** `idle`: without a login, a room, or with `enabled: false`. */
  readonly status: "idle" | "loading" | "ready" | "failed";
  /** For 100ms's `join({ authToken })`. Kept while it is renewed. */
  readonly token: string | null;
  readonly role: string | null;
  readonly expiresAt: Date | null;
  /** Why there is no token. A GatewayProblem has `code`, `allowedRoles` and `retryAfterS`. */
  readonly error: GatewayProblem | GatewayUnreachable | Error | null;
  /** Ask again now. */
  readonly retry: () => void;
}

type State = Omit<RoomToken, "retry">;

const IDLE: State = { status: "idle", token: null, role: null, expiresAt: null, error: null };
const LOADING: State = { ...IDLE, status: "loading" };
/** A token is renewed this long before it expires, or after half of its life if that is later. */
const EARLY_MS = 60_000;
const AGAIN_MS = 15_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Return a join token of the user for a room, and keep it valid. Without a room id it does nothing. */
export function useRoomToken(roomId: string | null | undefined, options: RoomTokenOptions = {}): RoomToken {
  const { gateway, status, user } = useGateway();
  const { role, enabled = true } = options;
  const [state, setState] = useState(IDLE);
  const [attempt, setAttempt] = useState(0);
  // React's strict mode runs effects twice; the second run must not cost the user a second mint.
  const running = useRef<{ key: string; minting: Promise<MintedToken> } | null>(null);
  const wanted = enabled && status === "signed-in" && roomId ? roomId : null;
  const key = JSON.stringify([user?.id, wanted, role, attempt]);

  useEffect(() => {
    if (wanted === null) {
      setState(IDLE);
      return;
    }
    let isCurrent = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const later = (ms: number, run: () => void) => {
      timer = setTimeout(run, Math.min(Math.max(ms, 0), LONGEST_TIMER_MS));
    };
    const keep = (minted: MintedToken) => {
      if (!isCurrent) return;
      const expiresAt = new Date(minted.expires_at);
      const leftMs = expiresAt.getTime() - Date.now();
      setState({ status: "ready", token: minted.token, role: minted.role, expiresAt, error: null });
      later(leftMs - Math.min(EARLY_MS, leftMs / 2), () => renew(expiresAt));
    };
    const fail = (error: unknown) => {
      if (isCurrent) setState({ ...IDLE, status: "failed", error: errorOf(error) });
    };
    const renew = (expiresAt: Date) => {
      gateway.mintToken(wanted, role).then(keep, (error: unknown) => {
        if (!isCurrent) return;
        // The old token is still good for a while, so a lost connection changes nothing yet.
        if (Date.now() + AGAIN_MS < expiresAt.getTime() && !isRefusal(error)) later(AGAIN_MS, () => renew(expiresAt));
        else fail(error);
      });
    };
    setState(LOADING);
    if (running.current?.key !== key) running.current = { key, minting: gateway.mintToken(wanted, role) };
    running.current.minting.then(keep, fail);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [gateway, wanted, role, key]);

  const retry = useCallback(() => setAttempt((count) => count + 1), []);
  return { ...state, retry };
}

function errorOf(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Tell whether the gateway has answered that the user gets no token, rather than not answered. */
function isRefusal(error: unknown): boolean {
  const status = (error as { status?: unknown } | null)?.status;
  return typeof status === "number" && status < 500 && status !== 429;
}
