"""What identity providers have in common with all of their kind: presets for [identity.NAME] of a policy file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a kind of provider. `form` is what its issuers look like, and `shown` says so to people.

    `by_audience` and `jwks` make an issuer and the address of keys; without the latter discovery finds it. `by_azp`:
    its tokens need not have an audience, so their `azp` is checked instead.
    """

    form: str
    shown: str
    algorithms: tuple[str, ...] = ("RS256",)
    roles_claim: str = ""
    name_claims: tuple[str, ...] = ("name",)
    sid_claim: str = "sid"
    refuses: tuple[tuple[str, Any], ...] = ()
    aliases: tuple[str, ...] = ()
    by_audience: str = ""
    jwks: str = ""
    by_azp: bool = False

    def matches(self, issuer: str) -> bool:
        return re.fullmatch(self.form, issuer) is not None


_HOST = r"https://[a-z0-9.-]+(?::[0-9]{1,5})?"
_GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Issuers, claims and algorithms are those of the providers' own documentation (docs/identity.md has the sources).
PRESETS: Mapping[str, Preset] = {
    "firebase": Preset(
        form=r"https://securetoken\.google\.com/[a-z0-9-]+",
        shown="https://securetoken.google.com/PROJECT",
        refuses=(("firebase.sign_in_provider", "anonymous"),),
        by_audience="https://securetoken.google.com/{}",
    ),
    "auth0": Preset(
        form=rf"{_HOST}/",
        shown="https://TENANT.auth0.com/",
        name_claims=("nickname", "name"),
        refuses=(("gty", "client-credentials"),),
    ),
    "clerk": Preset(
        form=_HOST, shown="https://clerk.YOUR-DOMAIN", by_azp=True, refuses=(("sts", "pending"),), roles_claim="o.rol"
    ),
    "supabase": Preset(
        form=rf"{_HOST}/auth/v1",
        shown="https://PROJECT.supabase.co/auth/v1",
        algorithms=("ES256", "RS256", "EdDSA"),
        roles_claim="app_metadata.roles",
        name_claims=("user_metadata.name", "user_metadata.full_name"),
        sid_claim="session_id",
        refuses=(("is_anonymous", True), ("role", "anon"), ("role", "service_role")),
        jwks="{}/.well-known/jwks.json",
    ),
    "keycloak": Preset(
        form=r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]+)*/realms/[^/?#|]+",
        shown="https://HOST/realms/REALM",
        roles_claim="realm_access.roles",
        name_claims=("preferred_username", "name"),
        refuses=(("typ", "Refresh"), ("typ", "Offline"), ("typ", "Logout")),
    ),
    "cognito": Preset(
        form=r"https://cognito-idp\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/\1_[A-Za-z0-9]+",
        shown="https://cognito-idp.REGION.amazonaws.com/USER-POOL",
        roles_claim="cognito:groups",
        name_claims=("name", "cognito:username"),
        refuses=(("token_use", "access"),),
    ),
    "entra": Preset(
        form=rf"https://login\.(?:microsoftonline\.com|microsoftonline\.us|partner\.microsoftonline\.cn)/{_GUID}/v2\.0",
        shown="https://login.microsoftonline.com/TENANT-ID/v2.0",
        roles_claim="roles",
        refuses=(("idtyp", "app"),),
    ),
    "google": Preset(
        form=r"https://accounts\.google\.com",
        shown="https://accounts.google.com",
        aliases=("accounts.google.com",),
        by_audience="https://accounts.google.com",
    ),
}
