"""The shared parts of the API's responses: header fields and the problem document."""

from typing import Any

from gateway.http.problem_codes import STATUS

HEADERS: dict[str, Any] = {
    "X-Request-Id": {
        "description": "Id of the request in the gateway's logs.",
        "schema": {"type": "string"},
        "required": True,
    },
    "RateLimit": {
        "description": "Limits, tightest first: units left (`r`), seconds to spread them over or until the next (`t`).",
        "schema": {"type": "string"},
        "example": '"tokens.mint";r=29;t=29, "api";r=58;t=29',
    },
    "RateLimit-Policy": {
        "description": "The same limits: units available at once (`q`), seconds until all of them are back (`w`).",
        "schema": {"type": "string"},
        "example": '"tokens.mint";q=30;w=30, "api";q=60;w=30',
    },
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "schema": {"type": "integer", "minimum": 1},
        "required": True,
    },
    "WWW-Authenticate": {
        "description": "How to authenticate (RFC 6750).",
        "schema": {"type": "string"},
        "required": True,
        "example": 'Bearer realm="hms-gateway", error="invalid_token"',
    },
    "Idempotency-Replayed": {
        "description": "The request repeats an earlier one with the same `Idempotency-Key`; it cost nothing.",
        "schema": {"const": "true"},
    },
}

_STRINGS = {"type": "array", "items": {"type": "string"}}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A refusal or failure (RFC 9457). `code` is for programs, `detail` for people.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "success", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "The code as a URI."},
        "title": {"type": "string", "description": "The HTTP status in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is wrong, in a sentence for people."},
        "instance": {"type": "string", "description": "Path of the request."},
        "code": {"type": "string", "enum": sorted(STATUS), "description": "Stable code for programs."},
        "request_id": {"type": "string", "description": "Id by which an operator finds the request in the log."},
        "success": {"const": False, "description": "Always false, for clients of the old guide's backend."},
        "error": {"type": "string", "description": "The same as `detail`."},
        "errors": {
            "type": "array",
            "description": "`invalid_request`: each invalid field and the rule it breaks.",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {"field": {"type": "string"}, "rule": {"type": "string"}},
            },
        },
        "reasons": _STRINGS | {"description": "`weak_password`: why the password is weak."},
        "violated-policies": _STRINGS
        | {"description": "`rate_limited`, `quota_exceeded`: the limits that denied the request."},
        "allowed_roles": _STRINGS
        | {"description": "`role_not_allowed`, `unknown_role`: 100ms roles that the caller may have in this room."},
        "allowed_templates": _STRINGS | {"description": "`template_not_allowed`: the templates of the policy."},
        "missing_permission": {
            "type": "string",
            "description": "`forbidden`: the missing permission, if that is the reason.",
        },
    },
    "example": {
        "type": "urn:hms-gateway:problem:role_not_allowed",
        "title": "Forbidden",
        "status": 403,
        "detail": "You may not join this room in that role. Allowed: guest.",
        "instance": "/api/rooms/64f0c0ffee64f0c0ffee64f0/token",
        "code": "role_not_allowed",
        "request_id": "6b1f0d9be6cb4ddfb01a9f4e",
        "success": False,
        "error": "You may not join this room in that role. Allowed: guest.",
        "allowed_roles": ["guest"],
    },
}

# What 100ms sends. Nothing of it is required: an event that cannot be understood is stored as well.
WEBHOOK_EVENT: dict[str, Any] = {
    "type": "object",
    "required": [],
    "properties": {
        "type": {"type": "string", "description": "Type of the event, e.g. `peer.leave.success`."},
        "data": {"type": "object", "description": "What happened, as 100ms documents it."},
    },
}
