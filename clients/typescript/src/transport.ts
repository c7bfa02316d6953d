/** One request to the gateway: its timeout, its retries after 429 and 503, its errors. Independent of the session. */

import { GatewayProblem, GatewayUnreachable, parseObject, problemOf } from "./problem.js";
import { type RateLimit, parseRateLimits } from "./rate-limit.js";

/** How often a refused request is repeated. Only refusals with Retry-After are. */
export interface RetryOptions {
  /** Maximum number of repetitions, by default 2. */
  readonly most?: number;
  /** Maximum total wait of one call in ms, by default 10,000. */
  readonly waitMs?: number;
}

export interface TransportOptions {
  /** The gateway's http(s) address, including `/api`. */
  readonly baseUrl: string;
  /** Maximum time for one answer with its body in ms, by default 15,000. */
  readonly timeoutMs?: number;
  /** `false` disables repetitions. */
  readonly retry?: RetryOptions | false;
  /** Called with the limits after each answer that reports them, the tightest first. */
  readonly onRateLimits?: (limits: readonly RateLimit[]) => void;
  /** The platform's fetch by default. */
  readonly fetch?: typeof fetch;
  /** The clock and the wait, for tests. */
  readonly now?: () => number;
  readonly sleep?: (ms: number) => Promise<void>;
}

export interface Call {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** The path after the base URL, with its parts escaped. */
  readonly path: string;
  /** The path for errors, if `path` contains a secret. */
  readonly shown?: string;
  readonly body?: object | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * Also repeat after a 503 and while the first attempt is running (409 idempotency_conflict), because executing
   * it twice is harmless. After a 429 nothing was executed.
   */
  readonly repeatable?: boolean;
  /** Send and receive the cookie that holds the refresh token. */
  readonly byCookie?: boolean;
  /** The field that an answer must have; `null` if it needs no body. */
  readonly answers: string | null;
  /** Replaces the client's timeout if it is shorter. */
  readonly timeoutMs?: number;
}

