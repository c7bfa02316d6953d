/** The login: stores the tokens, renews them once for all waiting calls, and notices when the login has ended. */

import { GatewayProblem, GatewayUnreachable } from "./problem.js";
import type { TokenAnswer } from "./shapes.js";
import { type Session, type SessionStorage, checked } from "./storage.js";
import { type Transport, notify } from "./transport.js";

/** The access token is renewed this long before it expires, which is longer than a call may wait for its retries. */
const EARLY_MS = 30_000;
/** The gateway returns the same tokens for 30 s, so a renewal with a lost answer must be repeated within that time. */
const REFRESH_TIMEOUT_MS = 10_000;
const REFRESH_PAUSE_MS = 1_000;

export class Sessions {
  readonly #storage: SessionStorage;
  readonly #transport: Transport;
  readonly #onLost: ((problem: GatewayProblem) => void) | undefined;
  #renewal: Promise<Session> | undefined;
  /** Counts logins and logouts, so that a slower renewal does not restore the old login. */
  #epoch = 0;

  constructor(
    storage: SessionStorage,
    transport: Transport,
    onLost: ((problem: GatewayProblem) => void) | undefined,
  ) {
    this.#storage = storage;
    this.#transport = transport;
    this.#onLost = onLost;
  }

  /** Return the stored login, or null. */
  async held(): Promise<Session | null> {
    return checked(await this.#storage.get());
  }

  /** Return the stored login. Throws `no_session` if there is none. */
  async required(): Promise<Session> {
    const held = await this.held();
    if (!held) throw noSession("Log in first.");
    return held;
  }

  /** Store the tokens of a login. */
  async adopt(answer: TokenAnswer): Promise<Session> {
    const session = this.#sessionOf(answer);
    this.#turn();
    await this.#storage.set(session);
    return session;
  }

  /** Forget the login. */
  async drop(): Promise<void> {
    this.#turn();
    await this.#storage.clear();
  }

  /** Return the login with an access token that is valid for the next call. Throws `no_session` if there is none. */
  async current(): Promise<Session> {
    const held = await this.required();
    if (this.#transport.now() < held.renewAtMs) return held;
    try {
      return await this.renewed(held);
    } catch (error) {
      // An early renewal may fail, because the old token is still valid, unless the login has ended.
      const over = error instanceof GatewayProblem && [400, 401].includes(error.status);
      if (over || this.#transport.now() >= held.expiresAtMs) throw error;
      return held;
    }
  }

  /**
   * Return the login with other tokens than those that were `used`. Calls share one request.
   *
   * A network failure does not change the login.
   */
  async renewed(used: Session): Promise<Session> {
    for (;;) {
      const joined = this.#renewal;
      const session = await (joined ?? this.#begin(used));
      if (session.sessionId !== used.sessionId) throw replaced();
      // A renewal by another call may have found these tokens still valid.
      if (!joined || session.accessToken !== used.accessToken) return session;
    }
  }

  #begin(used: Session): Promise<Session> {
    const renewal = this.#renew(used).finally(() => {
      if (this.#renewal === renewal) this.#renewal = undefined;
    });
    this.#renewal = renewal;
    return renewal;
  }

  async #renew(used: Session): Promise<Session> {
    const epoch = this.#epoch;
    const held = await this.held();
    if (!held) throw noSession("The session has ended. Log in again.");
    const isNewer = held.accessToken !== used.accessToken || held.sessionId !== used.sessionId;
    if (isNewer && this.#transport.now() < held.renewAtMs) return held; // another tab has renewed it
    let answer: TokenAnswer;
    try {
      answer = await this.#ask(held.refreshToken);
    } catch (error) {
      if (error instanceof GatewayProblem && error.code === "invalid_grant") await this.#lose(held, error);
      throw error;
    }
    const now = await this.held();
    if (epoch !== this.#epoch || now?.sessionId !== held.sessionId) throw replaced(); // here, or in another tab
    if (now.refreshToken !== held.refreshToken) return now; // another tab has renewed it, perhaps several times
    const session = this.#sessionOf(answer);
    await this.#storage.set(session);
    return session;
  }

  async #ask(refreshToken: string): Promise<TokenAnswer> {
    const call = {
      method: "POST",
      path: "/auth/refresh",
      body: { refresh_token: refreshToken },
      answers: "access_token",
      repeatable: true,
      timeoutMs: REFRESH_TIMEOUT_MS,
    } as const;
    try {
      return await this.#transport.send<TokenAnswer>(call);
    } catch (error) {
      if (!(error instanceof GatewayUnreachable)) throw error;
      await this.#transport.sleep(REFRESH_PAUSE_MS);
      return await this.#transport.send<TokenAnswer>(call);
    }
  }

  /** Forget a login whose refresh token was refused, unless another login has replaced it. */
  async #lose(lost: Session, problem: GatewayProblem): Promise<void> {
    if ((await this.held())?.refreshToken !== lost.refreshToken) return;
    await this.drop();
    notify(this.#onLost, problem);
  }

  #sessionOf(answer: TokenAnswer): Session {
    const nowMs = this.#transport.now();
    const lifeMs = answer.expires_in * 1000;
    return {
      accessToken: answer.access_token,
      refreshToken: answer.refresh_token,
      sessionId: answer.session_id,
      user: answer.user,
      renewAtMs: nowMs + lifeMs - Math.min(EARLY_MS, lifeMs / 4),
      expiresAtMs: nowMs + lifeMs,
    };
  }

  #turn(): void {
    this.#epoch++;
    this.#renewal = undefined;
  }
}

function noSession(detail: string): GatewayProblem {
  return new GatewayProblem({ status: 401, code: "no_session", detail });
}

/** A call of one user is never executed as another. */
function replaced(): GatewayProblem {
  return noSession("The login changed while this call was running.");
}
