"""What the words of the API mean: fields, parameters, header fields. One word means one thing on every route.

Where it does not, the name of its structure (or route) stands before it. Plain data, for the OpenAPI document.
"""

from __future__ import annotations

from typing import Any

from gateway.http.problem_codes import STATUS

_ROOM_ID = "id of a room, which is 100ms's own"

FIELDS = {
    "access": "`open`: to whoever may join rooms; `invited`: only to those with a relation. Default: as in the policy",
    "ChangeRoom.access": "`open`: to whoever may join rooms; `invited`: only to those with a relation",
    "access_token": "for the `Authorization` header",
    "action": "what was done or tried, e.g. `tokens.mint`",
    "address": "client address at login",
    "agent": "User-Agent at login, shortened",
    "amount": "units per period, for a quota",
    "at": "when",
    "block": "nothing at all is allowed",
    "blocked_until": "until when an operator has blocked the user; null: he is not blocked",
    "burst": "units at once, for a limit",
    "by": "id of the user who did it; `cli` for the command line, empty for a stranger",
    "code": "what to hand on, as in `POST /api/invites/{code}/accept`; told this once",
    "count": "the counter",
    "counter": "what is counted, e.g. `tokens.mint`",
    "created_at": "when it was made",
    "current": "whether this request came from it",
    "current_password": "proof that it is not merely somebody with the user's token",
    "date": "UTC day",
    "denied": "requests that a limit denied, by limit",
    "description": "for people; plain text",
    "details": "what else is known, depending on the action",
    "display_name": "name for people; plain text",
    "enabled": "false: nobody gets a token to join, nobody is let in",
    "Ended.ended": "how many sessions",
    "Ending.ended": "whether somebody was in the room",
    "expires_at": "when it ends",
    "expires_in": "seconds",
    "expires_in_s": "seconds until the invite ends",
    "failed": "requests that failed on our side; they cost nothing",
    "from": "first UTC day",
    "full_again_at": "when all of it is there again, if nothing is used",
    "full_again_in_s": "the same in seconds",
    "guests": "whoever has the code may come in without an account",
    "held": "how many there are now",
    "id": "stable name for programs",
    "AuditEntry.id": "place in the audit trail",
    "Room.id": _ROOM_ID,
    "RoomInvite.id": "what revokes the invite; it accepts nothing",
    "invite": "an invite without its code",
    "Register.invite": "code of an operator's invitation; it names the roles",
    "invites": "those that can still be used",
    "items": "the rows of this page",
    "lasts_s": "seconds until it ends by itself",
    "leases": "what is held at once",
    "limits": "rates",
    "lock": "and let nobody in again",
    "locked": "whether nobody can join any more",
    "login": "tokens of the guest who was made; null for whoever had a login",
    "max_uses": "how many people may accept it",
    "member": "the member as he is now",
    "members": "the owner first",
    "missing": "what is away, by name",
    "month": "by action, this UTC month",
    "most": "how many there may be",
    "name": "for people; plain text",
    "LeaseNow.name": "of the lease in the policy",
    "LimitNow.name": "of the limit in the policy",
    "QuotaNow.name": "of the quota in the policy",
    "OneOverride.name": "of the limit or quota; `*` for a block",
    "SetOverride.name": "of a limit or quota in the policy; left out with `block`",
    "names": "limits and quotas; left out: all",
    "new_password": "at most 4096 characters; a weak one is refused with reasons",
    "AuditPage.next_cursor": "gets the next page, also after an empty one; null: this was the last",
    "next_cursor": "give it as `cursor` to get the next page; null: this was the last",
    "ok": "requests that were done",
    "override": "as it is in force now",
    "overrides": "what is set for this user alone",
    "owner_id": "id of the user who owns the room",
    "password": "at most 4096 characters; a weak one is refused with reasons",
    "Login.password": "the user's",
    "CreateUser.password": "left out: nobody can log in until a password link has been used",
    "period": "what it is counted per",
    "TopReport.period": "UTC day or month",
    "permissions": "all that the user's roles grant",
    "quotas": "amounts per calendar period",
    "rate": "count per window, e.g. `60/min`, for a limit",
    "reason": "for the audit trail",
    "EndRoom.reason": "told to everybody who is thrown out, and kept in the audit trail",
    "refresh_expires_in": "seconds until the refresh token ends, if it is not used",
    "refresh_token": "gets the next pair of tokens, once; keep it secret",
    "Logout.refresh_token": "names the session instead of the `Authorization` header; good also when that has expired",
    "refused": "requests refused for another reason than a limit, by code",
    "relation": "`owner`, `cohost`, `participant`, `viewer` or `banned`",
    "MakeInvite.relation": "what whoever accepts becomes",
    "Room.relation": "the caller's; null: he is here by a permission. Only where the answer is about one room",
    "SetMember.relation": "`owner` hands the room over, `banned` also throws the user out",
    "remaining": "units left now",
    "removed": "how many of the user's peers were thrown out",
    "request_id": "the `X-Request-Id` of the request",
    "role": "role at 100ms that the token names",
    "MintToken.role": "role at 100ms; left out: the least that the caller may have here",
    "roles": "gateway roles, see the policy",
    "room": "the room as it is now",
    "room_id": _ROOM_ID,
    "rooms": "the newest first",
    "scope": "`current`: this session; `others`: the user's other ones; `all`",
    "session_id": "names the login among the user's sessions",
    "sessions": "the newest first",
    "shadow": "counted, but it denies nothing yet",
    "status": "`active` or `disabled`",
    "Live.status": "always `ok`",
    "Ready.status": "whether requests can be served",
    "subject": "id of the user it is about",
    "success": "always true, for clients of the old guide's backend",
    "template": "name of a template in the policy",
    "time_zone": "whose days, weeks and months count",
    "to": "last UTC day",
    "today": "by action, this UTC day",
    "token": "token to join the room with, for 100ms's SDK",
    "PasswordLink.token": "for `POST /api/auth/password/setup`; told this once",
    "SetPassword.token": "the code an operator gave",
    "token_type": "always `Bearer`",
    "total": "by action, ever",
    "until": "when it ends",
    "usage": "counters by action",
    "OwnUsage.usage": "what was used",
    "used": "units used in this period",
    "WhatWasUsed.used": "units by name of limit or quota",
    "used_at": "when its tokens were last renewed",
    "user": "the account",
    "userId": "accepted for clients of the old guide's backend, and ignored: the token names who is logged in",
    "user_id": "id of a user",
    "Minted.user_id": "the caller's id, as 100ms gets to know it",
    "username": "what the user logs in with; in any case",
    "CreateUser.username": "3 to 64 characters, no spaces, no slash; unique in any case",
    "Register.username": "3 to 64 characters, no spaces, no slash; unique in any case",
    "users": "by name",
    "uses_left": "how many people may still accept it",
    "would_deny": "requests that a shadow limit would have denied, by limit",
}
_TIMES = {"at", "until", "blocked_until"}

