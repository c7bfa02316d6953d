"""/api/admin/keys: service keys, for users who may manage users."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from auth.service_keys import NewKey, ServiceKey
from gateway.accounts.service_keys import MOST_OVERLAP_S
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected

MOST_LASTS_S = 10 * 366 * 86_400
_KeyRef = Annotated[str, Meta(description="Id or name of the service key.", examples=["billing"])]
_Scopes = Annotated[
    list[Annotated[str, Meta(max_length=32)]],
    Meta(min_length=1, max_length=16, description="Permissions, `act:user` or `tokens:introspect`."),
]
_Cidrs = Annotated[
    list[Annotated[str, Meta(max_length=50)]],
    Meta(max_length=20, description="Networks from which it may be used; from anywhere if there are none."),
]


class MakeKey(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[
        Annotated[str, Meta(max_length=64)],
        Meta(
            description="Letters, digits, dots, hyphens, underscores; unique among active keys.", examples=["billing"]
        ),
    ]
    scopes: Annotated[_Scopes, Meta(examples=[["usage:read-any"]])]
    expires_in_s: Annotated[
        Annotated[int, Meta(ge=60, le=MOST_LASTS_S)] | None,
        Meta(description="Seconds until it expires; never without it."),
    ] = None
    cidrs: _Cidrs = []


class RotateKey(msgspec.Struct, forbid_unknown_fields=True):
    overlap_s: Annotated[
        int, Meta(ge=0, le=MOST_OVERLAP_S, description="Seconds for which the old secret stays valid.", examples=[3600])
    ] = 0


class OneServiceKey(msgspec.Struct):
    """A service key without its secret."""

    id: Annotated[str, Meta(description="Its beginning, which is no secret.", examples=["gwk_abcdefgh2345"])]
    name: Annotated[str, Meta(description="Its name.")]
    scopes: _Scopes
    cidrs: _Cidrs
    status: Annotated[str, Meta(description="`active`, `expired` or `revoked`.")]
    created_at: shapes.CreatedAt
    created_by: shapes.By
    expires_at: Annotated[shapes.Instant | None, Meta(description="When it expires; null: never.")]
    used_at: Annotated[shapes.Instant | None, Meta(description="When it was last used, to a minute; null: never.")]
    old_until: Annotated[
        shapes.Instant | None,
        Meta(description="Until when the secret before the last rotation is valid; null: it is not."),
    ]

    @classmethod
    def of(cls, key: ServiceKey) -> OneServiceKey:
        now_ms = time.time_ns() // 1_000_000
        return cls(
            key.id,
            key.name,
            sorted(key.scopes),
            [str(one) for one in key.cidrs],
            key.state(now_ms),
            shapes.iso(key.created_ms / 1000),
            key.created_by,
            _instant(key.expires_ms),
            _instant(key.used_ms),
            _instant(key.old_until_ms if key.old_until_ms > now_ms else 0),
        )


class KeyMade(shapes.Secret):
    """A service key with its secret."""

    key: Annotated[str, Meta(description="Goes into the `Authorization` header. It is shown only once.")]
    service_key: Annotated[OneServiceKey, Meta(description="What is known about it from now on.")]


class KeyRead(msgspec.Struct):
    service_key: Annotated[OneServiceKey, Meta(description="The service key.")]


class KeyList(msgspec.Struct):
    keys: Annotated[list[OneServiceKey], Meta(description="The oldest first.")]


@post("/api/admin/keys", opt=needs("keys.manage"), status_code=201)
async def make_key(data: JSONBody[MakeKey], request: Call, services: Injected) -> KeyMade:
    """Make a service key. Its makers can give it no power over others that they do not have."""
    expires_ms = services.keys.now_ms() + data.expires_in_s * 1000 if data.expires_in_s else 0
    new = NewKey(data.name, data.scopes, expires_ms, data.cidrs)
    key, text = await services.key_admin.create(services.actor(request.user), new)
    return KeyMade(text, OneServiceKey.of(key))


@get("/api/admin/keys", opt=needs("keys.manage"))
async def list_keys(
    services: Injected,
    revoked: Annotated[bool, QueryParameter(description="Also those revoked in the last 400 days.")] = False,
) -> KeyList:
    """List service keys."""
    found = await services.key_admin.all()
    return KeyList([OneServiceKey.of(key) for key in found if revoked or key.status == "active"])


@get("/api/admin/keys/{key:str}", opt=needs("keys.manage", refuses=("not_found",)))
async def read_key(key: FromPath[_KeyRef], services: Injected) -> KeyRead:
    """Return one service key."""
    return KeyRead(OneServiceKey.of(await services.key_admin.find(key)))


@post("/api/admin/keys/{key:str}/rotate", opt=needs("keys.manage", refuses=("not_found",)), status_code=200)
async def rotate_key(key: FromPath[_KeyRef], data: JSONBody[RotateKey], request: Call, services: Injected) -> KeyMade:
    """Give a service key a new secret. Its id, name, scopes and counters stay."""
    rotated, text = await services.key_admin.rotate(services.actor(request.user), key, overlap_s=data.overlap_s)
    return KeyMade(text, OneServiceKey.of(rotated))


@delete("/api/admin/keys/{key:str}", opt=needs("keys.manage", refuses=("not_found",)), status_code=204)
async def revoke_key(key: FromPath[_KeyRef], request: Call, services: Injected) -> None:
    """Revoke a service key for good. Every worker refuses its next request."""
    await services.key_admin.revoke(services.actor(request.user), key)


def _instant(at_ms: int) -> str | None:
    return shapes.iso(at_ms / 1000) if at_ms else None
