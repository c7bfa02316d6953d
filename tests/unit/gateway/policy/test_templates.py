"""The 100ms roles of a policy, compared with the actual roles of a template."""

from __future__ import annotations

import pytest

from gateway.hms.replies import HmsRole, HmsTemplate
from gateway.policy.file import load_policy, parse_policy
from gateway.policy.templates import (
    NoMapping,
    missing_roles,
    named_roles,
    policy_text,
    privileged_mints,
    recommended_mapping,
    unusable_names,
)

BUILT_IN = load_policy()


def template(*roles: HmsRole) -> HmsTemplate:
    return HmsTemplate("6" * 24, "live", roles)


def test_a_policy_names_each_role_of_a_template_once() -> None:
    assert named_roles(BUILT_IN, "default") == ("guest", "host")
    assert named_roles(BUILT_IN, "other") == ()


@pytest.mark.parametrize(
    ("existing", "missing"),
    [
        ({"guest", "host", "stage"}, ()),
        ({"guest"}, ("host",)),
        ({"Guest", "HOST"}, ("guest", "host")),
        (set(), ("guest", "host")),
    ],
)
def test_a_role_is_missing_unless_the_template_has_exactly_that_name(
    existing: set[str], missing: tuple[str, ...]
) -> None:
    assert missing_roles(BUILT_IN, "default", frozenset(existing)) == missing


def test_powers_are_reported_for_participants_but_not_for_owners() -> None:
    guest, host = HmsRole("guest", ("endRoom",)), HmsRole("host", ("endRoom", "removeOthers"))
    found = privileged_mints(BUILT_IN, "default", template(guest, host))
    assert found == [("participant", guest), ("viewer", guest)]
    assert privileged_mints(BUILT_IN, "default", template(HmsRole("guest", ()), host)) == []


def test_owner_and_cohost_may_have_every_role_and_others_the_least_privileged() -> None:
    roles = (
        HmsRole("broadcaster", ("endRoom", "changeRole"), ("audio",)),
        HmsRole("stage", (), ("audio", "video")),
        HmsRole("moderator", ("removeOthers",)),
        HmsRole("hls-viewer", ()),
    )
    everything = ["hls-viewer", "stage", "moderator", "broadcaster"]
    assert recommended_mapping(template(*roles)) == {
        "owner": everything,
        "cohost": everything,
        "participant": ["hls-viewer"],
        "viewer": ["hls-viewer"],
    }


def test_roles_that_no_join_token_can_hold_are_left_out() -> None:
    roles = (HmsRole("gäst", ()), HmsRole("what?", ()), HmsRole("__internal_recorder", ()), HmsRole("pupil", ()))
    assert recommended_mapping(template(*roles))["owner"] == ["pupil"]
    assert unusable_names(template(*roles)) == ("gäst", "what?")  # 100ms's own are left out
    with pytest.raises(NoMapping, match=r"plain ASCII.* 'gäst', 'what\?'") as refused:
        recommended_mapping(template(*roles[:3]))
    assert "\n" not in str(refused.value)
    with pytest.raises(NoMapping):
        recommended_mapping(template())


def test_if_every_role_has_powers_the_others_get_the_least_powerful() -> None:
    spends = ("browserRecording", "rtmpStreaming", "hlsStreaming")  # 100ms grants these by default
    moderator, chair = HmsRole("moderator", ("removeOthers",)), HmsRole("chair", ("endRoom", *spends))
    mapping = recommended_mapping(template(moderator, HmsRole("watcher", spends), chair))
    assert mapping["owner"] == ["watcher", "moderator", "chair"]
    assert mapping["participant"] == mapping["viewer"] == ["watcher"]


def test_the_written_policy_equals_the_built_in_one_except_for_the_mapping() -> None:
    odd = 'the "boss" \\ chair'
    mapping = {"owner": ["pupil", odd], "cohost": ["pupil", odd], "participant": ["pupil"], "viewer": ["pupil"]}
    text = policy_text(mapping)
    policy = parse_policy(text, "policy.toml")
    assert policy.templates == {"default": {name: tuple(roles) for name, roles in mapping.items()}}
    assert (policy.roles, policy.rooms, policy.guests) == (BUILT_IN.roles, BUILT_IN.rooms, BUILT_IN.guests)
    assert "# --- Rooms ---" in text
    assert "built-in policy. Copy" not in text
