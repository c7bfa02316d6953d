"""Invalid values of a route's access cannot be constructed."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.http.access import Access, needs, public
from gateway.policy.actions import ACTIONS, LIMITED_ACTIONS, ROOM_ACTIONS


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_the_policy_determines_what_an_action_charges_and_reads(action: str) -> None:
    access: Access = needs(action)["access"]
    assert not access.is_public
    assert access.is_charged == (action in LIMITED_ACTIONS)
    assert access.concerns_room == (action in ROOM_ACTIONS)


@pytest.mark.parametrize("action", ["", "rooms.destroy", "rooms:create"])
def test_an_action_that_the_policy_does_not_have_is_refused(action: str) -> None:
    with pytest.raises(ValueError, match="the policy has no action"):
        needs(action)


def test_a_problem_code_that_does_not_exist_is_refused() -> None:
    for make in (lambda: public(refuses=("teapot",)), lambda: needs("rooms.list", refuses=("teapot",))):
        with pytest.raises(ValueError, match="teapot"):
            make()


def test_a_public_route_has_no_action_and_an_access_never_changes() -> None:
    access: Access = public()["access"]
    assert access.is_public
    assert not access.is_charged
    with pytest.raises(dataclasses.FrozenInstanceError):
        access.action = "rooms.list"  # type: ignore[misc]  # that it cannot be set is the claim
