/** What goes wrong: an answer that refuses (GatewayProblem), or no answer at all (GatewayUnreachable). */

import { type RateLimit, parseRateLimits, parseRetryAfter } from "./rate-limit.js";

/** Every code the gateway answers with. A later gateway may know more. */
export const PROBLEM_CODES = [
  "invalid_request",
  "invalid_grant",
  "invalid_credentials",
  "invalid_token",
  "token_expired",
  "forbidden",
  "registration_closed",
  "invite_invalid",
  "role_not_allowed",
  "template_not_allowed",
  "not_found",
  "method_not_allowed",
  "user_exists",
  "last_admin",
  "name_taken",
  "room_disabled",
  "idempotency_conflict",
  "payload_too_large",
  "unsupported_media_type",
  "weak_password",
  "unknown_role",
  "cost_exceeds_limit",
  "idempotency_mismatch",
  "too_many_attempts",
  "rate_limited",
  "quota_exceeded",
  "headers_too_large",
  "internal",
  "upstream_error",
  "busy",
  "upstream_busy",
  "unavailable",
  "upstream_timeout",
] as const;

export type ProblemCode = (typeof PROBLEM_CODES)[number];

/** The client's own codes: nobody is logged in here; the answer did not come from a gateway. */
export type ClientCode = "no_session" | "unexpected_answer";

/** One field of the request that breaks one rule. */
export interface FieldError {
  readonly field: string;
  readonly rule: string;
}

export interface ProblemFields {
  readonly status: number;
  readonly code: ProblemCode | ClientCode | (string & {});
  readonly detail: string;
  readonly title?: string | undefined;
  readonly requestId?: string | undefined;
  readonly errors?: readonly FieldError[];
  readonly reasons?: readonly string[];
  readonly allowedRoles?: readonly string[];
  readonly missingPermission?: string | undefined;
  readonly violatedPolicies?: readonly string[];
  readonly retryAfterS?: number | undefined;
  readonly rateLimits?: readonly RateLimit[];
}

/** A refusal: the gateway's problem document (RFC 9457) with what its header fields add. It never holds a token. */
export class GatewayProblem extends Error {
  /** HTTP status; 401 also for `no_session`, which no server was asked about. */
  readonly status: number;
  /** What programs decide by. */
  readonly code: ProblemCode | ClientCode | (string & {});
  /** A sentence for a person; also the error's message. */
  readonly detail: string;
  readonly title: string | undefined;
  /** By this the operator finds the request in his log. */
  readonly requestId: string | undefined;
  /** `invalid_request`: which fields break which rule. */
  readonly errors: readonly FieldError[];
  /** `weak_password`: why. */
  readonly reasons: readonly string[];
  /** `role_not_allowed`, `unknown_role`: the roles that may be asked for. */
  readonly allowedRoles: readonly string[];
  /** `forbidden`: the permission that is missing, if it is one. */
  readonly missingPermission: string | undefined;
  /** `rate_limited`, `quota_exceeded`: the limits that denied. */
  readonly violatedPolicies: readonly string[];
  /** After so many seconds the same request may pass. */
  readonly retryAfterS: number | undefined;
  readonly rateLimits: readonly RateLimit[];

  constructor(fields: ProblemFields) {
    super(fields.detail);
    this.name = "GatewayProblem";
    this.status = fields.status;
    this.code = fields.code;
    this.detail = fields.detail;
    this.title = fields.title;
    this.requestId = fields.requestId;
    this.errors = fields.errors ?? [];
    this.reasons = fields.reasons ?? [];
    this.allowedRoles = fields.allowedRoles ?? [];
    this.missingPermission = fields.missingPermission;
    this.violatedPolicies = fields.violatedPolicies ?? [];
    this.retryAfterS = fields.retryAfterS;
    this.rateLimits = fields.rateLimits ?? [];
  }
}

/** No answer came: the network, the name, the timeout. Nobody knows whether the request was carried out. */
export class GatewayUnreachable extends Error {
  readonly timedOut: boolean;

  constructor(message: string, timedOut: boolean) {
    super(message);
    this.name = "GatewayUnreachable";
    this.timedOut = timedOut;
  }
}

/** Return the problem that an answer with a status of 400 or more means; `text` need not come from a gateway. */
export function problemOf(status: number, headers: Headers, text: string, nowMs: number): GatewayProblem {
  const document = parseObject(text) ?? {};
  const detail = string(document["detail"]) ?? string(document["error"]);
  return new GatewayProblem({
    status,
    code: string(document["code"]) ?? "unexpected_answer",
    // Whatever else stands between us and the gateway answered; its page is not repeated: it may echo the request.
    detail: detail ?? `The server answered ${status} without saying why.`,
    title: string(document["title"]),
    requestId: string(document["request_id"]) ?? headers.get("x-request-id") ?? undefined,
    errors: list(document["errors"]).filter(isFieldError),
    reasons: list(document["reasons"]).filter(isString),
    allowedRoles: list(document["allowed_roles"]).filter(isString),
    missingPermission: string(document["missing_permission"]),
    violatedPolicies: list(document["violated-policies"]).filter(isString),
    retryAfterS: parseRetryAfter(headers.get("retry-after"), nowMs),
    rateLimits: parseRateLimits(headers.get("ratelimit"), headers.get("ratelimit-policy")),
  });
}

/** Parse a JSON object; undefined for anything else. */
export function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function string(value: unknown): string | undefined {
  return isString(value) ? value : undefined;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isFieldError(value: unknown): value is FieldError {
  const error = value as Partial<FieldError> | null;
  return isString(error?.field) && isString(error.rule);
}
