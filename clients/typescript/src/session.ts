/** A user's login: stores the tokens, renews them once for all waiting calls, and notices when the login has ended. */

import { GatewayProblem, GatewayUnreachable } from "./problem.js";
import type { TokenAnswer } from "./shapes.js";
import { type Session, type SessionStorage, checked } from "./storage.js";
import { alone } from "./tabs.js";
import { type Call, type Transport, notify } from "./transport.js";

/** The access token is renewed this long before it expires, which is longer than a call may wait for its retries. */
const EARLY_MS = 30_000;
/** The gateway returns the same tokens for 30 s, so a renewal with a lost answer must be repeated within that time. */
const REFRESH_TIMEOUT_MS = 10_000;
const REFRESH_PAUSE_MS = 1_000;

export interface SessionsOptions {
  readonly storage: SessionStorage;
  readonly onLost?: ((problem: GatewayProblem) => void) | undefined;
  /** Cookie mode: the browser keeps the refresh token, and tabs share the storage and a lock of this name. */
  readonly sharedAs?: string | undefined;
}

export class Sessions {
  /** Whether the browser keeps the refresh token in a cookie. */
  readonly byCookie: boolean;
  readonly #transport: Transport;
  readonly #options: SessionsOptions;
  #renewal: Promise<Session> | undefined;
  /** Cookie mode: done once the gateway has been asked whether the browser has a login. */
  #restored: Promise<void> | undefined;
  /** Counts logins and logouts, so that a slower renewal does not restore the old login. */
  #epoch = 0;

  constructor(transport: Transport, options: SessionsOptions) {
    this.#transport = transport;
    this.#options = options;
    this.byCookie = options.sharedAs !== undefined;
  }

  /** Return the login, or null. In cookie mode the gateway is asked for it once. */
  async held(): Promise<Session | null> {
    const stored = await this.stored();
    if (stored || !this.byCookie) return stored;
    this.#restored ??= this.#restore().catch((error: unknown) => {
      this.#restored = undefined; // not known yet: asked again next time
      throw error;
    });
    await this.#restored;
    return await this.stored();
  }

  /** Return the stored login, or null. */
  async stored(): Promise<Session | null> {
    return checked(await this.#options.storage.get(), this.byCookie);
  }

  /** Return the login. Throws `no_session` if there is none. */
  async required(): Promise<Session> {
    const held = await this.held();
    if (!held) throw noSession("Log in first.");
    return held;
  }

  /** Send a call as the logged-in user. Repeat it once if the gateway refuses the token (then it did nothing). */
  async send<T>(call: Call): Promise<T> {
    const session = await this.#current();
    try {
      return await this.#transport.send<T>(call, session.accessToken);
    } catch (error) {
      const isRefused = error instanceof GatewayProblem && ["token_expired", "invalid_token"].includes(error.code);
      if (!isRefused) throw error;
      const renewed = await this.renewed(session);
      return await this.#transport.send<T>(call, renewed.accessToken);
    }
  }

  /** Store the tokens of a login. */
  async adopt(answer: TokenAnswer): Promise<Session> {
    const session = this.#sessionOf(answer);
    this.#turn();
    await this.#options.storage.set(session);
    return session;
  }

  /** Forget the login. */
  async drop(): Promise<void> {
    this.#turn();
    await this.#options.storage.clear();
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

  /** Return the login with an access token that is valid for the next call. Throws `no_session` if there is none. */
  async #current(): Promise<Session> {
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

  #begin(used: Session): Promise<Session> {
    const renewal = this.#alone(() => this.#renew(used)).finally(() => {
      if (this.#renewal === renewal) this.#renewal = undefined;
    });
    this.#renewal = renewal;
    return renewal;
  }

  async #renew(used: Session): Promise<Session> {
    const epoch = this.#epoch;
    const held = await this.stored();
    if (!held) throw noSession("The session has ended. Log in again.");
    const isNewer = held.accessToken !== used.accessToken || held.sessionId !== used.sessionId;
    if (isNewer && this.#transport.now() < held.renewAtMs) return held; // another tab has renewed it
    let answer: TokenAnswer;
    try {
      answer = await this.#ask(held.refreshToken);
    } catch (error) {
      if (isVoid(error)) await this.#lose(held, error);
      throw error;
    }
    const now = await this.stored();
    if (epoch !== this.#epoch || now?.sessionId !== held.sessionId) throw replaced(); // here, or in another tab
    if (now.accessToken !== held.accessToken) return now; // another tab has renewed it, perhaps several times
    const session = this.#sessionOf(answer); // the cookie may be that of another login, which `renewed` refuses
    await this.#options.storage.set(session);
    return session;
  }

  /** Take up the login that the browser keeps, if it keeps one. */
  async #restore(): Promise<void> {
    const epoch = this.#epoch;
    await this.#alone(async () => {
      if (await this.stored()) return; // another tab has shared it
      try {
        const session = this.#sessionOf(await this.#ask(undefined));
        if (epoch === this.#epoch) await this.#options.storage.set(session);
      } catch (error) {
        if (!isVoid(error)) throw error;
      }
    });
  }

  /** Run work in one tab at a time, where tabs share a refresh token: each one works once. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#options.sharedAs === undefined ? work() : alone(this.#options.sharedAs, work);
  }

  async #ask(refreshToken: string | undefined): Promise<TokenAnswer> {
    const call = {
      method: "POST",
      path: "/auth/refresh",
      body: { refresh_token: refreshToken },
      byCookie: this.byCookie,
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
    if ((await this.stored())?.accessToken !== lost.accessToken) return;
    await this.drop();
    notify(this.#options.onLost, problem);
  }

  #sessionOf(answer: TokenAnswer): Session {
    if ((answer.refresh_token === undefined) !== this.byCookie) {
      const detail = this.byCookie
        ? "The gateway does not know cookie mode: it answered with a refresh token."
        : "The gateway answered without a refresh token.";
      throw new GatewayProblem({ status: 200, code: "unexpected_answer", detail });
    }
    const nowMs = this.#transport.now();
    const lifeMs = answer.expires_in * 1000;
    return {
      accessToken: answer.access_token,
      ...(answer.refresh_token !== undefined && { refreshToken: answer.refresh_token }),
      sessionId: answer.session_id,
      user: answer.user,
      renewAtMs: nowMs + lifeMs - Math.min(EARLY_MS, lifeMs / 4),
      expiresAtMs: nowMs + lifeMs,
    };
  }

  #turn(): void {
    this.#epoch++;
    this.#renewal = undefined;
    this.#restored = Promise.resolve();
  }
}

/** Return whether the gateway refused a refresh token, or the lack of one. */
function isVoid(error: unknown): error is GatewayProblem {
  return error instanceof GatewayProblem && error.code === "invalid_grant";
}

function noSession(detail: string): GatewayProblem {
  return new GatewayProblem({ status: 401, code: "no_session", detail });
}

/** A call of one user is never executed as another. */
function replaced(): GatewayProblem {
  return noSession("The login changed while this call was running.");
}
