/** One request to the gateway: its deadline, its repetitions after 429 and 503, its errors. Knows no session. */

import { GatewayProblem, GatewayUnreachable, parseObject, problemOf } from "./problem.js";
import { type RateLimit, parseRateLimits } from "./rate-limit.js";

/** When a refused request is sent again. Only a refusal that names a time (Retry-After) is. */
export interface RetryOptions {
  /** Times at most; 2 by default. */
  readonly most?: number;
  /** Time at most that one call may spend waiting, all its repetitions together; 10,000 ms by default. */
  readonly waitMs?: number;
}

export interface TransportOptions {
  /** The gateway's http(s) address up to and with `/api`. */
  readonly baseUrl: string;
  /** Time at most for one answer, its body included; 15,000 ms by default. */
  readonly timeoutMs?: number;
  /** `false`: never wait, let the application decide. */
  readonly retry?: RetryOptions | false;
  /** Told how the limits stand after each answer that says so, the tightest first. */
  readonly onRateLimits?: (limits: readonly RateLimit[]) => void;
  /** The platform's by default. */
  readonly fetch?: typeof fetch;
  /** Clock and waiting, for tests. */
  readonly now?: () => number;
  readonly sleep?: (ms: number) => Promise<void>;
}

export interface Call {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** After the base URL, its parts escaped. */
  readonly path: string;
  /** The path as errors may show it, where it holds a secret. */
  readonly shown?: string;
  readonly body?: object | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /**
   * Repeat after a 503, too, and while a first try is still under way (409 idempotency_conflict): a second execution does
   * no harm. After a 429 nothing was executed.
   */
  readonly repeatable?: boolean;
  /** The field without which an answer is none; `null`: no body is needed. */
  readonly answers: string | null;
  /** Instead of the client's, if shorter. */
  readonly timeoutMs?: number;
}

// React Native's URL is a stub. No user:password, which fetch refuses, and nothing after the path, which would cut off
// what is appended.
const BASE_URL = /^https?:\/\/[^\s/?#@\\]+(\/[^\s?#\\]*)?$/i;

/** Sends calls. `now` and `sleep` are the clock that everything in the client goes by. */
export class Transport {
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly #baseUrl: string;
  readonly #timeoutMs: number;
  readonly #most: number;
  readonly #waitMs: number;
  readonly #fetch: typeof fetch;
  readonly #onRateLimits: ((limits: readonly RateLimit[]) => void) | undefined;
  #rateLimits: readonly RateLimit[] = [];

  constructor(options: TransportOptions) {
    this.#baseUrl = checkedUrl(options?.baseUrl).replace(/\/+$/, "");
    this.#timeoutMs = options.timeoutMs ?? 15_000;
    const retry = options.retry === false ? { most: 0 } : options.retry;
    this.#most = retry?.most ?? 2;
    this.#waitMs = retry?.waitMs ?? 10_000;
    // Looked up at each call, so that a polyfill may come later; and browsers refuse a fetch that is nobody's method.
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
    this.#onRateLimits = options.onRateLimits;
    this.now = options.now ?? Date.now;
    this.sleep = options.sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)));
  }

  /** How the limits stood after the last answer that said so. */
  get rateLimits(): readonly RateLimit[] {
    return this.#rateLimits;
  }

  /**
   * Send a call, again where that is allowed, and return the JSON of its answer.
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
        if (most > 0 && isUnderWay(error)) most++; // it ends, one way or the other: only the time is bounded
        waitedMs += waitMs;
        await this.sleep(waitMs);
      }
    }
  }

  async #inTime(call: Call, token: string | undefined): Promise<unknown> {
    const timeoutMs = Math.min(call.timeoutMs ?? this.#timeoutMs, this.#timeoutMs);
    // AbortSignal.timeout is missing in React Native, whose fetch may moreover ignore the signal: hence the race.
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
      detail: `${name(call)}: the answer is not a gateway's. Does the base URL end in /api?`,
    });
  }

  async #exchange(
    call: Call,
    token: string | undefined,
    signal: AbortSignal,
  ): Promise<{ response: Response; text: string }> {
    const headers: Record<string, string> = { Accept: "application/json", ...call.headers };
    // An empty body with a JSON type means {}: so the seed's createRoom() has it.
    if (call.method !== "GET" && call.method !== "DELETE") headers["Content-Type"] = "application/json";
    if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
    const init: RequestInit = { method: call.method, headers, signal, redirect: "error" }; // tokens follow no redirect
    if (call.body !== undefined) init.body = JSON.stringify(call.body);
    try {
      const response = await this.#fetch(this.#baseUrl + call.path, init);
      return { response, text: await response.text() };
    } catch (error) {
      // The error itself is not handed on: what fetch throws may hold the request with its headers.
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

/** Call back on a turn of its own: an application's error must neither break the call nor vanish. */
export function notify<T>(listener: ((value: T) => void) | undefined, value: T): void {
  if (listener) void Promise.resolve(value).then(listener);
}

/** Escape one part of a path. */
export function segment(text: string): string {
  // "." and ".." survive escaping and would climb up the path
  if (/^\.{0,2}$/.test(text)) throw new TypeError("an id must not be empty");
  return encodeURIComponent(text);
}

/** Refuse at once what would fail, or go elsewhere, at the first call. The value itself may hold a password. */
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

/** Tell whether the first call under the same Idempotency-Key has not been answered yet. */
function isUnderWay(error: unknown): boolean {
  return error instanceof GatewayProblem && error.code === "idempotency_conflict";
}

function name(call: Call): string {
  return `${call.method} ${(call.shown ?? call.path).replace(/\?.*/, "")}`;
}

/** Return a system's error code such as ECONNREFUSED, which Node puts into the cause. */
function reason(error: unknown): string {
  const code: unknown = (error as { cause?: { code?: unknown } } | null)?.cause?.code;
  return typeof code === "string" && /^[A-Z][A-Z0-9_]{2,40}$/.test(code) ? ` (${code})` : "";
}
