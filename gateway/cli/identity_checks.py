"""Checks the identity providers of the policy for `gateway doctor`."""

import asyncio

from auth.federation import Provider
from auth.key_sets import BadKeySet, KeySet
from auth.provider_keys import Fetch, FetchFailed, fetch_keys
from gateway.cli.checks import Finding
from gateway.policy.model import Policy


async def check_identities(policy: Policy, fetch: Fetch) -> list[Finding]:
    """Check whether the keys of each provider can be fetched and fit its algorithms."""
    return list(await asyncio.gather(*(_check(one, fetch) for one in policy.identities)))


async def _check(provider: Provider, fetch: Fetch) -> Finding:
    check = f"identity {provider.name}"
    try:
        keys = provider.fixed or await fetch_keys(fetch, provider.issuer, provider.jwks)
    except (FetchFailed, BadKeySet) as error:
        text = f"the keys of {provider.issuer} cannot be used: {error}; no one can log in with its tokens"
        return Finding(check, "FAIL", text)
    return judge_keys(provider, keys)


def judge_keys(provider: Provider, keys: KeySet) -> Finding:
    """Judge whether a provider has keys for the algorithms that the policy allows."""
    check = f"identity {provider.name}"
    allowed, offered = provider.algorithms, frozenset[str]().union(*(key.algorithms for key in keys.keys.values()))
    if not allowed & offered:
        has, may = (" ".join(sorted(names)) for names in (offered, allowed))
        return Finding(check, "FAIL", f"{provider.issuer} has keys for {has}, but `algorithms` allows {may}")
    count = len(keys.keys)
    text = f"{provider.issuer}: {count} key{'' if count == 1 else 's'} for {' '.join(sorted(allowed & offered))}"
    return Finding(check, "ok", text + (f"; not used: {'; '.join(keys.left_out)}" if keys.left_out else ""))
