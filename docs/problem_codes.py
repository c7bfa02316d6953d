"""What a client should do about each problem code."""

from __future__ import annotations

WHAT_TO_DO = {
    "invalid_request": "Correct the request before you repeat it; `errors` names each field and the rule it breaks.",
    "invalid_grant": "The refresh token or the code is no longer valid. Log in again, or ask for a new code.",
    "invalid_credentials": "Ask the user for their name and password again.",
    "invalid_token": "The session has ended. Discard both tokens and log in again.",
    "token_expired": "Refresh the tokens once and repeat the request.",
    "forbidden": "Do not repeat the request. `missing_permission` is what an operator would have to grant.",
    "origin_refused": "Pages of this origin may not use cookies. Use tokens, or ask the operator to list the origin.",
    "registration_closed": "Ask the operator for an account or an invitation.",
    "invite_invalid": "The invite is used up, expired or revoked. Ask for a new one.",
    "role_not_allowed": "Request one of `allowed_roles`, or omit `role` to get the first of them.",
    "template_not_allowed": "Use one of `allowed_templates`, or omit `template`.",
    "not_found": "It does not exist, or the caller may not know that it does. Do not repeat the request.",
    "method_not_allowed": "Use one of the methods in the `Allow` field.",
    "user_exists": "Choose another user name.",
    "last_admin": "Make another user an administrator first.",
    "name_taken": "Choose another name for the room.",
    "room_disabled": "Wait until the owner enables the room, or an operator if one has locked it.",
    "room_full": "As many people are in the room as it may hold. Try again when somebody has left.",
    "idempotency_conflict": "The first request with this key is still running. Repeat it after `Retry-After` seconds.",
    "payload_too_large": "Send a body of at most 16 KiB.",
    "unsupported_media_type": "Send JSON with `Content-Type: application/json`.",
    "weak_password": "Choose another password; `reasons` says what is wrong with this one.",
    "unknown_role": "The template at 100ms does not have this role. Request one of `allowed_roles`.",
    "cost_exceeds_limit": "Do not repeat the request: it costs more than the limit ever allows at once.",
    "idempotency_mismatch": "The key was used for a different request. Use a new key for each request.",
    "too_many_attempts": "Wait `Retry-After` seconds, then try once.",
    "rate_limited": "Wait `Retry-After` seconds and repeat the request. `violated-policies` names the limits.",
    "quota_exceeded": "Wait `Retry-After` seconds, or ask the operator for a higher quota. Nothing was changed.",
    "headers_too_large": "Send fewer or shorter header fields.",
    "internal": "Report the `request_id` to the operator.",
    "upstream_error": "100ms refused the request or cannot be reached; `detail` says what has changed nevertheless. "
    "Repeat the request later; use the same `Idempotency-Key` to create a room.",
    "busy": "Wait `Retry-After` seconds and repeat the request.",
    "upstream_busy": "100ms is overloaded or unavailable. Wait `Retry-After` seconds and repeat the request.",
    "unavailable": "The gateway's database is unavailable. Wait `Retry-After` seconds and repeat the request.",
    "upstream_timeout": "100ms did not answer in time and may have done it. Repeat the request; use the same "
    "`Idempotency-Key` to create a room.",
}
