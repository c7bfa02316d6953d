"""The policy that settings amount to: the file, completed by what the environment says."""

from __future__ import annotations

from dataclasses import replace

from gateway.policy.file import PolicyError, load_policy
from gateway.policy.model import Policy, Registration
from gateway.settings import Settings


def policy_of(settings: Settings) -> Policy:
    """Return the policy of GATEWAY_POLICY with HMS_TEMPLATE_ID and GATEWAY_REGISTRATION in it.

    Raises:
        PolicyError: the file is wrong, or says one thing where the environment says another.
    """
    policy = load_policy(settings.policy_path)
    if policy.template_ids.get("default", settings.hms_template_id) != settings.hms_template_id:
        raise PolicyError(f"{policy.source}: templates.default.id: differs from HMS_TEMPLATE_ID")
    template_ids = {**policy.template_ids, "default": settings.hms_template_id}
    return replace(policy, template_ids=template_ids, registration=_registration(policy, settings.registration))


def _registration(policy: Policy, mode: str) -> Registration:
    said = policy.registration
    if said.mode and mode and said.mode != mode:
        raise PolicyError(f"{policy.source}: registration.mode: differs from GATEWAY_REGISTRATION")
    mode = mode or said.mode or "closed"
    if mode == "open" and not said.roles:
        raise PolicyError(f"{policy.source}: registration.roles: is missing; GATEWAY_REGISTRATION is open")
    return replace(said, mode=mode)
