/** The errors: a refusal (GatewayProblem), or no answer (GatewayUnreachable). */

import { type RateLimit, parseRateLimits, parseRetryAfter } from "./rate-limit.js";

/** All codes of the gateway. A newer gateway may have more. */
export const PROBLEM_CODES = [
  "invalid_request",
  "invalid_grant",
  "invalid_credentials",
  "invalid_token",
  "token_expired",
  "forbidden",
  "origin_refused",
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
  "room_full",
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

/** The client's own codes: there is no login; the answer did not come from a gateway. */
export type ClientCode = "no_session" | "unexpected_answer";

/** A field of the request and the rule that it breaks. */
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

/** A refusal: the gateway's problem document (RFC 9457) and its header fields. It never contains a token. */
export class GatewayProblem extends Error {
  /** HTTP status. Also 401 for `no_session`, where no request was sent. */
  readonly status: number;
  /** The code for programs. */
  readonly code: ProblemCode | ClientCode | (string & {});
  /** The text for users; also the error's message. */
  readonly detail: string;
  readonly title: string | undefined;
  /** The id by which the operator finds the request in the log. */
  readonly requestId: string | undefined;
  /** `invalid_request`: the invalid fields with their rules. */
  readonly errors: readonly FieldError[];
  /** `weak_password`: the reasons. */
  readonly reasons: readonly string[];
  /** `role_not_allowed`, `unknown_role`: the allowed roles. */
  readonly allowedRoles: readonly string[];
  /** `forbidden`: the missing permission, if that is the reason. */
  readonly missingPermission: string | undefined;
  /** `rate_limited`, `quota_exceeded`: the limits that denied the request. */
  readonly violatedPolicies: readonly string[];
  /** Seconds after which the request may be repeated. */
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

/** There was no answer because of the network, the host name or the timeout. The outcome of the request is unknown. */
export class GatewayUnreachable extends Error {
  readonly timedOut: boolean;

  constructor(message: string, timedOut: boolean) {
    super(message);
    this.name = "GatewayUnreachable";
    this.timedOut = timedOut;
  }
}

/** Return the problem of an answer with a status of 400 or more. `text` may come from another server. */
export function problemOf(status: number, headers: Headers, text: string, nowMs: number): GatewayProblem {
  const document = parseObject(text) ?? {};
  const detail = string(document["detail"]) ?? string(document["error"]);
  return new GatewayProblem({
    status,
    code: string(document["code"]) ?? "unexpected_answer",
    // A proxy answered. Its page is not repeated, because it may contain the request.
    detail: detail ?? `The server answered ${status} without a reason.`,
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
