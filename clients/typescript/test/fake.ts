/** A gateway that is a function: answers what a test has laid down, and remembers what it was asked. */

import { HMSServiceClass, type HMSServiceOptions } from "@hms-gateway/client";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  /** How a browser would treat the request's cookies. */
  readonly credentials: RequestCredentials | undefined;
  readonly keepalive: boolean | undefined;
}

export type Answer = { status?: number; body?: unknown; headers?: Record<string, string>; text?: string };
type Route = (asked: Asked, times: number) => Answer | Promise<Answer>;

export const BASE_URL = "http://gateway.test/api";
export const USER = { id: "u1", username: "ada", display_name: "Ada", roles: ["host"] };
export const ROOM = {
  id: "64f0c0ffee64f0c0ffee64f0",
  name: "Untitled room",
  description: "",
  access: "open",
  template: "default",
  owner_id: "u1",
  enabled: true,
  created_at: "2026-01-01T00:00:00.000Z",
};

export class FakeGateway {
  readonly asked: Asked[] = [];
  readonly slept: number[] = [];
  nowMs = Date.UTC(2026, 0, 1);
  #issued = 0;
  readonly #routes = new Map<string, Route>();

  constructor() {
    this.on("POST /auth/login", () => ({ body: this.tokens() }));
    this.on("POST /auth/refresh", () => ({ body: this.tokens() }));
    this.on("POST /auth/logout", { status: 204 });
    this.on("GET /auth/me", () => ({ body: { user: USER, permissions: ["rooms:join"] } }));
  }

  on(route: string, answer: Route | Answer): void {
    this.#routes.set(route, typeof answer === "function" ? answer : () => answer);
  }

  /** New tokens of the one session that this gateway has. */
  tokens(): Record<string, unknown> {
    const number = ++this.#issued;
    return {
      access_token: `access-${number}`,
      token_type: "Bearer",
      expires_in: 600,
      refresh_token: `refresh-${number}`,
      refresh_expires_in: 1_209_600,
      session_id: "s1",
      user: USER,
    };
  }

  client(options: Partial<HMSServiceOptions> = {}): HMSServiceClass {
    return new HMSServiceClass({
      baseUrl: BASE_URL,
      fetch: this.fetch,
      now: () => this.nowMs,
      sleep: async (ms) => {
        this.slept.push(ms);
        this.nowMs += ms;
      },
      ...options,
    });
  }

  async loggedIn(options: Partial<HMSServiceOptions> = {}): Promise<HMSServiceClass> {
    const client = this.client(options);
    await client.login("ada", "correct horse battery staple");
    return client;
  }

  times(route: string): number {
    return this.asked.filter((asked) => `${asked.method} ${asked.path}` === route).length;
  }

  last(): Asked {
    const asked = this.asked.at(-1);
    if (!asked) throw new Error("nothing was asked");
    return asked;
  }

  readonly fetch: typeof fetch = async (input, init) => {
    const path = String(input).slice(BASE_URL.length);
    const body: unknown = init?.body === undefined ? undefined : JSON.parse(String(init.body));
    const headers = Object.fromEntries(new Headers(init?.headers).entries());
    const { credentials, keepalive } = init ?? {};
    const asked = { method: init?.method ?? "GET", path, headers, body, credentials, keepalive };
    this.asked.push(asked);
    const name = `${asked.method} ${path}`;
    const route = this.#routes.get(name);
    await new Promise((resolve) => setImmediate(resolve)); // an answer never comes in the same turn
    const answer = route ? await route(asked, this.times(name)) : problem(404, "not_found");
    const text = answer.text ?? (answer.body === undefined ? "" : JSON.stringify(answer.body));
    const status = answer.status ?? 200;
    const headersBack = new Headers(answer.headers);
    // Not a Response: Node's needs what one test takes away.
    return { status, ok: status < 300, headers: headersBack, text: async () => text } as Response;
  };
}

/** A problem document as gateway/http/problems.py writes it. */
export function problem(
  status: number,
  code: string,
  more: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Answer {
  const detail = `Refused: ${code}.`;
  const type = `urn:hms-gateway:problem:${code}`;
  const document = { type, title: "Title", status, detail, instance: "/api/x", code };
  return {
    status,
    body: { ...document, request_id: "0123456789abcdef01234567", success: false, error: detail, ...more },
    headers: { "content-type": "application/problem+json", ...headers },
  };
}