# Parameter -> what it means, and what its schema has beside what the route checks by itself.
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "room_id": (_ROOM_ID, {"examples": ["64f0c0ffee64f0c0ffee64f0"]}),
    "user": ("id or name of a user", {}),
    "sid": ("id of a session, as `GET /api/auth/sessions` lists it", {}),
    "invite_id": ("id of an invite, as `GET /api/rooms/{room_id}/invites` lists it", {}),
    "code": ("code of an invite", {}),
    "limit": ("how many to answer at most", {}),
    "cursor": ("`next_cursor` of the page before", {}),
    "from": ("first UTC day; by default 29 days before `to`", {}),
    "to": ("last UTC day; by default today", {}),
    "read_audit.from": ("not before this moment, with its time zone", {}),
    "read_audit.to": ("not after this moment, with its time zone", {}),
    "action": ("only this action, e.g. `tokens.mint`", {}),
    "counter": ("action and outcome, e.g. `tokens.mint.ok` or `api.denied.api`", {}),
    "period": ("UTC day or month, e.g. `2026-11-22` or `2026-11`; by default today", {}),
    "name": ("of a limit or quota; `*` for the block", {}),
    "Idempotency-Key": ("the same key within 24 h gets the same room", {"pattern": "^[!-~]{1,128}$"}),
}

