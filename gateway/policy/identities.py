"""Reads [identity.NAME] of a policy file: whose tokens are accepted, and which roles they give."""

import re
from collections.abc import Mapping
from pathlib import Path

from auth.federation import Provider
from auth.key_sets import ALGORITHMS, BadKeySet, KeySet, read_key_set
from auth.provider_keys import is_safe_url
from gateway.policy.actions import POWERS
from gateway.policy.model import Role
from gateway.policy.presets import PRESETS, Preset
from gateway.policy.tables import MOST_CHARS, IdentityTable
from gateway.text import FieldError

MOST_PROVIDERS = 16
_NAME = r"[a-z][a-z0-9_-]{0,31}"
_MOST_KEY_BYTES = 256 * 1024
_BY_USERS = ("user_metadata", "unsafe_metadata")  # what people may write about themselves at Auth0, Supabase and Clerk
_ANY = Preset(form="[^|]+", shown="https://...", algorithms=("RS256",))


def read_provider(name: str, table: IdentityTable, roles: Mapping[str, Role], folder: Path) -> Provider:
    """Return the provider of a table; `folder` is where a relative jwks_file is. Raises: FieldError (key, reason)"""
    if not re.fullmatch(_NAME, name):
        raise FieldError("", "a provider's name is 1 to 32 of a-z 0-9 _ -, starting with a letter")
    preset = PRESETS.get(table.preset, _ANY)
    audience = (table.audience,) if isinstance(table.audience, str) else table.audience
    issuer = table.issuer or (preset.by_audience.format(audience[0]) if preset.by_audience and audience else "")
    _check_issuer(issuer, table.preset, preset)
    _check_audience(table, audience, preset)
    jwks = table.jwks or ("" if table.jwks_file else preset.jwks.format(issuer))
    if jwks and not is_safe_url(jwks, like=issuer):
        raise FieldError("jwks", "must be an https:// address without user name and fragment")
    roles_claim = table.roles_claim or preset.roles_claim
    return Provider(
        name=name,
        issuer=issuer,
        audience=frozenset(audience),
        azp=frozenset(table.azp),
        algorithms=_algorithms(table.algorithms or preset.algorithms),
        jwks=jwks,
        fixed=_fixed(table, folder),
        aliases=frozenset(preset.aliases),
        roles_claim=roles_claim,
        roles=_roles(table, roles_claim, roles),
        default_role=_default_role(table.default_role, roles),
        name_claims=(table.name_claim,) if table.name_claim else preset.name_claims,
        sid_claim=preset.sid_claim,
        refuses=preset.refuses,
        create_accounts=table.create_accounts,
    )


def _check_issuer(issuer: str, name: str, preset: Preset) -> None:
    if not issuer:
        raise FieldError("issuer", f"is missing; it looks like {preset.shown}")
    if not is_safe_url(issuer) or "?" in issuer:
        raise FieldError("issuer", "must be an https:// address; http:// is for a provider on this machine")
    if not preset.matches(issuer):
        raise FieldError("issuer", f"is none of {name or 'a provider'}, whose issuers look like {preset.shown}")


def _check_audience(table: IdentityTable, audience: tuple[str, ...], preset: Preset) -> None:
    if not audience and preset.by_azp and not table.azp:
        raise FieldError("azp", "is missing; it lists the origins of your app, or tokens for others would be accepted")
    if not audience and not preset.by_azp:
        raise FieldError("audience", "is missing; it names your app, or tokens for others would be accepted")
    for key, values in (("audience", audience), ("azp", table.azp)):
        if not all(1 <= len(one) <= MOST_CHARS for one in values):
            raise FieldError(key, f"must hold strings of 1 to {MOST_CHARS} characters")


def _algorithms(named: tuple[str, ...]) -> frozenset[str]:
    for algorithm in named:
        if algorithm not in ALGORITHMS:
            raise FieldError("algorithms", f"{algorithm!r} is none of {' '.join(sorted(ALGORITHMS))}")
    return frozenset(named)


def _fixed(table: IdentityTable, folder: Path) -> KeySet | None:
    if not table.jwks_file:
        return None
    if table.jwks:
        raise FieldError("jwks_file", "is given beside jwks; use one")
    try:
        with (folder / table.jwks_file).open("rb") as file:
            content = file.read(_MOST_KEY_BYTES + 1)
    except OSError as error:
        raise FieldError("jwks_file", f"cannot be read: {error.strerror}") from None
    if len(content) > _MOST_KEY_BYTES:
        raise FieldError("jwks_file", f"is larger than {_MOST_KEY_BYTES >> 10} KiB")
    try:
        return read_key_set(content)
    except BadKeySet as error:
        raise FieldError("jwks_file", f"cannot be used: {error}") from None


def _roles(table: IdentityTable, claim: str, roles: Mapping[str, Role]) -> dict[str, str]:
    if table.roles and not claim:
        raise FieldError("roles_claim", "is missing; it names the claim whose values [roles] translates")
    if table.roles_claim and not table.roles:
        raise FieldError("roles", "is missing; it translates the values of roles_claim to roles of this file")
    if any(part in claim.split(".") for part in _BY_USERS):
        raise FieldError("roles_claim", "names what people write about themselves")
    for theirs, ours in table.roles.items():
        if not isinstance(ours, str) or ours not in roles:
            raise FieldError(f"roles.{theirs}", f"must be one of: {', '.join(roles)}")
    return dict(table.roles)


def _default_role(name: str, roles: Mapping[str, Role]) -> str:
    if name and name not in roles:
        raise FieldError("default_role", f"must be one of: {', '.join(roles)}")
    if name and (powers := ", ".join(sorted(roles[name].permissions & POWERS))):
        raise FieldError("default_role", f"{name} has {powers}, which everyone at the provider would get")
    return name
