"""The effective policy: the policy file completed by the settings of the environment."""

from dataclasses import replace

from gateway.policy.file import load_policy
from gateway.policy.model import Policy, Registration
from gateway.policy.tables import PolicyError
from gateway.settings import Settings
from gateway.signing import PREFIX


def policy_of(settings: Settings) -> Policy:
    """Return the policy file, completed by HMS_TEMPLATE_ID and GATEWAY_REGISTRATION. Raises: PolicyError

    Every endpoint of webhooks has a secret in the settings.
    """
    policy = load_policy(settings.policy_path)
    if policy.template_ids.get("default", settings.hms_template_id) != settings.hms_template_id:
        raise PolicyError(f"{policy.source}: templates.default.id: differs from HMS_TEMPLATE_ID")
    for endpoint in policy.endpoints:
        if endpoint.name not in settings.signing_keys:
            raise PolicyError(
                f"{policy.source}: webhooks.{endpoint.name}: has no secret; add "
                f"{endpoint.name}={PREFIX}... to GATEWAY_WEBHOOK_SECRETS"
            )
    template_ids = {**policy.template_ids, "default": settings.hms_template_id}
    return replace(policy, template_ids=template_ids, registration=_registration(policy, settings.registration))


def _registration(policy: Policy, mode: str) -> Registration:
    stated = policy.registration
    if stated.mode and mode and stated.mode != mode:
        raise PolicyError(f"{policy.source}: registration.mode: differs from GATEWAY_REGISTRATION")
    mode = mode or stated.mode or "closed"
    if mode == "open" and not stated.roles:
        raise PolicyError(f"{policy.source}: registration.roles: is missing; GATEWAY_REGISTRATION is open")
    return replace(stated, mode=mode)