HEADERS: dict[str, Any] = {
    "X-Request-Id": {"description": "names this request in the logs", "schema": {"type": "string"}, "required": True},
    "RateLimit": {
        "description": "units left (`r`), seconds to spread them over or until there is one (`t`); tightest first",
        "schema": {"type": "string"},
        "example": '"tokens.mint";r=29;t=29, "api";r=58;t=29',
    },
    "RateLimit-Policy": {
        "description": "the same limits: units at once (`q`), seconds until all of them are back (`w`)",
        "schema": {"type": "string"},
        "example": '"tokens.mint";q=30;w=30, "api";q=60;w=30',
    },
    "Retry-After": {
        "description": "seconds until it is worth trying again",
        "schema": {"type": "integer", "minimum": 1},
        "required": True,
    },
    "WWW-Authenticate": {
        "description": "RFC 6750",
        "schema": {"type": "string"},
        "required": True,
        "example": 'Bearer realm="hms-gateway", error="invalid_token"',
    },
    "Idempotency-Replayed": {
        "description": "the answer of an earlier request under this Idempotency-Key; it cost nothing",
        "schema": {"const": "true"},
    },
}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A refusal or failure (RFC 9457). Programs look at `code`, people read `detail`.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "success", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "the code as a URI"},
        "title": {"type": "string", "description": "the status in words"},
        "status": {"type": "integer", "description": "the HTTP status"},
        "detail": {"type": "string", "description": "a sentence for a person"},
        "instance": {"type": "string", "description": "the path of the request"},
        "code": {"type": "string", "enum": sorted(STATUS), "description": "what a program decides by"},
        "request_id": {"type": "string", "description": "by this the operator finds the request in the log"},
        "success": {"const": False, "description": "for clients of the old guide's backend"},
        "error": {"type": "string", "description": "the same as detail"},
        "errors": {
            "type": "array",
            "description": "`invalid_request`: which field breaks which rule",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {"field": {"type": "string"}, "rule": {"type": "string"}},
            },
        },
        "reasons": {"type": "array", "description": "`weak_password`: why", "items": {"type": "string"}},
        "violated-policies": {
            "type": "array",
            "description": "`rate_limited`, `quota_exceeded`: the limits that denied",
            "items": {"type": "string"},
        },
        "allowed_roles": {
            "type": "array",
            "description": "`role_not_allowed`, `unknown_role`: 100ms roles that the caller may have here",
            "items": {"type": "string"},
        },
        "allowed_templates": {
            "type": "array",
            "description": "`template_not_allowed`: templates of the policy",
            "items": {"type": "string"},
        },
        "missing_permission": {"type": "string", "description": "`forbidden`: the permission that lacks, if it is one"},
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

EXAMPLES: dict[str, Any] = {
    "Login": {"username": "hanna", "password": "correct horse battery staple"},
    "Register": {"username": "mira", "password": "correct horse battery staple", "display_name": "Mira"},
    "CreateRoom": {"name": "Stand-up", "access": "invited"},
    "MintToken": {"role": "guest"},
    "EndRoom": {"lock": True, "reason": "the meeting is over"},
    "ChangeRoom": {"name": "Retrospective"},
    "SetMember": {"relation": "cohost"},
    "MakeInvite": {"relation": "viewer", "max_uses": 20, "expires_in_s": 3600, "guests": True},
    "CreateUser": {"username": "hanna", "roles": ["host"]},
    "SetOverride": {"name": "tokens.mint", "rate": "600/min", "burst": 100, "lasts_s": 7200, "reason": "conference"},
}


def described(schemas: dict[str, Any]) -> dict[str, Any]:
    """Return schemas by name whose fields are described; msgspec's titles, which repeat the name, are left out."""
    for name, schema in schemas.items():
        schema.pop("title", None)
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        for field, rules in schema.get("properties", {}).items():
            text = FIELDS.get(f"{name}.{field}") or FIELDS.get(field)
            if text:
                rules.setdefault("description", text)
            if field.endswith("_at") or field in _TIMES:
                for kind in (rules, *rules.get("anyOf", ())):
                    if kind.get("type") == "string":
                        kind["format"] = "date-time"
    return schemas
