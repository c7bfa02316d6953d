"""`gateway archive`: the usage of past days in SQL."""

from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from gateway.cli.checks import Finding
from gateway.cli.connection import with_store
from gateway.cli.terminal import JSON, print_result, progress
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.rooms.keys import ALL_ROOMS
from gateway.setting_values import SettingsError
from gateway.settings import archive_url, load_env, policy_path
from gateway.usage.archive import Archive, ArchiveError
from gateway.usage.rollup import CHANGED, THROUGH, RollUp
from gateway.usage.subjects import Subjects

T = TypeVar("T")


@click.group()
def archive() -> None:
    """The usage of past days in SQL (GATEWAY_ARCHIVE)."""


@archive.command(epilog="Example: gateway archive status")
@JSON
def status(as_json: bool) -> None:
    """Show up to which day the archive is complete.

    Also says how many earlier days have changed since and will be copied again.
    """

    async def work(store: AnyStore, roll_up: RollUp) -> tuple[date | None, int]:
        return await roll_up.through(), await store.execute("SCARD", CHANGED)

    through, changed = _with_archive(work)
    kind = archive_url(load_env()).partition(":")[0]
    text = f"The archive ({kind}) holds every day up to {through}." if through else f"The archive ({kind}) is empty."
    if changed:
        text += f" Days that have changed since and will be copied again: {changed}."
    print_result({"kind": kind, "through": through, "changed_days": changed}, text, as_json=as_json)


@archive.command(epilog="Example: gateway archive update")
@JSON
def update(as_json: bool) -> None:
    """Copy finished days to the archive now. The gateway does this by itself, shortly after midnight."""

    async def work(store: AnyStore, roll_up: RollUp) -> list[date]:
        with progress() as shown:
            total = await _subjects(store).count() + await store.execute("ZCARD", ALL_ROOMS) + 1
            task = shown.add_task("Copying counters", total=total)
            return await roll_up.run(progress=lambda done: shown.update(task, completed=done))

    days = _with_archive(work)
    text = (
        f"Copied {len(days)} {'day' if len(days) == 1 else 'days'} up to {days[-1]}."
        if days
        else "The archive was up to date."
    )
    print_result({"days": days}, text, as_json=as_json)


async def check_archive(url: str) -> Finding:
    """Judge whether the archive of this URL can be read and has the last days."""
    if not url:
        return Finding("archive", "ok", "none; reports reach back 400 days")
    if _is_missing(url):  # reading would create it
        return Finding("archive", "WARN", "its file does not exist yet; a running gateway creates it within a minute")
    archive = Archive(url)
    try:
        found = await archive.state(THROUGH)
    except ArchiveError as error:
        return Finding("archive", "FAIL", str(error))
    finally:
        await archive.close()
    kind = url.partition(":")[0]
    if found is None or date.fromisoformat(found) < datetime.now(UTC).date() - timedelta(days=2):
        held = f"holds days up to {found}" if found else "is empty"
        return Finding("archive", "WARN", f"{kind}, {held}: start the gateway, or run `gateway archive update`")
    return Finding("archive", "ok", f"{kind}, holds every day up to {found}")


def _is_missing(url: str) -> bool:
    return url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:///")).exists()


def _with_archive(work: Callable[[AnyStore, RollUp], Coroutine[Any, Any, T]]) -> T:
    """Run work with the archive of the settings. Raises: SettingsError, PolicyError, ArchiveError"""
    url = archive_url(load_env())
    if not url:
        raise SettingsError("GATEWAY_ARCHIVE is not set, so there is no archive")
    policy = PolicyInForce(load_policy(policy_path(load_env())))

    async def inner(store: AnyStore) -> T:
        archive = Archive(url)
        try:
            return await work(store, RollUp(store.execute, _subjects(store), archive, zone=policy.zone))
        finally:
            await archive.close()

    return with_store(inner)


def _subjects(store: AnyStore) -> Subjects:
    return Subjects(Accounts(store.execute), ServiceKeys(store.execute))