// A pattern, because React Native's URL is a stub. No user:password, which fetch refuses, and nothing after the path,
// which would cut off the appended path.
const BASE_URL = /^https?:\/\/[^\s/?#@\\]+(\/[^\s?#\\]*)?$/i;

/** Sends calls. `now` and `sleep` are the clock of the whole client. */
export class Transport {
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly baseUrl: string;
  readonly #timeoutMs: number;
  readonly #most: number;
  readonly #waitMs: number;
  readonly #fetch: typeof fetch;
  readonly #onRateLimits: ((limits: readonly RateLimit[]) => void) | undefined;
  #rateLimits: readonly RateLimit[] = [];

  constructor(options: TransportOptions) {
    this.baseUrl = checkedUrl(options?.baseUrl).replace(/\/+$/, "");
    this.#timeoutMs = options.timeoutMs ?? 15_000;
    const retry = options.retry === false ? { most: 0 } : options.retry;
    this.#most = retry?.most ?? 2;
    this.#waitMs = retry?.waitMs ?? 10_000;
    // Looked up at each call, so that a polyfill can be installed later. Browsers refuse a detached fetch.
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#onRateLimits = options.onRateLimits;
    this.now = options.now ?? Date.now;
    this.sleep = options.sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)));
  }

  /** The limits after the last answer that reported them. */
  get rateLimits(): readonly RateLimit[] {
    return this.#rateLimits;
  }

  /**
   * Send a call, repeat it where that is allowed, and return the JSON of its answer.
   *
   * Throws GatewayProblem or GatewayUnreachable.
   */
  async send<T>(call: Call, token?: string): Promise<T> {
    let waitedMs = 0;
    let most = this.#most;
    for (let repeated = 0; ; repeated++) {
      try {
        return (await this.#inTime(call, token)) as T;
      } catch (error) {
        const waitMs = repeatAfterMs(call, error);
        if (waitMs === undefined || repeated >= most || waitedMs + waitMs > this.#waitMs) throw error;
        if (most > 0 && isUnderWay(error)) most++; // the first attempt will end; only the time limits this
        waitedMs += waitMs;
        await this.sleep(waitMs);
      }
    }
  }

  async #inTime(call: Call, token: string | undefined): Promise<unknown> {
    const timeoutMs = Math.min(call.timeoutMs ?? this.#timeoutMs, this.#timeoutMs);
    // A race, because React Native lacks AbortSignal.timeout and its fetch may ignore the signal.
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new GatewayUnreachable(`${name(call)}: no answer within ${timeoutMs} ms`, true));
        abort.abort();
      }, timeoutMs);
    });
    try {
      return await Promise.race([this.#once(call, token, abort.signal), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #once(call: Call, token: string | undefined, signal: AbortSignal): Promise<unknown> {
    const { response, text } = await this.#exchange(call, token, signal);
    this.#note(response.headers);
    if (!response.ok) throw problemOf(response.status, response.headers, text, this.now());
    const answer = parseObject(text);
    if (call.answers === null || answer?.[call.answers] !== undefined) return answer;
    throw new GatewayProblem({
      status: response.status,
      code: "unexpected_answer",
      detail: `${name(call)}: the answer did not come from a gateway. Check that the base URL ends in /api.`,
    });
  }

  async #exchange(
    call: Call,
    token: string | undefined,
    signal: AbortSignal,
  ): Promise<{ response: Response; text: string }> {
    const headers: Record<string, string> = { Accept: "application/json", ...call.headers };
    // An empty body with a JSON type means {}, as in the seed's createRoom().
    if (call.method !== "GET" && call.method !== "DELETE") headers["Content-Type"] = "application/json";
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: call.method, headers, signal, redirect: "error" }; // tokens follow no redirect
    if (call.body !== undefined) init.body = JSON.stringify(call.body);
    if (call.byCookie) {
      headers["X-Gateway-Session"] = "cookie";
      init.credentials = "include";
      init.keepalive = true; // the browser keeps the next cookie even if the page is left meanwhile
    }
    try {
      const response = await this.#fetch(this.baseUrl + call.path, init);
      return { response, text: await response.text() };
    } catch (error) {
      // The error itself is not passed on, because it may contain the request with its headers.
      throw new GatewayUnreachable(`${name(call)}: the gateway cannot be reached${reason(error)}`, false);
    }
  }

  #note(headers: Headers): void {
    const limits = parseRateLimits(headers.get("ratelimit"), headers.get("ratelimit-policy"));
    if (limits.length === 0) return;
    this.#rateLimits = limits;
    notify(this.#onRateLimits, limits);
  }
}

/** Call back in a separate task: an application's error must neither break the call nor be lost. */
export function notify<T>(listener: ((value: T) => void) | undefined, value: T): void {
  if (listener) void Promise.resolve(value).then(listener);
}

/** Escape one part of a path. */
export function segment(text: string): string {
  // "." and ".." are not escaped and would change the path
  if (/^\.{0,2}$/.test(text)) throw new TypeError("an id must not be empty");
  return encodeURIComponent(text);
}

/** Refuse a base URL that would fail or lead elsewhere. The error omits the value, which may contain a password. */
function checkedUrl(baseUrl: unknown): string {
  if (typeof baseUrl === "string" && BASE_URL.test(baseUrl)) return baseUrl;
  throw new TypeError(
    "baseUrl must be the gateway's http:// or https:// address, such as https://gateway.example.com/api",
  );
}

function repeatAfterMs(call: Call, error: unknown): number | undefined {
  if (!(error instanceof GatewayProblem) || error.retryAfterS === undefined) return undefined;
  const harmless = call.repeatable === true && (error.status === 503 || isUnderWay(error));
  return error.status === 429 || harmless ? error.retryAfterS * 1000 : undefined;
}

/** Return whether the first call with the same Idempotency-Key is still running. */
function isUnderWay(error: unknown): boolean {
  return error instanceof GatewayProblem && error.code === "idempotency_conflict";
}

function name(call: Call): string {
  return `${call.method} ${(call.shown ?? call.path).replace(/\?.*/, "")}`;
}

/** Return a system's error code such as ECONNREFUSED, which Node sets as the cause. */
function reason(error: unknown): string {
  const code: unknown = (error as { cause?: { code?: unknown } } | null)?.cause?.code;
  return typeof code === "string" && /^[A-Z][A-Z0-9_]{2,40}$/.test(code) ? ` (${code})` : "";
}
